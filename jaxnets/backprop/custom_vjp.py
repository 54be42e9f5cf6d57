"""Flax networks that differentiate by the rules derived here where those are the faster ones."""

from collections.abc import Sequence

from jaxnets.backprop.dense import DENSE, with_product
from jaxnets.backprop.rule import rule_of
from jaxnets.models.chain import Chain, Layer, first_dense, map_layers


def with_custom_vjp(model: Chain, *, widths: Sequence[int] = ()) -> Chain:
    """Returns the same network, differentiated by our rules.

    XLA's gradient of a max pool (select-and-scatter) is 6 to 9 times slower on the CPU, its
    convolutions of few channels are too, and the gradient of a wide dense layer's input is 7
    times; see benchmarks/step.py. The values are the same, so are the parameters.

    Args:
      model: A chain of layers.
      widths: The numbers of nonzero columns of the first dense layer's input, as in
        `with_nonzero_columns`.
    """
    first = first_dense(model) if widths else None

    def faster(layer: Layer) -> Layer:
        if first is not None and layer is first:
            from jaxnets.backprop.nonzero_columns import with_nonzero_columns

            return with_product(first, with_nonzero_columns(DENSE, widths))
        rule = rule_of(layer)
        return rule.faster(layer) if rule and rule.faster else layer

    return map_layers(model, faster)
