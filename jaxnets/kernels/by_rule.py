"""Lets jax.grad take a layer's gradient from its rule instead of differentiating the layer."""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule, Params
from jaxnets.kernels.kernel import Module, with_kind
from jaxnets.models.chain import Layer

Static = Mapping[str, Any]  # A layer's settings, by the names of its pair's arguments.


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def by_rule(rule: LayerRule, static: Static, *inputs: Params | jax.Array) -> Float[Array, "..."]:
    """A layer's output for x, or params and x, which autodiff differentiates by the rule."""
    return rule.forward(*inputs, **static)[0]


def _by_rule_forward(
    rule: LayerRule, static: Static, *inputs: Params | jax.Array
) -> tuple[jax.Array, Any]:
    return rule.forward(*inputs, **static)


def _by_rule_backward(
    rule: LayerRule, static: Static, cache: object, d_out: jax.Array
) -> tuple[Any, ...]:
    gradients = rule.backward(cache, d_out, **static)
    return gradients if "params" in rule.inputs else (gradients,)


by_rule.defvjp(_by_rule_forward, _by_rule_backward)


def dense_by_rule(kind: type[Module], layer: nn.Dense, rule: LayerRule) -> Module:
    """A Flax dense layer as another kind, which multiplies and differentiates by a rule."""
    return with_kind(
        kind,
        layer,
        promote_dtype=_with_bias_in_kernel,
        dot_general=lambda x, params, *_, **__: by_rule(rule, {}, params, x),
    )


def conv_by_rule(kind: type[Module], layer: nn.Conv, rule: LayerRule) -> Module:
    """A Flax convolution as another kind, which convolves and differentiates by a rule."""
    static = rule.static(layer)

    def convolve(x: jax.Array, params: Params, *_: object, **__: object) -> jax.Array:
        return by_rule(rule, static, params, x)

    changes = {"conv_general_dilated": convolve, "promote_dtype": _with_bias_in_kernel}
    return with_kind(kind, layer, **changes)


def is_plain_conv(layer: Layer) -> TypeGuard[nn.Conv]:
    """Whether a layer is a Flax convolution of the form that `backprop/convolution.py` derives."""
    return (
        type(layer) is nn.Conv
        and not isinstance(layer.kernel_size, int)
        and len(layer.kernel_size) == 2
        and layer.kernel_dilation in (None, 1, (1, 1))
        and layer.input_dilation in (None, 1, (1, 1))
        and layer.mask is None
        and layer.padding not in ("CIRCULAR", "CAUSAL", "REFLECT")
    )


def _with_bias_in_kernel(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, *, dtype: DTypeLike | None
) -> tuple[jax.Array, Params, jax.Array | None]:
    """Flax's promote_dtype for a layer whose product takes its params as the kernel.

    Flax then adds a bias of 0: autodiff would add the gradient of its own up in the layer's
    precision, and in bfloat16 a sum of ones stays at 256.
    """
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=dtype)
    params = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return x, params, None if bias is None else jnp.zeros((), x.dtype)
