"""What a mutant is."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """A wrong backward pass.

    Attributes:
      layer: The name of the layer that it breaks.
      backward: (cache, d_out, **static) -> wrong gradients.
      forward: The forward pass whose cache it reads, if not the layer's own.
    """

    layer: str
    backward: Callable[..., Any]
    forward: Callable[..., Any] | None = None


def breaks(layer: str, *, forward: Callable[..., Any] | None = None):
    """Makes a mutant of the function below it."""
    return lambda backward: Mutant(layer, backward, forward)
