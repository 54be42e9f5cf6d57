"""Tests and intervals for a fixed sample size: each is valid at one look, at a size chosen before.

A and B are right in shares p_A and p_B; the difference is always B minus A.
"""

import math
from statistics import NormalDist

import numpy as np
from scipy.special import stdtr, stdtrit

from jaxnets.base.proportions import Interval, paired_t_test, two_sided_z, wilson

ROUNDING = 1e-24  # A variance that equal shares have by rounding.


def z_test(right_a: float, total_a: int, right_b: float, total_b: int) -> float:
    """The two-sided p of the two-proportion z-test, with the pooled share.

        z = (p_B - p_A) / sqrt(p (1 - p) (1 / n_A + 1 / n_B))

    >>> round(z_test(90, 100, 95, 100), 4)
    0.1795
    """
    pooled = (right_a + right_b) / (total_a + total_b)
    variance = pooled * (1 - pooled) * (1 / total_a + 1 / total_b)
    if variance <= 0:  # All answers are right, or all wrong.
        return 1.0
    return math.erfc(abs(right_b / total_b - right_a / total_a) / math.sqrt(2 * variance))


def newcombe(right_a: float, total_a: int, right_b: float, total_b: int, alpha: float) -> Interval:
    """The interval of p_B - p_A from Wilson's two intervals.

    Source: Newcombe 1998, "Interval estimation for the difference between independent
    proportions", method 10.

    >>> low, high = newcombe(90, 100, 95, 100, alpha=0.05)
    >>> print(f"{low:+.4f} {high:+.4f}")
    -0.0263 +0.1296
    """
    a, b = right_a / total_a, right_b / total_b
    (low_a, high_a), (low_b, high_b) = (
        wilson(right_a, total_a, alpha),
        wilson(right_b, total_b, alpha),
    )
    return b - a - math.hypot(b - low_b, high_a - a), b - a + math.hypot(high_b - b, a - low_a)


def welch(a: np.ndarray, b: np.ndarray, alpha: float) -> tuple[Interval, float]:
    """The interval of mean(b) - mean(a), and the two-sided p, by Welch's t-test.

    SciPy's warns where all values are equal, which tell nothing about chance.
    """
    difference = float(np.mean(b) - np.mean(a))
    variances = [float(np.var(sample, ddof=1)) / len(sample) for sample in (a, b)]
    if (variance := sum(variances)) < ROUNDING:
        return (-1.0, 1.0), 1.0
    parts = (v**2 / (len(x) - 1) for v, x in zip(variances, (a, b), strict=True))
    freedom, error = variance**2 / sum(parts), math.sqrt(variance)
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return _around(difference, float(stdtrit(freedom, 1 - alpha / 2)) * error), p


def paired_means(differences: np.ndarray, rounding: float, alpha: float) -> tuple[Interval, float]:
    """The interval of the mean difference, and the two-sided p, by the paired t-test."""
    half, p = paired_t_test(differences, rounding, alpha)
    return _around(float(np.mean(differences)), half), p


def _around(difference: float, half: float) -> Interval:
    """The interval of a difference of shares, which is never beyond -1 and 1."""
    return max(difference - half, -1.0), min(difference + half, 1.0)


def paired_interval(only_a: int, only_b: int, total: int, alpha: float) -> Interval:
    """The interval of p_B - p_A for paired answers: the normal one, with half an answer added.

    Source: Agresti, Min 2005, "Simple improved confidence intervals for comparing matched
    proportions": 1/2 is added to each of the four counts.

    >>> low, high = paired_interval(only_a=3, only_b=12, total=1000, alpha=0.05)
    >>> print(f"{low:+.4f} {high:+.4f}")
    +0.0012 +0.0168
    """
    n, difference = total + 2, (only_b - only_a) / (total + 2)
    variance = ((only_a + only_b + 1) / n - difference**2) / n
    return _around(difference, two_sided_z(alpha) * math.sqrt(variance))


def sample_size(
    effect: float, alpha: float, power: float, variance: float, variance_if_equal: float
) -> int:
    """The sample size n that finds a difference with probability `power`, in one look at the end.

        n = (z_(1 - α/2) sqrt(v_0) + z_power sqrt(v_1))² / effect²

    The variances are those of the estimated difference, times n: v_1 with the difference, v_0
    without. For two shares, with n users in each model, they are p_A (1 - p_A) + p_B (1 - p_B) and
    2 p (1 - p) at the mean share p. For paired answers they are ψ - effect² and ψ, with ψ the share
    of pictures on which exactly one model is right.

    >>> sample_size(0.05, 0.05, 0.8, variance=0.09 + 0.0475, variance_if_equal=2 * 0.925 * 0.075)
    435
    """
    needed = two_sided_z(alpha) * math.sqrt(variance_if_equal)
    needed += NormalDist().inv_cdf(power) * math.sqrt(variance)
    return max(math.ceil((needed / effect) ** 2), 1)
