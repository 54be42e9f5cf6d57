"""One layer of a chain on its own, for tables, exports and figures."""

import flax.linen as nn
import jax

from jaxnets.models.chain import Layer
from jaxnets.trees import LayerParams


def apply_layer(layer: Layer, params: LayerParams, x: jax.Array) -> jax.Array:
    """The output of one layer alone, as in an evaluation: dropout drops nothing."""
    if isinstance(layer, nn.Dropout):
        return x
    if isinstance(layer, nn.Module):
        layer = layer.clone(parent=None).bind({"params": params})
    return layer(x)
