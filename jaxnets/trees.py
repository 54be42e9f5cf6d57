"""Names for trees of arrays, by which signatures say what they take and return."""

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np

LayerParams = Mapping[str, jax.Array | np.ndarray]  # {"kernel": ..., "bias": ...}
Params = Mapping[str, LayerParams]  # A network's, or gradients like them, by its layers' names.
Tree = TypeVar("Tree")  # Arrays in dicts, tuples or other containers, as jax.tree.map takes them.
