"""One layer of a chain on its own, for tables, exports and figures."""

from typing import Any

import flax.linen as nn
import jax


def apply_layer(layer: Any, params: Any, x: Any) -> jax.Array:
    """The output of one layer alone, as in an evaluation: dropout drops nothing."""
    if isinstance(layer, nn.Dropout):
        return x
    return layer.clone(parent=None).apply({"params": params}, x) if params else layer(x)
