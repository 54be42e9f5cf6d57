"""On which side of its kinks a network is computed: between them, and only there, it is smooth."""

from collections.abc import Callable, Iterator
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.backprop.pooling import max_pool_forward
from jaxnets.backprop.windows import Padding, Size, window_slices
from jaxnets.models.chain import Layer
from jaxnets.models.layers import MaxPool


def relu_sides(x: jax.Array) -> jax.Array:
    """Which elements a ReLU lets through."""
    return x > 0


def max_pool_winners(
    x: jax.Array, *, window: Size, strides: Size, padding: Padding = "VALID"
) -> jax.Array:
    """Which element of its window wins, in the window's row-major order: [B, h, w, C]."""
    return max_pool_forward(x, window=window, strides=strides, padding=padding)[1][0]


def sides_of(layer: Layer) -> Callable[[jax.Array], jax.Array] | None:
    """The function that tells on which sides a layer computes its input, None if it has no kink."""
    if layer is nn.relu:
        return relu_sides
    if isinstance(layer, MaxPool):
        return partial(max_pool_winners, **layer.sizes)
    return None


def record_branches(layer: Layer, sides: list[jax.Array]) -> Layer:
    """The same layer, which appends the sides on which it is computed."""
    told = sides_of(layer)
    if told is None:
        return layer

    def watched_layer(x: jax.Array) -> jax.Array:
        sides.append(told(x))
        return layer(x)

    return watched_layer


def frozen_branches(layer: Layer, sides: Iterator[jax.Array]) -> Layer:
    """The layer continued smoothly from the next of the sides, whatever its input is."""
    if sides_of(layer) is None:
        return layer
    side = next(sides)
    if not isinstance(layer, MaxPool):
        return lambda x: jnp.where(side, x, 0)

    def held_max_pool(x: jax.Array) -> jax.Array:
        window, strides = layer.sizes.values()
        slices = window_slices(x, window, strides, ((0, 0), (0, 0)), fill=0)
        return lax.select_n(side.astype(jnp.int32), *slices)

    return held_max_pool
