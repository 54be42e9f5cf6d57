"""Shares of right answers: Wilson's interval of one, McNemar's test of two on the same pictures."""

import math
from statistics import NormalDist

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
