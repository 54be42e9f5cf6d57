"""Flax networks that differentiate by the rules derived here where those are the faster ones."""

import flax.linen as nn
import jax

from jaxnets.backprop.activations import relu_forward
from jaxnets.backprop.convolution import convolution
from jaxnets.backprop.dense import product
from jaxnets.backprop.pooling import max_pool
from jaxnets.models.chain import Chain, Layer, map_layers
from jaxnets.models.layers import MaxPool


def with_derived_rules(model: Chain) -> Chain:
    """Returns the same network, differentiated by our rules.

    XLA's gradient of a max pool (select-and-scatter) is 6 to 9 times slower on the CPU, its
    convolutions of few channels are too, and the gradient of a wide dense layer's input is 7
    times; see benchmarks/step.py. The values are the same, so are the parameters.
    """
    return map_layers(model, _derived)


def _derived(layer: Layer) -> Layer:
    if layer is nn.relu:
        return lambda x: relu_forward(x)[0]
    if isinstance(layer, MaxPool):
        window, strides = layer.sizes.values()
        return lambda x: max_pool(x, window, strides, "VALID")
    if type(layer) is nn.Dense:
        return layer.clone(dot_general=lambda x, kernel, *_, **__: product(x, kernel))
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
