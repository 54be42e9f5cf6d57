"""A race: all settings get the same seeds, and one is dropped once another has surely beaten it.

A p-value holds for one look. A race looks after every seed, so it compares e-values. For the
differences d_1, ..., d_n of two settings' accuracies, seed by seed, with T = Σ d and S = Σ d²,

    e_n = (1 + n c²)^(-1/2) · (1 - c² T² / ((1 + n c²) S))^(-n/2).

*Derivation.* Let d ~ N(δ σ, σ²), with δ ~ N(0, c²) and the density 1/σ for σ. Given σ, the vector d
is normal with covariance σ² (I + c² 1 1ᵀ): its determinant is σ^(2n) (1 + n c²), its quadratic form
(S - c² T² / (1 + n c²)) / σ². e_n is the integral over σ of this density, divided by the same
integral for δ = 0. With Student's t and v = n - 1 it is the known Bayes factor

    (1 + n c²)^(-1/2) · ((1 + t²/v) / (1 + t² / (v (1 + n c²))))^(n/2).

*What holds.* If d_1, d_2, ... are independent and N(0, σ²), the ratios d_2/|d_1|, d_3/|d_1|, ...
and the sign of d_1 have the same law for each σ. e_n is their likelihood ratio, so it is a
martingale with mean 1 in the filtration of these ratios. In that of the d themselves it need not
be one: the mean at a stop that depends on |d_1| may exceed 1. Ville's inequality,

    P(e_n ≥ x for some n) ≤ 1/x,

holds for all n at once, so it needs no filtration: nobody has to plan when to look or to stop.

*The threshold* is x = max(k - 1, 2) / (2 α) for k settings. Then a setting that is truly best is
dropped with a probability of at most α. Let d = rival - best, so δ ≤ 0. Of two settings only the
first one to reach x with Σ d on its side drops the other, and so ends their comparison.

1. For δ = 0, d and -d have the same law: the rival is that first one in half of the cases, 1/(2x).
2. Subtracting a constant from all d keeps their deviation and lowers each t. e_n grows with |t|:
   the rival reaches x no earlier, the best no later. So 1/(2x) bounds each δ < 0 too.
3. The best has k - 1 rivals, and (k - 1) / (2x) ≤ α. Rivals that are dropped only help.
4. Two settings that are equally good: one of them drops the other with a chance of 1/x ≤ α. Hence
   the 2: a race of two that calls its winner significant has a false alarm of at most α.

It assumes that the differences of each two settings are normal (docs/experiments.md: where this
fails). The settings may be correlated, and their deviations may differ.

Source: Robbins 1970, "Statistical methods related to the law of the iterated logarithm", and Lai
1976, "On confidence sequences" (mixtures); Ville 1939; Hendriksen, de Heide, Grünwald 2021,
"Optional stopping with Bayes factors" (the prior 1/σ, the ratios); Wang, Ramdas, "Anytime-valid
t-tests and confidence sequences for Gaussian means with unknown variance", arXiv:2310.03722, the
test martingale in a reduced filtration (this e_n).
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SIGNIFICANCE = 0.05  # α, and the highest probability of a false alarm for "significant".
# c: of 1, 1.5, 2 and 3 the one that needs the fewest runs for leads of 1 to 3 deviations of a run.
PRIOR = 1.5


class Drop(NamedTuple):
    """When a setting left the race, and which setting beat it."""

    seeds: int  # The number of seeds that it was trained with.
    by: int  # The index of the setting with the largest e-value against it.
    e: float


def log_e(differences: Float[np.ndarray, "N ..."]) -> Float[np.ndarray, "N ..."]:
    """The logarithm of e_n for the first n differences, n = 1 to N; below 0 if all are 0."""
    n = np.arange(1, len(differences) + 1).reshape(-1, *[1] * (differences.ndim - 1))
    total, squares = np.cumsum(differences, axis=0), np.cumsum(differences**2, axis=0)
    ratio = total**2 / np.where(squares == 0, 1, squares)  # At most n, for equal differences.
    r = 1 + n * PRIOR**2
    return -np.log(r) / 2 - n / 2 * np.log1p(-(PRIOR**2) * ratio / r)


def threshold(settings: int) -> float:
    """The e-value that drops one of this many settings."""
    return max(settings - 1, 2) / (2 * SIGNIFICANCE)


def first_look(settings: int) -> int:
    """The fewest seeds after which one of this many settings can be dropped.

    >>> first_look(2), first_look(8)
    (4, 5)
    """
    looks = itertools.count(2)
    return next(n for n in looks if log_e(np.ones(n))[-1] >= math.log(threshold(settings)))


def drops(accuracies: Float[np.ndarray, "N K"]) -> dict[int, Drop]:
    """The settings that a race has dropped; they depend only on its results.

    The setting with the best mean so far is never dropped, so one always remains.

    Args:
      accuracies: A row for each seed, a column for each setting; NaN means not trained. The race is
        followed as long as every setting that is still in it has an accuracy.

    Returns:
      The Drop of each setting that has left the race, by its index.
    """
    settings = accuracies.shape[1]
    differences = accuracies[:, :, None] - accuracies[:, None]  # [N, rival, setting]
    evidence, lead = log_e(differences), np.cumsum(differences, axis=0)
    racing, found = np.ones(settings, bool), {}
    for n, row in enumerate(accuracies):
        if np.isnan(row[racing]).any():
            break
        beats = (evidence[n] >= math.log(threshold(settings))) & (lead[n] > 0)
        beats &= np.outer(racing, racing)
        for setting in np.flatnonzero(beats.any(axis=0)).tolist():
            by = int(np.where(beats[:, setting], evidence[n, :, setting], -np.inf).argmax())
            found[setting] = Drop(n + 1, by, math.exp(evidence[n, by, setting]))
        racing &= ~beats.any(axis=0)
    return found
