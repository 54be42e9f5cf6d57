"""The number format of a network: float32, float64, bfloat16, or a mixture."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnets.models.alexnet_layers import Enlarge, Normalize
from jaxnets.models.chain import Chain, Layer, chains_of, map_layers


def with_precision(chain: Chain, precision: str) -> Chain:
    """Returns the same chain, computing in this precision.

    Args:
      chain: A chain with layers in float32.
      precision: "float32"; "float64"; "bfloat16" with float32 parameters; or "mixed", which is
        bfloat16 except for the last layer, whose logits are float32. Keras 3's guide to mixed
        precision asks for that: a softmax of logits with 8 binary digits loses small differences.
    """
    dtype = jnp.dtype("bfloat16" if precision == "mixed" else precision)
    kept = param_dtype_of(precision)
    last = _last_computing(chain) if precision == "mixed" else []

    def convert(layer: Layer) -> Layer:
        if isinstance(layer, nn.BatchNorm):  # It computes in float32 at least.
            return layer.clone(param_dtype=kept)
        if isinstance(layer, nn.Module):
            here = kept if any(layer is one for one in last) else dtype
            dtypes: dict[str, Any] = {"dtype": here, "param_dtype": kept}
            return layer.clone(**{name: x for name, x in dtypes.items() if hasattr(layer, name)})
        if isinstance(layer, Enlarge | Normalize):  # Of images, which are float32.
            return dataclasses.replace(layer, dtype=kept)
        return layer

    return map_layers(chain, convert)


def _last_computing(chain: Chain) -> list[Layer]:
    """The last layer that computes in its own dtype; for a residual block, that of each branch."""
    for layer in reversed(chain.layers):
        found = [one for inner in chains_of(layer).values() for one in _last_computing(inner)]
        if found:
            return found
        is_module = isinstance(layer, nn.Module) and not isinstance(layer, nn.BatchNorm)
        if is_module and hasattr(layer, "dtype"):
            return [layer]
    return []


def param_dtype_of(precision: str) -> DTypeLike:
    """The dtype of the parameters, of the loss, and of labels that are probabilities."""
    return jnp.float64 if precision == "float64" else jnp.float32
