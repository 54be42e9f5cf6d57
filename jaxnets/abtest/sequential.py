"""The sequential test: an interval that stays valid however often you look at it.

An interval for a fixed sample size is valid at one look. If you look after every user, it misses
the truth sooner or later. A confidence sequence is valid at all looks together:

    P(the true mean is outside at some t ≥ m) → at most α, as m grows.

Robbins' normal mixture gives one. For values x_1, ..., x_t with mean μ_t and standard deviation σ_t
it is

    μ_t ± σ_t sqrt(2 (t ρ² + 1) / (t² ρ²) · log(sqrt(t ρ² + 1) / α)).

Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, "Time-uniform central limit theory and
asymptotic confidence sequences", Annals of Statistics 52, theorem 2.2 and section 2. The package
`ville` 0.1 has the same formula; the tests compare ours with it.
"""

import dataclasses
import math
from statistics import NormalDist

import numpy as np
from scipy.special import lambertw

MIN_USERS = 100  # With fewer, the standard deviation is too uncertain: the interval is infinite.
EXPECTED = 10  # Right and wrong answers of each model, below which their means are not normal yet.
PLANNED = 500  # The number of users at which the interval is as narrow as it can be.
MAX_USERS = 10**12  # No plan is longer.


@dataclasses.dataclass(frozen=True)
class Sequence:
    """The estimate, interval and p after each value; the arrays are [..., N] float64."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray  # The smallest α at which some interval so far excludes 0; it never grows.

    @property
    def decided(self) -> np.ndarray:
        """Whether some interval so far excludes 0, [..., N] bool."""
        return np.logical_or.accumulate((self.low > 0) | (self.high < 0), axis=-1)


def mixture(alpha: float, planned: int = PLANNED) -> float:
    """The ρ² with which the interval is narrowest at a planned number of values.

    With r = t ρ² + 1, the width is smallest where r - log r = 1 + 2 log(1 / α): Lambert's W.

    >>> print(f"{mixture(0.05):.5f}")
    0.01642
    """
    r = -lambertw(-(alpha**2) / math.e, k=-1).real
    return float(r - 1) / planned


def half_width(t: np.ndarray | float, alpha: float, rho2: float) -> np.ndarray:
    """Half of the interval's width after t values whose standard deviation is 1."""
    r = np.asarray(t, np.float64) * rho2 + 1
    return np.sqrt(2 * r * (np.log(r) / 2 - math.log(alpha)) / rho2) / t


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the variance of the values so far, after each value, [..., N]."""
    t, first = np.arange(1, values.shape[-1] + 1), values[..., :1]
    centered = values - first  # The squares of large equal numbers would round.
    mean = np.cumsum(centered, -1) / t
    squares = np.cumsum(centered**2, -1) - t * mean**2
    return mean + first, np.maximum(squares, 0) / np.maximum(t - 1, 1)


def confidence_sequence(
    values: np.ndarray,
    alpha: float = 0.05,
    planned: int = PLANNED,
    begins: np.ndarray | bool = True,
) -> Sequence:
    """The interval of the mean after each value.

    Where all values so far are equal, and before MIN_USERS of them, nothing is known about their
    standard deviation: the interval is infinite.

    Args:
      values: Independent values in the order in which they came, [..., N].
      alpha: The chance that the interval misses the mean at some look.
      planned: The number of values at which it is narrowest. Choose it before the first value.
      begins: Where it is False, the interval is infinite, too, [..., N] bool.

    Returns:
      The Sequence after each value.
    """
    values = np.asarray(values, np.float64)
    t, rho2 = np.arange(1, values.shape[-1] + 1), mixture(alpha, planned)
    estimate, variance = moments(values)
    known = (t >= MIN_USERS) & (variance > 0) & begins
    width = np.where(known, np.sqrt(variance) * half_width(t, alpha, rho2), np.inf)
    r = t * rho2 + 1
    squared = t**2 * rho2 * estimate**2 / np.where(known, 2 * variance * r, np.inf)
    evidence = np.where(known, squared - np.log(r) / 2, 0)  # The logarithm of the mixture.
    p = np.exp(-np.maximum.accumulate(np.maximum(evidence, 0), axis=-1))
    return Sequence(estimate, estimate - width, estimate + width, p)


def effects(outcomes: np.ndarray, in_b: np.ndarray, share_b: float = 0.5) -> np.ndarray:
    """Each user's estimate of B's mean minus A's, in order; their mean estimates the difference.

        φ_i = (y_i - m_i) (b_i / π - (1 - b_i) / (1 - π)),   m_i = mean of y_1, ..., y_(i-1)

    π is the chance of B. As m_i does not depend on user i, each φ_i has the difference as its mean.

    Args:
      outcomes: Each user's answer, in the order in which they came, [..., N].
      in_b: Whether the user got model B, [..., N] bool.
      share_b: π, between 0 and 1.
    """
    outcomes, in_b = np.asarray(outcomes, np.float64), np.asarray(in_b, bool)
    before = np.cumsum(outcomes, -1) - outcomes
    m = before / np.maximum(np.arange(outcomes.shape[-1]), 1)
    return (outcomes - m) * np.where(in_b, 1 / share_b, -1 / (1 - share_b))


def are_enough(outcomes: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """Whether there are enough answers of both kinds for the sequential test, after each user.

    If the models are equally good, each is expected to have EXPECTED right and wrong answers or
    more: the rule for χ² tests (Cochran 1954), with 10 for 5. Without it, a rare wrong answer of a
    model that few users get raises an alarm: with a split of 90/10 and accuracy 0.95, 0.2 of the
    A/A experiments were wrong.

    Args:
      outcomes: Each user's answer, from 0 (wrong) to 1 (right), [..., N].
      in_b: Whether the user got model B, [..., N] bool.
    """
    t, right = np.arange(1, outcomes.shape[-1] + 1), np.cumsum(outcomes, -1)
    users_b = np.cumsum(in_b, -1)
    rarer = np.minimum(right, t - right)
    return rarer * np.minimum(users_b, t - users_b) / t >= EXPECTED


def users_needed(
    deviation: float, effect: float, alpha: float, power: float, planned: int = PLANNED
) -> int:
    """The number of values after which the test has decided, with probability `power`.

    It is an upper bound, for values whose mean is `effect`.

    After t of them the estimate is above effect - z σ / sqrt(t) with that probability, so it is
    enough that half of the interval's width is smaller than this.
    """
    z, rho2 = NormalDist().inv_cdf(power), mixture(alpha, planned)

    def decides(t: int) -> bool:
        missing = z / math.sqrt(t) + float(half_width(t, alpha, rho2))
        return deviation * missing <= abs(effect)

    low, high = MIN_USERS - 1, MIN_USERS
    while not decides(high) and high < MAX_USERS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
