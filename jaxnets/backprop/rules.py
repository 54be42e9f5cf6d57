"""The table of layers: which pair belongs to which layer or loss, and what it is called."""

from collections.abc import Mapping, Sequence

from jaxnets.backprop.activations import GELU, LEAKY_RELU, SIGMOID, SOFTMAX, TANH
from jaxnets.backprop.alexnet_layers import (
    ADAPTIVE_AVERAGE_POOL,
    ENLARGE,
    LOCAL_RESPONSE_NORM,
    NORMALIZE,
)
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
from jaxnets.backprop.residual import RESIDUAL
from jaxnets.backprop.rule import LayerRule
from jaxnets.base.errors import UserError
from jaxnets.models.chain import Chain, Layer, chains_of, kind_of

# The layers and the losses, each declared next to its pair. No network uses the losses of
# probabilities, which are steps of the slides.
LAYERS: Sequence[LayerRule] = (
    DENSE,
    DENSE_WITH_ONES,
    FLATTEN,
    SIGMOID,
    RELU,
    LEAKY_RELU,
    TANH,
    GELU,
    SOFTMAX,
    CONV,
    MAX_POOL,
    AVERAGE_POOL,
    GLOBAL_AVERAGE_POOL,
    ADAPTIVE_AVERAGE_POOL,
    LOCAL_RESPONSE_NORM,
    DROPOUT,
    BATCH_NORM,
    LAYER_NORM,
    RESIDUAL,
    ENLARGE,
    NORMALIZE,
    CROSS_ENTROPY,
    SOFTMAX_THEN_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    SQUARED_ERROR,
    HALF_SQUARED_ERROR,
    MSE,
    HALF_MSE,
)
# Those with a pair to try, by their names.
RULES: dict[str, LayerRule] = {rule.name: rule for rule in LAYERS if rule.settings}
# By a layer's class, or by the function of a layer or a loss.
KINDS: dict[object, LayerRule] = {layer: rule for rule in LAYERS for layer in rule.layers}


def register_rule(layer: LayerRule | Layer | type, rule: LayerRule | None = None) -> None:
    """Registers a layer of your own: `register_rule(LayerRule(forward, backward, layer=Swish))`.

    `register_rule(Swish, rule)` gives a rule to one more class or function, whatever layer the rule
    names.

    Args:
      layer: The rule, or a class or a function.
      rule: In the second form, its rule.

    Raises:
      UserError: The rule names no layer, or has the name of another rule.
    """
    if rule is not None:
        KINDS[layer] = rule
        return
    if not isinstance(layer, LayerRule) or not layer.layers:
        raise UserError("expected a rule that names its layer, such as LayerRule(..., layer=Swish)")
    for ours in LAYERS:
        if ours.name == layer.name and not set(layer.layers) <= set(ours.layers):
            raise UserError("expected a name that no other layer has, got {}", layer.name)
    KINDS.update(dict.fromkeys(layer.layers, layer))


def rule_of(layer: object) -> LayerRule | None:
    """The rule of a layer of a chain, or of a loss; None if there is none.

    A subclass does not inherit its parent's rule: it may compute something else.
    """
    return KINDS.get(kind_of(layer))


def branches_of(layer: Layer) -> Mapping[str, Chain]:
    """The chains that a layer is made of, by name, as its rule says; most layers have none."""
    rule = rule_of(layer)
    return rule.branches(layer) if rule else chains_of(layer)


def rule_named(name: str) -> LayerRule | None:
    """The rule whose layer has this name in its rows, the last of several; None: none has it."""
    return next((rule for rule in reversed(KINDS.values()) if rule.name == name), None)
