"""Shares of right answers: Wilson's interval, McNemar's test, the paired t-test of differences."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import binom, binomtest

Interval = tuple[float, float]


def two_sided_z(alpha: float) -> float:
    """The z with P(|X| > z) = alpha, for a standard normal variable X."""
    return NormalDist().inv_cdf(1 - alpha / 2)


def wilson(right: float, total: int, alpha: float) -> Interval:
    """Wilson's score interval of a share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> low, high = wilson(95, 100, alpha=0.05)
    >>> print(f"{low:.4f} {high:.4f}")
    0.8882 0.9785
    """
    z2, share = two_sided_z(alpha) ** 2, right / total
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * total)) / total) / (1 + z2 / total)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """McNemar's two-sided p for paired answers: exact, and the mid-p.

    Only the pictures on which exactly one model is right count. If the models are equally good,
    each of these is a fair coin. The exact p is never too small; the mid-p counts half of what is
    as likely as the outcome, and is closer to α.

    Source: McNemar 1947; mid-p: Fagerland, Lydersen, Laake 2013.

    >>> exact, mid = mcnemar(only_a=3, only_b=12)
    >>> print(f"{exact:.4f} {mid:.4f}")
    0.0352 0.0213
    """
    total, fewer = only_a + only_b, min(only_a, only_b)
    if total == 0:
        return 1.0, 1.0
    exact = float(binomtest(fewer, total).pvalue)
    point = float(binom.pmf(fewer, total, 0.5))
    return exact, exact - point if only_a != only_b else 1 - point / 2


def rounding_variance(total_a: int | np.ndarray, total_b: int | np.ndarray) -> float:
    """The variance that rounding alone gives a difference of two shares.

    A share of n answers is a multiple of 1/n. Rounding to it is an error that is uniform between
    -1/(2n) and 1/(2n), whose variance is 1/(12 n²); the two errors add.

    Args:
      total_a: The answers of the one share; or of several, [N], whose mean variance is returned.
      total_b: Those of the other.
    """
    return (
        float(np.mean(1 / np.square(total_a, dtype=float) + 1 / np.square(total_b, dtype=float)))
        / 12
    )


def paired_t_test(
    differences: Sequence[float] | np.ndarray, rounding: float, alpha: float
) -> tuple[float, float]:
    """Student's t-test that the mean of paired differences of shares is 0.

        t = mean / sqrt(s² / N),    s² = max(variance, rounding)

    Equal differences have a variance of 0, but two shares of 15 answers are often equal by chance.
    Without the floor, 2 seeds and 15 validation images gave 11 % false alarms in place of 5 %.

    >>> half, p = paired_t_test([0.02, 0.02], rounding_variance(50, 50), alpha=0.05)
    >>> round(half, 3), round(p, 2)
    (0.073, 0.18)
    >>> half, p = paired_t_test([0.02, 0.02], rounding_variance(6000, 6000), alpha=0.05)
    >>> round(half, 5), round(p, 4)
    (0.00061, 0.0015)

    Args:
      differences: [N]
      rounding: The variance of rounding in each, as `rounding_variance` gives it, above 0.
      alpha: The chance of a false alarm.

    Returns:
      Half of the interval of the mean difference, and the two-sided p; NaN for one difference.

    Source: Student 1908, "The probable error of a mean"; the variance of rounding: Sheppard 1898.
    """
    count = len(differences)
    if count < 2:
        return math.nan, math.nan
    variance = max(float(np.var(differences, ddof=1)), rounding)
    error, freedom = math.sqrt(variance / count), count - 1
    p = 2 * float(stdtr(freedom, -abs(float(np.mean(differences))) / error))
    return float(stdtrit(freedom, 1 - alpha / 2)) * error, p
