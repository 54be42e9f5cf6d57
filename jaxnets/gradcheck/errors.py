"""The relative error between two gradients, and the floor of what it is relative to.

A number of a gradient is a sum: a bias's is db = sum_i dz_i over the examples i and their places.
Each term and each partial sum is rounded, so the computed db is wrong by a few times

    eps T,   T = sum_i |dz_i|          eps: 2.2e-16 in float64, 1.2e-7 in float32

Where the terms do not cancel, T is about |db|, and the error is small compared with it. But before
a batch norm sum_i dz_i = 0: its backward pass subtracts the mean of dz. There the result is only
rounding. Another order of the sum gives another db, and each is 100 % wrong compared with
the other. It must be compared with T, the size of the terms.

The terms of a kernel's gradient are x_i dz_i, those of dx are dz_i w_i, with x and w of about 1. An
error in dz reaches all layers before it. So one T serves the whole network: the largest of all
layers and channels, and of all gradients. In each array, two right gradients satisfy

    |ours - theirs| <= max(tolerance |theirs|, ROUNDINGS eps T) = tolerance max(|theirs|, floor)

    floor = ROUNDINGS eps T / tolerance

In some networks with norms |ours - theirs| was up to 2.6 eps T in float64, 2.1 in float32 and 0.05
in bfloat16, whose sums are added up in float32. A norm over one number, whose variance stock Flax
computes as a difference of equal numbers, gave 11 eps T in float64, and two in a row gave 25.
No error is lost. In float64 an error of 1e-9 of an array is found if the array is larger than
2.2e-5 T, and a missing factor or term is found if the array is larger than 1e-13 T.

The terms that cancel within a layer are not in T. A norm of a pooled image subtracts a mean that is
many times as large as what it leaves. If a network fails with few digits, `compare.py` measures its
rounding (`rounding.py`) and compares once more.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnets.backprop.rule import FindRule, LayerRule
from jaxnets.models.chain import Layer

MAX_PART = 1 << 20  # numbers
# By how many units in the last place of T two right gradients may differ; see above.
ROUNDINGS = {"float64": 100, "float32": 10, "bfloat16": 0.5}


def floor_of(summed: object, dtype: str, tolerance: float) -> float:
    """The size below which an array of a gradient is not compared with itself; see above.

    Args:
      summed: All gradients of one network or layer; for a network also the terms of
        `recording_terms`.
      dtype: The precision in which they were computed: a key of `ROUNDINGS`.
      tolerance: The largest relative error that is allowed.
    """
    return ROUNDINGS[dtype] * float(jnp.finfo(dtype).eps) * largest(summed) / tolerance


def recording_terms(find_rule: FindRule, terms: list[jax.Array]) -> FindRule:
    """The same rules with backward passes that append the largest T of their output's channels."""

    def find(layer: Layer) -> LayerRule | None:
        rule = find_rule(layer)
        if rule is None:
            return None

        def backward(cache: object, d_out: jax.Array, **static: object) -> object:
            wide = d_out.astype(jnp.promote_types(d_out.dtype, jnp.float32))
            terms.append(jnp.abs(wide).reshape(-1, d_out.shape[-1]).sum(0).max())
            return rule.backward(cache, d_out, **static)

        return rule._replace(backward=backward)

    return find


def relative_error(ours: object, theirs: object, floor: float = 0.0) -> tuple[float, str]:
    """The largest relative error over the leaves of two trees of arrays, and the leaf's path.

    A leaf's error is max |ours - theirs| / max |theirs|: elements near zero are measured by their
    array's size. A number that is not finite in only one of the two is an infinite error; in both
    it is no error.

    Args:
      ours: The tree to check.
      theirs: A tree of the same structure and shapes.
      floor: The divisor where max |theirs| is smaller: `floor_of`. Where both are 0, the error is
        max |ours - theirs|.
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
    """The largest |ours - theirs|; infinite if just one of the two is not finite."""
    with np.errstate(invalid="ignore"):  # inf - inf
        difference = np.abs(ours - theirs)
    difference[~np.isfinite(ours) & ~np.isfinite(theirs)] = 0
    size = float(np.max(difference, initial=0.0))
    return size if np.isfinite(size) else float("inf")


def named_leaves(tree: object) -> Iterator[tuple[str, Any]]:
    """The leaves with their paths, as "gradient.conv1.kernel"."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf
