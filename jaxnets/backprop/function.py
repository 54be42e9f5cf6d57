"""Derivations as JAX functions, for any program: jax.grad uses their gradients by hand."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.backprop.network import with_pairs
from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.rules import RULES
from jaxnets.base.errors import UserError

Static = Mapping[str, Any]  # A layer's settings, by the names of its pair's arguments.


def as_function(rule: LayerRule | str) -> Callable[..., jax.Array]:
    """Turns a layer's pair into a function that jax.grad differentiates with the derivation.

        y = forward(params, x)     jax.vjp(f, params, x)[1](dy) = backward(cache, dy)

    It works under jit, vmap and grad, in Flax NNX, Equinox and plain JAX. For second
    derivatives (`jax.hessian`, grad of grad) JAX differentiates the backward pass. Forward mode,
    `jax.jvp` of the function itself, is refused: a backward pass does not give it.

    Args:
      rule: A LayerRule, or the name of one of ours: "dense", "conv", "max_pool", "batch_norm",
        "softmax_cross_entropy"; docs/as-function.md lists them.

    Returns:
      A function of the arrays and the settings of the rule's forward pass: (params, x) for a dense
      layer, (params, x, strides=..., padding=..., groups=...) for a convolution. It has gradients
      for params and x; labels, masks and keys have none.

    Raises:
      UserError: There is no rule of that name.

    >>> dense = as_function("dense")
    >>> params, x = {"kernel": jnp.ones((2, 1))}, jnp.array([[3.0, 4.0]])
    >>> jax.grad(lambda params: dense(params, x).sum())(params)["kernel"].tolist()
    [[3.0], [4.0]]
    """
    rule = _named(rule) if isinstance(rule, str) else rule
    signature = inspect.signature(rule.forward)

    @wraps(rule.forward)
    def function(*arrays: object, **settings: object) -> jax.Array:
        try:
            given = signature.bind(*arrays, **settings)
        except TypeError as error:
            expected = ", ".join(rule.inputs)
            raise UserError("{}: expected ({}, ...), {}", rule.name, expected, error) from None
        given.apply_defaults()
        return _call(rule, with_pairs(given.kwargs), *jax.tree.map(jnp.asarray, given.args))

    return function


def _named(name: str) -> LayerRule:
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        raise UserError("expected one of {}, got {}", ", ".join(near or RULES), name)
    return RULES[name]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _call(rule: LayerRule, static: Static, *arrays: object) -> jax.Array:
    return rule.forward(*arrays, **static)[0]


def _forward(rule: LayerRule, static: Static, *arrays: object) -> tuple[jax.Array, Any]:
    for name, leaves in zip(rule.inputs, map(jax.tree.leaves, arrays), strict=True):
        if name not in ("params", "x") and any(leaf.perturbed for leaf in leaves):
            raise UserError("{}: expected no gradient of {}: none is derived", rule.name, name)
    return rule.forward(*jax.tree.map(lambda leaf: leaf.value, arrays), **static)


def _backward(rule: LayerRule, static: Static, cache: object, d_out: jax.Array) -> tuple[Any, ...]:
    gradients = rule.backward(cache, d_out, **static)
    d_params, dx = gradients if "params" in rule.inputs else (None, gradients)
    found = {"params": d_params, "x": dx}
    return tuple(found.get(name) for name in rule.inputs)


# Symbolic zeros tell which arrays are differentiated.
_call.defvjp(_forward, _backward, symbolic_zeros=True)
