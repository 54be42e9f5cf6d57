"""Flax networks that differentiate by the rules derived here where those are the faster ones."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax

from jaxnets.backprop.activations import relu_forward
from jaxnets.backprop.convolution import convolution
from jaxnets.backprop.dense import product
from jaxnets.backprop.nonzero_columns import nonzero_product
from jaxnets.backprop.pooling import max_pool
from jaxnets.models.chain import Chain, Layer, first_dense, map_layers
from jaxnets.models.layers import MaxPool


def with_custom_vjp(model: Chain, *, widths: Sequence[int] = ()) -> Chain:
    """Returns the same network, differentiated by our rules.

    XLA's gradient of a max pool (select-and-scatter) is 6 to 9 times slower on the CPU, its
    convolutions of few channels are too, and the gradient of a wide dense layer's input is 7
    times; see benchmarks/step.py. The values are the same, so are the parameters.

    Args:
      model: A chain of layers.
      widths: Of the first dense layer's input, as in `with_nonzero_columns`.
    """
    first = first_dense(model) if widths else None
    return map_layers(model, lambda layer: _derived(layer, widths if layer is first else ()))


def _derived(layer: Layer, widths: Sequence[int]) -> Layer:
    if layer is nn.relu:
        return lambda x: relu_forward(x)[0]
    if isinstance(layer, MaxPool):
        window, strides = layer.sizes.values()
        return lambda x: max_pool(x, window, strides, "VALID")
    if isinstance(layer, nn.Dense):
        multiply = partial(nonzero_product, widths) if widths else product
        return layer.clone(dot_general=lambda x, kernel, *_, **__: multiply(x, kernel))
    if isinstance(layer, nn.Conv):
        return layer.clone(conv_general_dilated=_convolution)
    return layer


def _convolution(
    x: jax.Array, kernel: jax.Array, strides, padding, *, feature_group_count: int = 1, **_
) -> jax.Array:
    """`convolution` in the signature of lax.conv_general_dilated, as nn.Conv calls it."""
    if not isinstance(padding, str):
        padding = tuple(tuple(side) for side in padding)
    return convolution(x, kernel, tuple(strides), padding, feature_group_count)
