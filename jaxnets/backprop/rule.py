"""What a layer is, in one declaration that stands beside its pair.

`rules.py` collects the declarations. `network.py` composes the pairs into a network's backward
pass, `custom_vjp.py` lends them to autodiff, and `gradcheck/` holds each against the plain
formulation in the settings that are declared with it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

Params = dict[str, Float[Array, "..."]]


class Setting(NamedTuple):
    """One call on which a pair is tried.

    Attributes:
      x: The input's shape.
      params: The parameters' shapes by name.
      labels: What a loss compares with: "classes", "one_hot" rows or "probabilities".
      numbers: What x holds: "normal"; "integers" or "equal", which tie; "huge", whose exponential
        overflows; "shares", which lie between 0 and 1.
      scale: A factor of x, and of the step of the central differences.
      static: The layer's other arguments.
    """

    x: tuple[int, ...]
    params: Mapping[str, tuple[int, ...]] = {}
    labels: str = ""
    numbers: str = "normal"
    scale: float = 1.0
    static: Mapping[str, Any] = {}


class LayerRule(NamedTuple):
    """A layer: its two passes, what they must equal, and what they are tried on.

    Attributes:
      name: The layer's name in the gradient check.
      layer: What a chain or `losses.LOSSES` holds: a class or a function. None: no network has it.
      forward: (*inputs, **static) -> (out, cache).
      backward: (cache, d_out, **static) -> dx; with parameters (d_params, dx), and it then takes
        input_gradient too.
      plain: (*inputs, **static) -> out in stock JAX or Flax, which autodiff differentiates.
      settings: The calls on which the pair is tried.
      inputs: The names of forward's arrays, of "params", "key", "x" and "labels".
      static: Reads the static arguments from a layer of the class.
      faster: Returns a layer in the form that autodiff differentiates by this pair.
      sides: (x, **static) -> the side of its kink on which each unit is. None: no kinks.
      on_sides: (x, sides, **static) -> out, continued smoothly from these sides.
    """

    name: str
    layer: Any
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    plain: Callable[..., Any]
    settings: Sequence[Setting]
    inputs: tuple[str, ...] = ("x",)
    static: Callable[[Any], dict[str, Any]] = lambda layer: {}
    faster: Callable[[Any], Callable[..., Any]] | None = None
    sides: Callable[..., jax.Array] | None = None
    on_sides: Callable[..., jax.Array] | None = None


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def by_rule(rule: LayerRule, static: Mapping[str, Any], *inputs: Any) -> Float[Array, "..."]:
    """A layer's output, which autodiff differentiates by the rule's backward pass.

    Args:
      rule: The layer; its inputs are x, or params and x.
      static: Its static arguments.
      *inputs: Its arrays.
    """
    return rule.forward(*inputs, **static)[0]


def _by_rule_forward(rule: LayerRule, static: Mapping[str, Any], *inputs: Any):
    return rule.forward(*inputs, **static)


def _by_rule_backward(rule: LayerRule, static: Mapping[str, Any], cache: Any, d_out: jax.Array):
    gradients = rule.backward(cache, d_out, **static)
    return gradients if "params" in rule.inputs else (gradients,)


by_rule.defvjp(_by_rule_forward, _by_rule_backward)
