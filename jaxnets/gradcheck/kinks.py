"""On which side of its kinks a network is computed: between them, and only there, it is smooth."""

from collections.abc import Callable, Iterator
from functools import partial

import jax

from jaxnets.backprop.rule import rule_of
from jaxnets.models.chain import Layer


def sides_of(layer: Layer) -> Callable[[jax.Array], jax.Array] | None:
    """The function that gives the sides on which a layer computes its input, None if no kink."""
    rule = rule_of(layer)
    return partial(rule.sides, **rule.static(layer)) if rule and rule.sides else None


def record_branches(layer: Layer, sides: list[jax.Array]) -> Layer:
    """The same layer, which appends the sides on which it is computed."""
    layer_sides = sides_of(layer)
    if layer_sides is None:
        return layer

    def recording_layer(x: jax.Array) -> jax.Array:
        sides.append(layer_sides(x))
        return layer(x)

    return recording_layer


def frozen_branches(layer: Layer, sides: Iterator[jax.Array]) -> Layer:
    """The layer continued smoothly from the next of the sides, whatever its input is."""
    rule = rule_of(layer)
    if not rule or not rule.on_sides:
        return layer
    return partial(rule.on_sides, sides=next(sides), **rule.static(layer))
