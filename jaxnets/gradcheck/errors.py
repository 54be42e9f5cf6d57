"""The relative error between two gradients."""

from collections.abc import Iterator

import jax
import numpy as np
from numpy.typing import ArrayLike

MAX_PART = 1 << 20  # numbers


def relative_error(ours: object, theirs: object, floor: float = 0.0) -> tuple[float, str]:
    """The largest relative error over the leaves of two trees of arrays, and the leaf's path.

    A leaf's error is max |ours - theirs| / max |theirs|: elements near zero are measured by their
    array's size. A number that is not finite in ours alone, or in theirs alone, is an infinite
    error; in both it is none.

    Args:
      ours: The tree to check.
      theirs: A tree of the same structure and shapes.
      floor: The divisor where max |theirs| is smaller. A gradient that should be 0
        is a sum of terms that cancel up to rounding: beside 0 any rounding is infinitely wrong,
        beside the terms it is not. Where both are 0, the error is max |ours - theirs|.
    """
    worst, place = 0.0, ""
    pairs = zip(jax.tree_util.tree_leaves_with_path(theirs), jax.tree.leaves(ours), strict=True)
    for (path, reference), value in pairs:
        parts = zip(_parts(value), _parts(reference), strict=True)
        error = max(_difference(*part) for part in parts)
        error /= max(largest(reference), floor) or 1.0
        if error >= worst:
            worst, place = error, jax.tree_util.keystr(path)
    return worst, place


def largest(tree: object) -> float:
    """The largest |x| of the finite numbers x in a tree of arrays; 0 if there are none."""
    sizes = [
        np.max(np.abs(part), initial=0.0, where=np.isfinite(part))
        for leaf in jax.tree.leaves(tree)
        for part in _parts(leaf)
    ]
    return float(max(sizes, default=0.0))


def _parts(leaf: ArrayLike) -> Iterator[np.ndarray]:
    """An array in float64 in parts of some megabytes: AlexNet's largest takes 300."""
    array = np.atleast_1d(np.asarray(leaf))
    for part in np.array_split(array, 1 + array.size // MAX_PART):
        yield np.asarray(part, np.float64)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest |ours - theirs|; infinite where just one is not finite."""
    with np.errstate(invalid="ignore"):  # inf - inf
        difference = np.abs(ours - theirs)
    difference[~np.isfinite(ours) & ~np.isfinite(theirs)] = 0
    size = float(np.max(difference, initial=0.0))
    return size if np.isfinite(size) else float("inf")
