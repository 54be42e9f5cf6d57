"""Names for trees of arrays, for the types in signatures."""

from collections.abc import Mapping
from typing import Any, TypeVar

LayerParams = Mapping[str, Any]  # {"kernel": ..., "bias": ...}; of a block, its chains' Params.
Params = Mapping[str, LayerParams]  # A network's, or gradients like them, by its layers' names.
Tree = TypeVar("Tree")  # Arrays in dicts, tuples or other containers, as jax.tree.map takes them.


def by_layer(params: Params) -> dict[str, LayerParams]:
    """A tree like the parameters with all layers in one dict, those of residual blocks too.

    >>> by_layer({"residual1": {"chain": {"conv1": {"kernel": 1}}}, "logits": {"bias": 2}})
    {'residual1.chain.conv1': {'kernel': 1}, 'logits': {'bias': 2}}
    """
    found: dict[str, LayerParams] = {}
    for name, own in params.items():
        if any(isinstance(value, Mapping) for value in own.values()):
            found |= {f"{name}.{inner}": arrays for inner, arrays in by_layer(own).items()}
        else:
            found[name] = own
    return found
