"""Layers of which jax.grad takes the gradient from their pair, on any platform.

XLA's gradient of a max pool (select-and-scatter) takes 6 to 9 times as long on a CPU, that of a
batch norm computes more than the pair. A bias' gradient is added up in more than 16 bits.
"""

from typing import Any

import flax.linen as nn

from jaxnets.backprop.batch_norm import BATCH_NORM, Cache, Mask, batch_norm_backward
from jaxnets.backprop.batch_norm import Numbers as Normed
from jaxnets.backprop.convolution import CONV
from jaxnets.backprop.dense import DENSE
from jaxnets.backprop.pooling import MAX_POOL, Images, Outputs
from jaxnets.backprop.relu import RELU, Numbers, relu_forward
from jaxnets.backprop.rule import Params
from jaxnets.backprop.rules import register
from jaxnets.kernels.by_rule import by_rule, conv_by_rule, dense_by_rule, is_plain_conv
from jaxnets.kernels.kernel import ANY, Kernel
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Layer
from jaxnets.models.layers import MaxPool
from jaxnets.models.mlp import DenseWithOnes


class PairedMaxPool(MaxPool):
    """A max pool that autodiff differentiates by its pair."""

    def __call__(self, x: Images) -> Outputs:
        return by_rule(MAX_POOL, MAX_POOL.static(self), x)


def paired_relu(x: Numbers) -> Numbers:
    """A ReLU as its pair computes it: autodiff finds the pair's gradient."""
    return relu_forward(x)[0]


def relu_behind_norm(x: Numbers) -> Numbers:
    """A ReLU behind a batch norm."""
    return relu_forward(x)[0]


# Behind a batch norm a ReLU keeps x, which is positive just where y is. XLA computes x again from
# what the norm keeps, and y need not wait for the backward pass: alexnet_small_bn takes 1.00 of the
# CPU time of jax.grad instead of 1.05 (benchmarks/by_hand.py).
RELU_BEHIND_NORM = RELU._replace(forward=lambda x: (relu_forward(x)[0], x))

register(PairedMaxPool, MAX_POOL)
register(paired_relu, RELU)
register(relu_behind_norm, RELU_BEHIND_NORM)


def _batch_norm_by_rule(layer: BatchNorm) -> BatchNorm:
    """The same layer, whose training pass autodiff differentiates by the pair."""

    def backward(cache: Cache, dy: Normed, **static: Any) -> tuple[Params, Normed | None, None]:
        return (*batch_norm_backward(cache, dy, **static), None)  # None: the mask has no gradient.

    def training_pass(params: Params, x: Normed, mask: Mask, **static: Any) -> Normed:
        return by_rule(BATCH_NORM._replace(backward=backward), static, params, x, mask)

    return layer.clone(training_pass=training_pass)


def paired(layer: Layer) -> Layer:
    """The same layer, which jax.grad differentiates by its pair, or the layer itself."""
    if is_plain_conv(layer):
        return conv_by_rule(nn.Conv, layer, CONV)
    if type(layer) is nn.Dense:
        return dense_by_rule(nn.Dense, layer, DENSE)
    if type(layer) is DenseWithOnes:  # It hands on its kernel and its bias apart.
        return dense_by_rule(DenseWithOnes, layer, DENSE)
    if type(layer) is BatchNorm:
        return _batch_norm_by_rule(layer)
    if type(layer) is MaxPool:
        return PairedMaxPool(layer.window, layer.stride)
    return paired_relu if layer is nn.relu else layer


def _behind_norm(norm: Layer, layer: Layer) -> list[Layer] | None:
    return [norm, relu_behind_norm] if type(norm) is BatchNorm and layer is nn.relu else None


RELU_KERNEL = Kernel(
    name="relu_behind_norm",
    run=2,
    replace=_behind_norm,
    rule=RELU_BEHIND_NORM,
    pair=RELU,
    platforms=ANY,
    benchmark="python benchmarks/by_hand.py alexnet_small_bn",
)
