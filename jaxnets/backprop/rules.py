"""Every layer and loss that has a hand-derived pair."""

from typing import Any

from jaxnets.backprop.activations import RELU, SIGMOID, SOFTMAX
from jaxnets.backprop.convolution import CONV
from jaxnets.backprop.dense import DENSE, DENSE_WITH_ONES
from jaxnets.backprop.dropout import DROPOUT
from jaxnets.backprop.losses import (
    CROSS_ENTROPY,
    HALF_MSE,
    HALF_SQUARED_ERROR,
    MSE,
    SOFTMAX_CROSS_ENTROPY,
    SOFTMAX_THEN_CROSS_ENTROPY,
    SQUARED_ERROR,
)
from jaxnets.backprop.normalization import LOCAL_RESPONSE_NORM
from jaxnets.backprop.pooling import ADAPTIVE_AVERAGE_POOL, MAX_POOL
from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.shape import FLATTEN

LAYERS: dict[str, LayerRule] = {
    rule.name: rule
    for rule in (
        DENSE,
        DENSE_WITH_ONES,
        FLATTEN,
        SIGMOID,
        RELU,
        SOFTMAX,
        CONV,
        MAX_POOL,
        ADAPTIVE_AVERAGE_POOL,
        LOCAL_RESPONSE_NORM,
        DROPOUT,
        CROSS_ENTROPY,
        SOFTMAX_THEN_CROSS_ENTROPY,
        SOFTMAX_CROSS_ENTROPY,
        SQUARED_ERROR,
        HALF_SQUARED_ERROR,
        MSE,
        HALF_MSE,
    )
}

# By what a chain or losses.LOSSES holds: a class of layers, or a function.
RULES: dict[Any, LayerRule] = {rule.layer: rule for rule in LAYERS.values() if rule.layer}


def rule_of(layer: Any) -> LayerRule | None:
    """The rule of a layer of a chain, or of a loss; None if there is none."""
    return RULES.get(type(layer)) or RULES.get(layer)
