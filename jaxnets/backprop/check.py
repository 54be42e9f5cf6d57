"""How far hand-derived gradients are from others."""

from typing import Any

import jax
import numpy as np


def relative_error(ours: Any, theirs: Any, floor: float = 0.0) -> tuple[float, str]:
    """The largest relative error over the leaves of two trees of arrays, and the leaf's path.

    A leaf's error is max |ours - theirs| / max |theirs|: elements near zero are measured by their
    array's size. A number that is not finite in ours alone, or in theirs alone, is an infinite
    error; in both it is none.

    Args:
      ours: The tree to judge.
      theirs: A tree of the same structure and shapes.
      floor: What divides instead of max |theirs| where that is smaller. A gradient that should be 0
        is a sum of terms that cancel up to rounding: beside 0 any rounding is infinitely wrong,
        beside the terms it is not. Where both are 0, the error is max |ours - theirs|.
    """
    worst, place = 0.0, ""
    pairs = zip(jax.tree_util.tree_leaves_with_path(theirs), jax.tree.leaves(ours), strict=True)
    for (path, reference), value in pairs:
        reference, value = np.asarray(reference, np.float64), np.asarray(value, np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf
            # One more array, and not one a step: AlexNet's largest takes 300 MB.
            difference = np.atleast_1d(value - reference)
        difference[~np.isfinite(value) & ~np.isfinite(reference)] = 0
        error = float(np.max(np.abs(difference, out=difference), initial=0.0))
        error /= max(largest(reference), floor) or 1.0
        error = error if np.isfinite(error) else float("inf")
        if error >= worst:
            worst, place = error, jax.tree_util.keystr(path)
    return worst, place


def largest(tree: Any) -> float:
    """The largest |x| of the finite numbers x in a tree of arrays; 0 if there are none."""
    size = 0.0
    for leaf in jax.tree.leaves(tree):
        x = np.asarray(leaf, np.float64)
        finite = np.isfinite(x)
        ends = np.max(x, initial=0.0, where=finite), np.min(x, initial=0.0, where=finite)
        size = max(size, float(ends[0]), -float(ends[1]))
    return size
