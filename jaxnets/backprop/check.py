"""How far hand-derived gradients are from others."""

from typing import Any

import jax
import numpy as np


def relative_error(ours: Any, theirs: Any) -> tuple[float, str]:
    """The largest relative error over the leaves of two trees of arrays, and the leaf's path.

    A leaf's error is max |ours - theirs| / max |theirs|: elements near zero are measured by their
    array's size. Where theirs is all zero, it is max |ours|. NaN counts as infinite.
    """
    worst, place = 0.0, ""
    pairs = zip(jax.tree_util.tree_leaves_with_path(theirs), jax.tree.leaves(ours), strict=True)
    for (path, reference), value in pairs:
        reference, value = np.asarray(reference, np.float64), np.asarray(value, np.float64)
        error = np.max(np.abs(value - reference), initial=0.0)
        error = error / (np.max(np.abs(reference), initial=0.0) or 1.0)
        error = float(error) if np.isfinite(error) else float("inf")
        if error >= worst:
            worst, place = error, jax.tree_util.keystr(path)
    return worst, place
