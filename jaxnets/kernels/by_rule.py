"""Layers that their rule computes, and that jax.grad differentiates with it."""

from collections.abc import Sequence
from typing import Any, TypeGuard, TypeVar

import flax.linen as nn
import jax
from flax.linen.dtypes import promote_dtype

from jaxnets.backprop.average_pool import AVERAGE_POOL
from jaxnets.backprop.batch_norm import BATCH_NORM
from jaxnets.backprop.convolution import CONV, Images, Outputs
from jaxnets.backprop.dense import DENSE
from jaxnets.backprop.dense import Inputs as Rows
from jaxnets.backprop.dense import Outputs as RowOutputs
from jaxnets.backprop.dense_with_ones import DENSE_WITH_ONES
from jaxnets.backprop.function import as_function
from jaxnets.backprop.rule import Params
from jaxnets.backprop.rules import register_rule, rule_of
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Layer
from jaxnets.models.layers import AveragePool
from jaxnets.models.mlp import DenseWithOnes

Module = TypeVar("Module", bound=nn.Module)


def by_rule(layer: Layer, *arrays: object) -> jax.Array:
    """What the rule of the layer's class computes; jax.grad differentiates it with the rule."""
    rule: Any = rule_of(layer)
    return as_function(rule)(*arrays, **rule.static(layer))


class DenseByRule(nn.Dense):
    """A Flax dense layer, by its rule."""

    @nn.compact
    def __call__(self, inputs: Rows) -> RowOutputs:
        shape = (inputs.shape[-1], self.features)
        return by_rule(self, *_promoted(self, shape, self.use_bias, inputs))


class DenseWithOnesByRule(DenseWithOnes):
    """A dense layer with a column of ones, by its rule."""

    @nn.compact
    def __call__(self, inputs: Rows) -> RowOutputs:
        shape = (inputs.shape[-1] + 1, self.features)
        return by_rule(self, *_promoted(self, shape, False, inputs))


class ConvByRule(nn.Conv):
    """A Flax convolution of the form of `is_plain_conv`, by its rule."""

    @nn.compact
    def __call__(self, inputs: Images) -> Outputs:
        channels = inputs.shape[-1] // self.feature_group_count
        shape = (*self.kernel_size, channels, self.features)  # pyright: ignore
        return by_rule(self, *_promoted(self, shape, self.use_bias, inputs))


class AveragePoolByRule(AveragePool):
    """An average pool by its rule."""

    def __call__(self, x: Images) -> Outputs:
        return by_rule(self, x)


register_rule(AveragePoolByRule, AVERAGE_POOL)
register_rule(DenseByRule, DENSE)
register_rule(DenseWithOnesByRule, DENSE_WITH_ONES)
register_rule(ConvByRule, CONV)


def _promoted(
    layer: nn.Dense | nn.Conv, kernel: Sequence[int], biased: bool, x: jax.Array
) -> tuple[Params, jax.Array]:
    """The parameters of a Flax layer and its input, in the dtype in which it computes."""
    params = {"kernel": layer.param("kernel", layer.kernel_init, kernel, layer.param_dtype)}
    if biased:
        params["bias"] = layer.param("bias", layer.bias_init, (layer.features,), layer.param_dtype)
    x, *promoted = promote_dtype(x, *params.values(), dtype=layer.dtype)
    return dict(zip(params, promoted, strict=True)), x


def with_kind(kind: type[Module], layer: nn.Module) -> Module:
    """The same Flax layer as another class."""
    return kind(
        **{name: getattr(layer, name) for name in layer.__dataclass_fields__ if name != "parent"}
    )


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


def paired(layer: Layer) -> Layer:
    """The same layer, which jax.grad differentiates with its pair, or the layer itself.

    Autodiff adds a bias's gradient up in the layer's precision, and in bfloat16 a sum of ones stays
    at 256. Its gradient of an average pool takes 30 times as long on a CPU for windows of 3 with
    stride 2, and of a batch norm it computes more than the pair.
    """
    if is_plain_conv(layer):
        return with_kind(ConvByRule, layer)
    if type(layer) is nn.Dense:
        return with_kind(DenseByRule, layer)
    if type(layer) is DenseWithOnes:
        return with_kind(DenseWithOnesByRule, layer)
    if type(layer) is BatchNorm:
        return layer.clone(training_pass=as_function(BATCH_NORM))
    if type(layer) is AveragePool:
        return AveragePoolByRule(layer.window, layer.stride)
    return layer
