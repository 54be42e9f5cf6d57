"""Tests and intervals of a fixed size: each is right at one look, at a size chosen before.

A and B are right in shares p_A and p_B; the difference is always B minus A.
"""

import math
from statistics import NormalDist

import numpy as np

from jaxnets.proportions import Interval, two_sided_z, wilson


def z_test(right_a: float, total_a: int, right_b: float, total_b: int) -> float:
    """The two-sided p of the two-proportion z-test, with the pooled share.

        z = (p_B - p_A) / sqrt(p (1 - p) (1 / n_A + 1 / n_B))

    >>> round(z_test(90, 100, 95, 100), 4)
    0.1795
    """
    pooled = (right_a + right_b) / (total_a + total_b)
    variance = pooled * (1 - pooled) * (1 / total_a + 1 / total_b)
    return p_of(right_b / total_b - right_a / total_a, variance)


def p_of(difference: float, variance: float) -> float:
    """The two-sided p of a normal difference with such a variance, if the true one is 0."""
    if variance <= 0:
        return 1.0 if difference == 0 else 0.0
    return math.erfc(abs(difference) / math.sqrt(2 * variance))


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
    """The interval of mean(b) - mean(a), and the two-sided p: the normal one, for many users."""
    variance = float(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    return _normal(float(np.mean(b) - np.mean(a)), variance, alpha)


def paired(differences: np.ndarray, alpha: float) -> tuple[Interval, float]:
    """The interval of the mean difference, and the two-sided p: the normal one, for many users."""
    variance = float(np.var(differences, ddof=1) / len(differences))
    return _normal(float(np.mean(differences)), variance, alpha)


def _normal(difference: float, variance: float, alpha: float) -> tuple[Interval, float]:
    half = two_sided_z(alpha) * math.sqrt(variance)
    return (difference - half, difference + half), p_of(difference, variance)


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
    return _normal(difference, variance, alpha)[0]


def sample_size(
    effect: float, alpha: float, power: float, variance: float, variance_if_equal: float
) -> int:
    """The sample size n that finds a difference with the chance `power`, in one look at the end.

        n = (z_(1 - α/2) sqrt(v_0) + z_power sqrt(v_1))² / effect²

    The variances are those of the estimated difference, times n: v_1 with the difference, v_0
    without. Of two shares, n users in each model, they are p_A (1 - p_A) + p_B (1 - p_B) and
    2 p (1 - p) at the mean share p. Of paired answers they are ψ - effect² and ψ, with ψ the share
    of pictures on which one model alone is right.

    >>> sample_size(0.05, 0.05, 0.8, variance=0.09 + 0.0475, variance_if_equal=2 * 0.925 * 0.075)
    435
    """
    needed = two_sided_z(alpha) * math.sqrt(variance_if_equal)
    needed += NormalDist().inv_cdf(power) * math.sqrt(variance)
    return max(math.ceil((needed / effect) ** 2), 1)
