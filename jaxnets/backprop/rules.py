"""Every layer's rule: which pair belongs to which layer or loss."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from jaxnets.backprop.activations import GELU, LEAKY_RELU, SIGMOID, SOFTMAX, TANH
from jaxnets.backprop.alexnet_layers import ADAPTIVE_AVERAGE_POOL, LOCAL_RESPONSE_NORM
from jaxnets.backprop.average_pool import AVERAGE_POOL, GLOBAL_AVERAGE_POOL
from jaxnets.backprop.batch_norm import BATCH_NORM
from jaxnets.backprop.convolution import CONV
from jaxnets.backprop.dense import DENSE, FLATTEN
from jaxnets.backprop.dense_with_ones import DENSE_WITH_ONES
from jaxnets.backprop.dropout import DROPOUT
from jaxnets.backprop.layer_norm import LAYER_NORM
from jaxnets.backprop.losses import SOFTMAX_CROSS_ENTROPY
from jaxnets.backprop.pooling import MAX_POOL
from jaxnets.backprop.probability_losses import (
    CROSS_ENTROPY,
    HALF_MSE,
    HALF_SQUARED_ERROR,
    MSE,
    SOFTMAX_THEN_CROSS_ENTROPY,
    SQUARED_ERROR,
)
from jaxnets.backprop.relu import RELU
from jaxnets.backprop.residual import RESIDUAL, RESIDUAL_DENSE
from jaxnets.backprop.rule import FindRule, LayerRule
from jaxnets.losses import cross_entropy, half_mse, mse, squared_error
from jaxnets.models.alexnet_layers import AdaptiveAveragePool, LocalResponseNorm
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Layer, kind_of
from jaxnets.models.layers import AveragePool, LeakyReLU, MaxPool, flatten, global_average_pool
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.models.residual import Residual

# By the names that the gradient check and the exercises give them. The losses of probabilities are
# steps of the slides; networks take the losses of logits. "residual_dense" is an exercise.
RULES: dict[str, LayerRule] = {
    "dense": DENSE,
    "dense_with_ones": DENSE_WITH_ONES,
    "flatten": FLATTEN,
    "sigmoid": SIGMOID,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "tanh": TANH,
    "gelu": GELU,
    "softmax": SOFTMAX,
    "conv": CONV,
    "max_pool": MAX_POOL,
    "average_pool": AVERAGE_POOL,
    "global_average_pool": GLOBAL_AVERAGE_POOL,
    "adaptive_average_pool": ADAPTIVE_AVERAGE_POOL,
    "local_response_norm": LOCAL_RESPONSE_NORM,
    "dropout": DROPOUT,
    "batch_norm": BATCH_NORM,
    "layer_norm": LAYER_NORM,
    "residual": RESIDUAL,
    "residual_dense": RESIDUAL_DENSE,
    "cross_entropy": CROSS_ENTROPY,
    "softmax_then_cross_entropy": SOFTMAX_THEN_CROSS_ENTROPY,
    "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "squared_error": SQUARED_ERROR,
    "half_squared_error": HALF_SQUARED_ERROR,
    "mse": MSE,
    "half_mse": HALF_MSE,
}

Kind = type | Layer  # A layer's class, or the function that a layer or a loss is.
KINDS: dict[object, LayerRule] = {
    nn.Dense: DENSE,
    DenseWithOnes: DENSE_WITH_ONES,
    flatten: FLATTEN,
    nn.sigmoid: SIGMOID,
    nn.relu: RELU,
    LeakyReLU: LEAKY_RELU,
    nn.leaky_relu: LEAKY_RELU,
    nn.tanh: TANH,
    nn.gelu: GELU,
    nn.softmax: SOFTMAX,
    nn.Conv: CONV,
    MaxPool: MAX_POOL,
    AveragePool: AVERAGE_POOL,
    global_average_pool: GLOBAL_AVERAGE_POOL,
    AdaptiveAveragePool: ADAPTIVE_AVERAGE_POOL,
    LocalResponseNorm: LOCAL_RESPONSE_NORM,
    nn.Dropout: DROPOUT,
    BatchNorm: BATCH_NORM,
    nn.LayerNorm: LAYER_NORM,
    Residual: RESIDUAL,
    cross_entropy: SOFTMAX_CROSS_ENTROPY,
    squared_error: SQUARED_ERROR,
    mse: MSE,
    half_mse: HALF_MSE,
}


def register_rule(kind: Kind, rule: LayerRule) -> None:
    """Declares the rule of a layer's class, or of a function.

    Args:
      kind: The class or the function.
      rule: Its forward and its backward pass.
    """
    KINDS[kind] = rule


def rule_of(layer: object) -> LayerRule | None:
    """The rule of a layer of a chain, or of a loss; None if there is none.

    A subclass does not inherit its parent's rule: it may compute something else.
    """
    return KINDS.get(kind_of(layer))


class OwnPasses(NamedTuple):
    """Backward passes of the user's own, which train in place of ours."""

    find_rule: FindRule = rule_of
    sha256: Mapping[str, str] = {}  # The digest of each function's source, by its name.
    wrong: Sequence[Mapping[str, Any]] = ()  # What the judge has found, for a run folder.


OURS = OwnPasses()
