"""Kernels of one layer, and layers whose gradient jax.grad takes from their pair.

XLA's gradient of a max pool (select-and-scatter) takes 6 to 9 times as long on a CPU, that of an
average pool 30 times for windows of 3 with stride 2, and that of a batch norm computes more than
the pair. The pairs add a bias's gradient up in more than 16 bits.
"""

from typing import Any

import flax.linen as nn
from jax import lax

from jaxnets.backprop.average_pool import AVERAGE_POOL
from jaxnets.backprop.batch_norm import BATCH_NORM
from jaxnets.backprop.convolution import CONV
from jaxnets.backprop.dense import DENSE, SIZES, Inputs, dense_backward, drawn, setting_of
from jaxnets.backprop.dense import Outputs as DenseOutputs
from jaxnets.backprop.function import as_function
from jaxnets.backprop.pooling import MAX_POOL, Cache, Images, Outputs, max_pool_forward
from jaxnets.backprop.relu import RELU, Numbers, relu_forward
from jaxnets.backprop.rule import Domain, Params
from jaxnets.backprop.rules import register_rule
from jaxnets.backprop.windows import Padding, Size
from jaxnets.kernels.by_rule import conv_by_rule, dense_by_rule, is_plain_conv
from jaxnets.kernels.kernel import Kernel, stored
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Layer
from jaxnets.models.layers import AveragePool, MaxPool
from jaxnets.models.mlp import DenseWithOnes

# From this many outputs on, XLA on the CPU is slower at dz Wᵀ than at W dzᵀ: 7 times for AlexNet's
# dense6 at batch 128, 1.5 times for the CNN's hidden layer.
WIDE = 128


class WideDense(nn.Dense):
    """A Flax dense layer with many outputs: it computes dX in the order that a CPU prefers."""


def wide_dense_backward(
    cache: tuple[Inputs, Params], dz: DenseOutputs, *, input_gradient: bool = True
) -> tuple[Params, Inputs | None]:
    """The gradients of `dense_backward`, with dX = dz Wᵀ computed as (W dzᵀ)ᵀ."""
    kernel = cache[1]["kernel"]
    d_params, _ = dense_backward(cache, dz, input_gradient=False)
    # Without the barrier XLA would turn this into dz Wᵀ again.
    return d_params, lax.optimization_barrier(kernel @ dz.T).T if input_gradient else None


WIDE_DENSE = DENSE._replace(
    name="wide_dense",
    layer=WideDense,
    backward=wide_dense_backward,
    settings=[setting_of(2, 3, WIDE), setting_of(9, WIDE, WIDE)],
    domain=Domain(
        drawn, {**SIZES, "outputs": (2, 127, 128, 129, 200, 256, 300), "biased": (True, False)}
    ),
)
register_rule(WIDE_DENSE)


def _wide(layer: Layer) -> list[Layer] | None:
    if type(layer) is not nn.Dense or layer.features < WIDE:
        return None
    return [dense_by_rule(WideDense, layer, WIDE_DENSE)]


DENSE_KERNEL = Kernel(
    run=1,
    replace=_wide,
    rule=WIDE_DENSE,
    pair=DENSE,
    benchmark="python benchmarks/step.py",
)


class OverlappingMaxPool(MaxPool):
    """A max pool with overlapping windows, whose winners XLA on a CPU must store."""

    def __call__(self, x: Images) -> Outputs:
        return as_function(OVERLAPPING_MAX_POOL)(x, **OVERLAPPING_MAX_POOL.static(self))


def overlapping_max_pool_forward(
    x: Images, *, window: Size, strides: Size, padding: Padding
) -> tuple[Outputs, Cache]:
    """Returns what `max_pool_forward` returns, with its winners stored.

    The backward pass reads them in several places, where XLA would compute them again: the pools of
    AlexNet's step took twice the time (benchmarks/step.py).
    """
    static: dict[str, Any] = {"window": window, "strides": strides, "padding": padding}
    y, (_, empty) = max_pool_forward(x, **static)
    return y, (stored(lambda x: max_pool_forward(x, **static)[1][0], x), empty)


OVERLAPPING_MAX_POOL = MAX_POOL._replace(
    name="overlapping_max_pool",
    layer=OverlappingMaxPool,
    forward=overlapping_max_pool_forward,
)
register_rule(OVERLAPPING_MAX_POOL)


def _overlapping(layer: Layer) -> list[Layer] | None:
    if type(layer) is not MaxPool or layer.window == layer.stride:
        return None
    return [OverlappingMaxPool(layer.window, layer.stride)]


POOL_KERNEL = Kernel(
    run=1,
    replace=_overlapping,
    rule=OVERLAPPING_MAX_POOL,
    pair=MAX_POOL,
    benchmark="python benchmarks/step.py",
)


class PairedMaxPool(MaxPool):
    """A max pool that autodiff differentiates with its pair."""

    def __call__(self, x: Images) -> Outputs:
        return as_function(MAX_POOL)(x, **MAX_POOL.static(self))


class PairedAveragePool(AveragePool):
    """An average pool that autodiff differentiates with its pair."""

    def __call__(self, x: Images) -> Outputs:
        return as_function(AVERAGE_POOL)(x, **AVERAGE_POOL.static(self))


def paired_relu(x: Numbers) -> Numbers:
    """A ReLU as its pair computes it: autodiff finds the pair's gradient."""
    return relu_forward(x)[0]


register_rule(PairedMaxPool, MAX_POOL)
register_rule(PairedAveragePool, AVERAGE_POOL)
register_rule(paired_relu, RELU)


def paired(layer: Layer) -> Layer:
    """The same layer, which jax.grad differentiates with its pair, or the layer itself."""
    if is_plain_conv(layer):
        return conv_by_rule(nn.Conv, layer, CONV)
    if type(layer) is nn.Dense:
        return dense_by_rule(nn.Dense, layer, DENSE)
    if type(layer) is DenseWithOnes:  # It hands on its kernel and its bias separately.
        return dense_by_rule(DenseWithOnes, layer, DENSE)
    if type(layer) is BatchNorm:
        return layer.clone(training_pass=as_function(BATCH_NORM))
    if type(layer) is MaxPool:
        return PairedMaxPool(layer.window, layer.stride)
    if type(layer) is AveragePool:
        return PairedAveragePool(layer.window, layer.stride)
    return paired_relu if layer is nn.relu else layer
