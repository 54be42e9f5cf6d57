"""The results of an experiment: the sequential test, the one-look test, the users still needed."""

import dataclasses
import math

import numpy as np
from scipy.stats import binomtest, mannwhitneyu

from jaxnets.abtest import classical
from jaxnets.abtest.log import Users
from jaxnets.abtest.plan import Plan
from jaxnets.abtest.sequential import (
    Sequence,
    are_enough,
    confidence_sequence,
    effects,
    users_needed,
)
from jaxnets.base.errors import UserError
from jaxnets.base.language import N_
from jaxnets.base.proportions import Interval, mcnemar, rounding_variance

UNLIKELY = 0.001  # A split or feedback that is rarer than this by chance is an error in the set-up.


@dataclasses.dataclass(frozen=True)
class Trial:
    """The result of an experiment; differences are B minus A, in accuracy."""

    plan: Plan
    paired: bool  # Every user saw both models; else each saw one.
    users: tuple[int, int]  # The numbers of users who saw A and B; if paired, the same users.
    left_out: int  # Users of the other kind.
    answers: int
    models: dict[str, tuple[str, ...]]
    accuracy: tuple[float, float]  # The mean over the users of their shares of right answers.
    values: np.ndarray  # Each user's estimate of the difference, in the order in which they came.
    sequence: Sequence
    test: str  # The one-look test.
    once: Interval
    p: float
    split_p: float  # The chance of a split as uneven as this; 1 if paired.
    # Each model's mean over the users: the share of their answers that have feedback. If the log
    # has only such answers: the number of them.
    feedback: tuple[float, float] | None
    feedback_p: float  # The chance of feedback as different as this.
    counts_silence: bool  # Whether the log has answers without feedback, too.
    # The number of users that finds the plan's effect; None while no answer differs.
    needed_once: int | None  # In one look at the end.
    needed: int | None  # In looks at any time.

    @property
    def count(self) -> int:
        """The number of users."""
        return len(self.values)

    @property
    def difference(self) -> float:
        """B's accuracy minus A's."""
        return self.accuracy[1] - self.accuracy[0]

    @property
    def decided_at(self) -> int | None:
        """After how many users the interval first excluded 0; None if it never did."""
        decided = self.sequence.decided
        return int(decided.argmax()) + 1 if decided[-1] else None

    @property
    def winner(self) -> str | None:
        """The model that the sequential test found better."""
        if (at := self.decided_at) is None or self.drifts or self.unbalanced or self.lopsided:
            return None
        return "B" if self.sequence.estimate[at - 1] > 0 else "A"

    @property
    def interval(self) -> Interval | None:
        """The interval that is valid at any look, now; None as long as it is infinite."""
        return self.interval_after(self.count)

    def interval_after(self, count: int) -> Interval | None:
        """The same after so many users."""
        low, high = (float(end[count - 1]) for end in (self.sequence.low, self.sequence.high))
        return (max(low, -1.0), min(high, 1.0)) if math.isfinite(low) else None

    @property
    def still_shown(self) -> bool:
        """Whether the interval excludes 0 now, as it did when the test was decided."""
        now = self.interval
        return now is not None and (now[0] > 0 or now[1] < 0)

    @property
    def lead(self) -> Interval | None:
        """The smallest and the largest advantage of the better model; None without one.

        They are those of the interval now or, if it contains 0 again, when the test was decided.
        """
        if self.winner is None or self.decided_at is None:
            return None
        shown = self.interval if self.still_shown else self.interval_after(self.decided_at)
        if shown is None:
            return None
        smaller, larger = sorted(map(abs, shown))
        return smaller, larger

    @property
    def drifts(self) -> bool:
        """Whether two intervals are disjoint: the difference changed while users came."""
        return bool(self.sequence.low.max() > self.sequence.high.min())

    @property
    def unbalanced(self) -> bool:
        """Whether the split between A and B is an error in the set-up rather than chance."""
        return self.split_p < UNLIKELY

    @property
    def lopsided(self) -> bool:
        """Whether feedback on A and on B goes missing differently."""
        return self.feedback_p < UNLIKELY


def compare_arms(users: Users, plan: Plan) -> Trial:
    """Tests the difference between the models.

    Users who saw one model each are compared between the models; users who saw both, with
    themselves. The larger of the two groups counts, and the other is left out.

    Raises:
      UserError: Too few users saw A or B for any test.
    """
    judged = users.judged > 0
    both = judged.all(axis=1)
    one = judged.any(axis=1) & ~both
    is_paired = both.sum() > one.sum()
    kept = both if is_paired else one
    a, b = (users.shares[kept & judged[:, arm], arm] for arm in (0, 1))
    if min(len(a), len(b)) < 2:
        raise UserError(
            "expected at least 2 users of each model, found {} of A and {} of B", len(a), len(b)
        )
    if is_paired:
        values, split_p, begins = b - a, 1.0, True
    else:
        in_b = judged[kept, 1]
        outcomes = np.empty(len(in_b))
        outcomes[~in_b], outcomes[in_b] = a, b
        values, begins = effects(outcomes, in_b, plan.share_b), are_enough(outcomes, in_b)
        shown_a, shown_b = (users.shown > 0).T
        shown = int((shown_a ^ shown_b).sum())
        split_p = float(binomtest(int((~shown_a).sum()), shown, plan.share_b).pvalue)
    feedback, feedback_p = _feedback(users, is_paired)
    rounding = rounding_variance(*users.judged[both].T) if is_paired else 0.0
    test, once, p = _once(a, b, is_paired, rounding, plan.alpha)
    deviation = float(np.std(values, ddof=1))
    return Trial(
        plan=plan,
        paired=bool(is_paired),
        users=(len(a), len(b)),
        left_out=int((one if is_paired else both).sum()),
        answers=int(users.judged.sum()),
        models=users.models,
        accuracy=(float(a.mean()), float(b.mean())),
        values=values,
        sequence=confidence_sequence(values, plan.alpha, begins=begins),
        test=test,
        once=once,
        p=p,
        split_p=split_p,
        feedback=feedback,
        feedback_p=feedback_p,
        counts_silence=users.counts_silence,
        needed_once=_needed_once(a, b, is_paired, plan),
        needed=users_needed(deviation, plan.effect, plan.alpha, plan.power) if deviation else None,
    )


def _feedback(users: Users, is_paired: bool) -> tuple[tuple[float, float] | None, float]:
    """Each model's mean feedback over the users, and the p of equal feedback on both.

    Users who saw one model are compared by the rank test of Mann and Whitney 1947, users who saw
    both by the sign test: both hold however unequal users are.
    """
    shown = users.shown > 0
    compared = shown.all(axis=1) == is_paired
    given = users.judged / np.maximum(users.shown, 1) if users.counts_silence else users.judged
    a, b = (given[compared & shown[:, arm], arm] for arm in (0, 1))
    if not (len(a) and len(b)):  # A user who saw both models may give feedback on only one.
        return None, 1.0
    means = float(a.mean()), float(b.mean())
    if is_paired:
        more, differ = int((b > a).sum()), int((b != a).sum())
        return means, float(binomtest(more, differ).pvalue) if differ else 1.0
    if a.min() == max(a.max(), b.max()) == b.min():
        return means, 1.0
    return means, float(mannwhitneyu(a, b, method="asymptotic").pvalue)


def _once(
    a: np.ndarray, b: np.ndarray, is_paired: bool, rounding: float, alpha: float
) -> tuple[str, Interval, float]:
    """The one-look test: its name, interval and p. `rounding` counts only for pairs."""
    is_binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    if is_paired and is_binary:
        only_a, only_b = int((a > b).sum()), int((b > a).sum())
        interval = classical.paired_interval(only_a, only_b, len(a), alpha)
        return N_("McNemar's exact test"), interval, mcnemar(only_a, only_b)[0]
    if is_paired:
        return (N_("paired t-test"), *classical.paired_means(b - a, rounding, alpha))
    if is_binary:
        counts = float(a.sum()), len(a), float(b.sum()), len(b)
        return (
            N_("two-proportion z-test"),
            classical.newcombe(*counts, alpha),
            classical.z_test(*counts),
        )
    return (N_("Welch's t-test"), *classical.welch(a, b, alpha))


def _needed_once(a: np.ndarray, b: np.ndarray, is_paired: bool, plan: Plan) -> int | None:
    """The number of users that finds the plan's effect in one look; None if no answer differs.

    It assumes that answers vary as they did so far.
    """
    if is_paired:
        variance = float(np.var(b - a))
    else:
        variance = float(np.var(a) / (1 - plan.share_b) + np.var(b) / plan.share_b)
    if not variance:
        return None
    return classical.sample_size(plan.effect, plan.alpha, plan.power, variance, variance)
