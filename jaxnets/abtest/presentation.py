"""The results of an experiment: a table, conclusions and limits in sentences, JSON, a picture."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.abtest.sequential import EXPECTED, MIN_USERS, moments
from jaxnets.abtest.trial import Plan, Trial
from jaxnets.base.display import printable, table
from jaxnets.base.language import N_, _, speaking
from jaxnets.base.proportions import two_sided_z
from jaxnets.config.command import CommandResult
from jaxnets.drawing.charts import (
    MAX_POINTS,
    Band,
    Caption,
    Guides,
    Line,
    Scale,
    Series,
    curves,
)
from jaxnets.drawing.svg import Figure

OTHER = {"A": "B", "B": "A"}
NOT_EQUAL = N_("That no difference is shown does not mean that the models are equally good.")


@dataclasses.dataclass(frozen=True)
class TrialResult(CommandResult):
    """What the users of an experiment say."""

    trial: Trial
    name: str  # Of the log.

    def values(self) -> dict[str, Any]:
        """The result for programs; what is not known is None."""
        trial = self.trial
        low, high = trial.interval or (None, None)
        with speaking("en"):
            sentences = {"conclusions": conclusions(trial), "limits": limits(trial)}
        return {
            "plan": {
                "alpha": trial.plan.alpha,
                "effect": trial.plan.effect,
                "power": trial.plan.power,
                "share_b": trial.plan.share_b,
            },
            "paired": trial.paired,
            "users": dict(zip("AB", trial.users, strict=True)),
            "left_out": trial.left_out,
            "answers": trial.answers,
            "models": {arm: list(names) for arm, names in trial.models.items()},
            "accuracy": dict(zip("AB", trial.accuracy, strict=True)),
            "difference": trial.difference,
            "sequential": {
                "low": low,
                "high": high,
                "p": float(trial.sequence.p[-1]),
                "decided_at": trial.decided_at,
                "better": trial.winner,
                "begins_at": MIN_USERS,
                "users_needed": trial.needed,
            },
            "one_look": {
                "test": trial.test,
                "low": trial.once[0],
                "high": trial.once[1],
                "p": trial.p,
                "users_needed": trial.needed_once,
            },
            "split_p": trial.split_p,
            "unbalanced": trial.unbalanced,
            "feedback": trial.feedback and dict(zip("AB", trial.feedback, strict=True)),
            "feedback_p": trial.feedback_p,
            "lopsided": trial.lopsided,
            "drifts": trial.drifts,
            **sentences,
        }

    def text(self) -> str:
        """The table, and what follows from it."""
        trial = self.trial
        rows = [["", _("users"), _("accuracy")]]
        for arm, users, accuracy in zip("AB", trial.users, trial.accuracy, strict=True):
            models = ", ".join(map(printable, trial.models[arm]))
            rows.append([f"{arm}  {models[:50]}".strip(), f"{users:,}", f"{accuracy:.4f}"])
        tests = [[f"B - A  {trial.difference:+.4f}", _("{} interval", level_text(trial.plan)), "p"]]
        p = p_text(float(trial.sequence.p[-1])) if trial.interval else "-"
        tests.append([_("sequential test, at any look"), interval_text(trial.interval), p])
        once = _("{}, at one look", _(trial.test))
        tests.append([once, interval_text(trial.once), p_text(trial.p)])
        users, answers = f"{trial.count:,}", f"{trial.answers:,}"
        lines = [_("{}: {} users, {} answers", printable(self.name), users, answers), ""]
        lines += [*table(rows, "<>>"), "", *table(tests, "<<>"), ""]
        lines += [*conclusions(trial), "", _("What you may not conclude:")]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in limits(trial))])


def conclusions(trial: Trial) -> list[str]:
    """The conclusions that the experiment allows, in sentences."""
    if trial.unbalanced:
        share = 100 * trial.plan.share_b
        text = _(
            "Conclude nothing: {} users saw A and {} saw B. A split of {}/{} gives such numbers by "
            "chance with p = {}. Either the assignment is broken, or feedback on one model goes "
            "missing.",
            *(f"{users:,}" for users in trial.users),
            f"{100 - share:g}",
            f"{share:g}",
            p_text(trial.split_p),
        )
        return [text]
    if trial.lopsided:
        text = _(
            "Conclude nothing: {}. Equal habits give such a difference by chance with p = {}. "
            "If feedback goes missing at different rates, equal models differ.",
            _feedback(trial),
            p_text(trial.feedback_p),
        )
        return [text]
    if trial.interval is None:
        return [_unknown(trial)]
    if trial.drifts:
        text = _(
            "Conclude nothing: the difference changed while users came: the intervals of early "
            "and late users do not overlap. Find out what changed."
        )
        return [text]
    if trial.winner:
        return [_winner(trial)]
    low, high = trial.interval
    level, effect = level_text(trial.plan), trial.plan.effect
    if max(-low, high) < effect:
        text = _(
            "Neither model is better by {} or more ({}, valid at any look). If less does not "
            "matter to you, you may stop and keep either.",
            points(effect),
            level,
        )
        return [text]
    text = _(
        "No difference is shown yet. B may be worse by up to {}, or better by up to {} ({}, valid "
        "at any look). You may go on, and look as often as you like.",
        points(-low),
        points(high),
        level,
    )
    return [text, *_needed(trial)]


def _feedback(trial: Trial) -> str:
    """The amount of feedback that the users gave on each model, as a phrase."""
    a, b = trial.feedback or (0.0, 0.0)
    if trial.counts_silence:
        shares = f"{100 * a:.3g}", f"{100 * b:.3g}"
        return _("users gave feedback on {} % of A's answers and {} % of B's", *shares)
    return _("a user gave feedback {} times on A and {} times on B", f"{a:.3g}", f"{b:.3g}")


def _winner(trial: Trial) -> str:
    """Names the better model, and says by how much it is better."""
    better, at = trial.winner or "", trial.decided_at or trial.count
    now = trial.interval or trial.once
    still = now[0] > 0 or now[1] < 0
    smaller, larger = sorted(map(abs, now if still else trial.interval_after(at) or now))
    by = f"{round(100 * smaller, 2):g}", points(larger)
    values = better, OTHER[better], f"{at:,}", *by, level_text(trial.plan)
    if still:
        return _(
            "{0} is better than {1}, by {3} to {4} ({5}, valid at any look). The test was decided "
            "after {2} users. You may stop.",
            *values,
        )
    return _(
        "{0} is better than {1}, as the test decided after {2} users: then by {3} to {4} ({5}, "
        "valid at any look). Later users showed a smaller difference. The interval contains 0 "
        "again, so the difference may be small. You may stop.",
        *values,
    )


def _unknown(trial: Trial) -> str:
    """The reason why there is no interval yet."""
    if trial.count < MIN_USERS:
        return _(
            "Nothing may be concluded yet: the sequential test begins at {} users, and there are "
            "{}.",
            MIN_USERS,
            trial.count,
        )
    if trial.paired:
        return _("Nothing may be concluded: for every user both models were right equally often.")
    return _(
        "Nothing may be concluded yet: the sequential test begins when each model would have {} "
        "right and {} wrong answers if both were equally good.",
        EXPECTED,
        EXPECTED,
    )


def _needed(trial: Trial) -> list[str]:
    """The number of users that the plan still needs, in a sentence."""
    plan = trial.plan
    if trial.needed is None or trial.needed_once is None:
        return []
    more = max(trial.needed - trial.count, 0)
    text = _(
        "A true difference of {} would be found with a chance of at least {} % by {} users in all, "
        "{} more than now. One look at the end, and none before, would need {} in all.",
        points(plan.effect),
        f"{100 * plan.power:g}",
        *(f"{count:,}" for count in (trial.needed, more, trial.needed_once)),
    )
    return [text]


def limits(trial: Trial) -> list[str]:
    """The limits of the conclusions, in sentences."""
    once = _(
        "The p of one look ({}) counts only if you chose {} users before the start, and did not "
        "look before. Else use the sequential line.",
        p_text(trial.p),
        f"{trial.count:,}",
    )
    difference = _(NOT_EQUAL)
    if trial.winner:
        difference = _(
            "The difference at the moment of stopping is too large on average. Report the "
            "interval, not the one number."
        )
    found = [
        once,
        difference,
        _(
            "Nothing is known about users who gave no feedback. If right answers of one model are "
            "reported more often than those of the other, equal models differ."
        ),
        _(
            "Nothing is known about other users, other pictures or another time than those of the "
            "log, and nothing about why one model is better."
        ),
    ]
    if trial.answers > sum(trial.users):
        text = _(
            "The {0} answers are not {0} trials: those of one user are alike. Each user counts "
            "once, with the share of right answers.",
            f"{trial.answers:,}",
        )
        found.append(text)
    if trial.left_out:
        text = N_("{} users who saw both models are left out.")
        if trial.paired:
            text = N_("{} users who saw only one model are left out.")
        found.append(_(text, f"{trial.left_out:,}"))
    for arm, names in trial.models.items():
        if len(names) > 1:
            text = _("{} was {} models or versions: its accuracy is their mix.", arm, len(names))
            found.append(text)
    return found


def points(difference: float) -> str:
    """A difference in accuracy, in percentage points.

    >>> points(0.0123), points(0.02)
    ('1.23 percentage points', '2 percentage points')
    """
    return _("{} percentage points", f"{round(100 * difference, 2):g}")


def level_text(plan: Plan) -> str:
    """The level of a plan's intervals.

    >>> level_text(Plan(alpha=0.05))
    '95 %'
    """
    return f"{100 * (1 - plan.alpha):g} %"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval of differences.

    >>> interval_text((-0.01, 0.02))
    '-0.0100 to +0.0200'
    """
    if interval is None:
        return _("not yet")
    return _("{} to {}", f"{interval[0]:+.4f}", f"{interval[1]:+.4f}")


def p_text(p: float) -> str:
    """A p value in two digits.

    >>> p_text(0.0321), p_text(0.0)
    ('0.032', '< 1e-300')
    """
    return f"{p:.2g}" if p >= 1e-300 else "< 1e-300"


def plot(trial: Trial) -> Figure:
    """Draws the difference with both intervals over the number of users."""
    start = min(MIN_USERS, trial.count) - 1
    count = min(MAX_POINTS, trial.count - start)
    at = np.linspace(start, trial.count - 1, count).round().astype(int)
    users, level = (at + 1).tolist(), level_text(trial.plan)
    low, estimate, high = (
        100 * x[at] for x in (trial.sequence.low, trial.sequence.estimate, trial.sequence.high)
    )
    errors = np.sqrt(moments(trial.values)[1][at] / users)
    half = 100 * two_sided_z(trial.plan.alpha) * errors
    decided = trial.decided_at
    alt = _(
        "After {} users the difference is {}; its interval, valid at all looks, is {} to {}.",
        f"{trial.count:,}",
        *(f"{value:.2f}" for value in (estimate[-1], low[-1], high[-1])),
    )
    guides = Guides(
        Band(_("{} at all looks together", level), users, low.tolist(), high.tolist()),
        Line(_("no difference"), 0.0),
        [Line(_("decided after {} users", f"{decided:,}"), decided)] if decided else [],
    )
    return curves(
        Caption("abtest", _("B - A in percentage points of accuracy"), alt),
        [
            Series(_("difference B - A"), users, estimate.tolist(), 0),
            Series(_("{} at one look", level), users, (estimate - half).tolist(), 1),
            Series("", users, (estimate + half).tolist(), 1),
        ],
        x=Scale(_("users")),
        guides=guides,
    )
