"""Flax's dense layers and convolutions with gradients that jax.grad takes from a rule."""

from typing import TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from jaxnets.backprop.function import as_function
from jaxnets.backprop.rule import LayerRule, Params
from jaxnets.kernels.kernel import Module, with_kind
from jaxnets.models.chain import Layer


def dense_by_rule(kind: type[Module], layer: nn.Dense, rule: LayerRule) -> Module:
    """A Flax dense layer as another class, which multiplies and differentiates with a rule."""
    function = as_function(rule)
    return with_kind(
        kind,
        layer,
        promote_dtype=_with_bias_in_kernel,
        dot_general=lambda x, params, *_, **__: function(params, x),
    )


def conv_by_rule(kind: type[Module], layer: nn.Conv, rule: LayerRule) -> Module:
    """A Flax convolution as another class, which convolves and differentiates with a rule."""
    function, static = as_function(rule), rule.static(layer)

    def convolve(x: jax.Array, params: Params, *_: object, **__: object) -> jax.Array:
        return function(params, x, **static)

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

    Flax then adds a bias of 0. Autodiff of Flax's bias would add its gradient up in the layer's
    precision, and in bfloat16 a sum of ones stays at 256.
    """
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=dtype)
    params = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return x, params, None if bias is None else jnp.zeros((), x.dtype)
