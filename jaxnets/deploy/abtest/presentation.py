"""The results of an experiment: a table, conclusions and limits in sentences, JSON, a picture."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.deploy.abtest.sequential import EXPECTED, MIN_USERS
from jaxnets.deploy.abtest.trial import Trial
from jaxnets.display import printable, table
from jaxnets.drawing.charts import MAX_POINTS, Band, Line, Series, curves
from jaxnets.drawing.svg import Figure
from jaxnets.proportions import two_sided_z

OTHER = {"A": "B", "B": "A"}


def to_text(trial: Trial, name: str) -> str:
    """The table, and what follows from it; the name is the log's."""
    kind = f"{trial.answers:,} answers"
    rows = [["", "users", "accuracy"]]
    for arm, users, accuracy in zip("AB", trial.users, trial.accuracy, strict=True):
        models = ", ".join(map(printable, trial.models[arm]))
        rows.append([f"{arm}  {models[:50]}".strip(), f"{users:,}", f"{accuracy:.4f}"])
    level = f"{100 * (1 - trial.plan.alpha):g} % interval"
    tests = [[f"B - A  {trial.difference:+.4f}", level, "p"]]
    p = p_text(float(trial.sequence.p[-1])) if trial.interval else "-"
    tests.append(["sequential test, at any look", interval_text(trial.interval), p])
    tests.append([f"{trial.test}, at one look", interval_text(trial.once), p_text(trial.p)])
    lines = [f"{printable(name)}: {trial.count:,} users, {kind}", ""]
    lines += [*table(rows, "<>>"), "", *table(tests, "<<>"), ""]
    lines += [*conclusions(trial), "", "What you may not conclude:"]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in limits(trial))])


def to_values(trial: Trial) -> dict[str, Any]:
    """The result for machines; what is not known is None."""
    low, high = trial.interval or (None, None)
    return {
        "plan": dataclasses.asdict(trial.plan),
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
        "conclusions": conclusions(trial),
        "limits": limits(trial),
    }


def conclusions(trial: Trial) -> list[str]:
    """The conclusions that the experiment allows, in sentences."""
    if trial.unbalanced:
        a, b = trial.users
        share = 100 * trial.plan.share_b
        return [
            f"Conclude nothing: {a:,} users saw A and {b:,} saw B. A split of {100 - share:g}/"
            f"{share:g} gives such numbers by chance with p = {p_text(trial.split_p)}. Either the "
            "assignment is broken, or feedback on one model goes missing."
        ]
    if trial.lopsided:
        return [
            f"Conclude nothing: {_feedback(trial)}. Equal habits give such a difference by chance "
            f"with p = {p_text(trial.feedback_p)}. Feedback that goes missing differently makes "
            "equal models differ."
        ]
    if trial.interval is None:
        return [_unknown(trial)]
    if trial.drifts:
        return [
            "Conclude nothing: the difference changed while users came, as the intervals of early "
            "and late users contradict each other. Look for what changed."
        ]
    low, high = trial.interval
    level, effect = f"{100 * (1 - trial.plan.alpha):g} %", trial.plan.effect
    if trial.winner:
        return [_winner(trial, level)]
    if max(-low, high) < effect:
        return [
            f"Neither model is better by {points(effect)} or more ({level}, valid at any look). "
            "If less does not matter to you, you may stop and keep either."
        ]
    return [
        f"No difference is shown yet. B may be worse by up to {points(-low)}, or better by up to "
        f"{points(high)} ({level}, valid at any look). You may go on, and look as often "
        "as you like.",
        *_needed(trial),
    ]


def _feedback(trial: Trial) -> str:
    """The amount of feedback that the users gave on each model, as a phrase."""
    a, b = trial.feedback or (0.0, 0.0)
    if trial.counts_silence:
        return f"users gave feedback on {100 * a:.3g} % of A's answers and {100 * b:.3g} % of B's"
    return f"a user gave feedback {a:.3g} times on A and {b:.3g} times on B"


def _winner(trial: Trial, level: str) -> str:
    """Names the better model, and says by how much it is better."""
    better, at = trial.winner or "", trial.decided_at or trial.count
    now = trial.interval or trial.once
    still = now[0] > 0 or now[1] < 0
    smaller, larger = sorted(map(abs, now if still else trial.interval_after(at) or now))
    by = f"by {round(100 * smaller, 2):g} to {points(larger)} ({level}, valid at any look)"
    text = f"{better} is better than {OTHER[better]}"
    if still:
        return f"{text}, {by}. The test was decided after {at:,} users. You may stop."
    return (
        f"{text}, as the test decided after {at:,} users: then {by}. The users since then showed "
        "less. The interval has 0 in it again, so the difference may be small. You may stop."
    )


def _unknown(trial: Trial) -> str:
    """The reason why there is no interval yet."""
    if trial.count < MIN_USERS:
        return (
            f"Nothing may be concluded yet: the sequential test begins at {MIN_USERS} users, and "
            f"there are {trial.count}."
        )
    if trial.paired:
        return "Nothing may be concluded: for every user both models were right equally often."
    return (
        "Nothing may be concluded yet: the sequential test begins when each model, were both "
        f"equally good, would have {EXPECTED} right and {EXPECTED} wrong answers."
    )


def _needed(trial: Trial) -> list[str]:
    """The number of users that the plan still needs, in a sentence."""
    plan = trial.plan
    if trial.needed is None or trial.needed_once is None:
        return []
    more = max(trial.needed - trial.count, 0)
    return [
        f"A true difference of {points(plan.effect)} would be found with a chance of at least "
        f"{100 * plan.power:g} % by {trial.needed:,} users in all, {more:,} more than now. One "
        f"look at the end, and none before, would need {trial.needed_once:,} in all."
    ]


def limits(trial: Trial) -> list[str]:
    """The limits of the conclusions, in sentences."""
    found = [
        f"The p of one look ({p_text(trial.p)}) counts only if you chose {trial.count:,} users "
        "before the start, and did not look before. Else use the sequential line."
    ]
    if trial.winner:
        found.append(
            "The difference at the moment of stopping is too large on average. Report the "
            "interval, not the one number."
        )
    else:
        found.append("That no difference is shown does not mean that the models are equally good.")
    found.append(
        "Nothing is known about users who gave no feedback. If right answers of one model are "
        "reported more often than those of the other, equal models differ."
    )
    found.append(
        "Nothing is known about other users, other pictures or another time than those of the log, "
        "and nothing about why one model is better."
    )
    if trial.answers > sum(trial.users):
        found.append(
            f"The {trial.answers:,} answers are no {trial.answers:,} trials: those of one user are "
            "alike. Each user counts once, with the share of right answers."
        )
    if trial.left_out:
        saw = "one model alone" if trial.paired else "both models"
        found.append(f"Nothing follows from {trial.left_out:,} users who saw {saw}: left out.")
    for arm, names in trial.models.items():
        if len(names) > 1:
            found.append(f"{arm} was {len(names)} models or versions: its accuracy is their mix.")
    return found


def points(difference: float) -> str:
    """A difference in accuracy, in percentage points.

    >>> points(0.0123), points(0.02)
    ('1.23 percentage points', '2 percentage points')
    """
    return f"{round(100 * difference, 2):g} percentage points"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval of differences.

    >>> interval_text((-0.01, 0.02))
    '-0.0100 to +0.0200'
    """
    return f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "not yet"


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
    users, level = (at + 1).tolist(), 100 * (1 - trial.plan.alpha)
    low, estimate, high = (
        100 * x[at] for x in (trial.sequence.low, trial.sequence.estimate, trial.sequence.high)
    )
    half = 100 * two_sided_z(trial.plan.alpha) * _errors(trial.values)[at]
    decided = trial.decided_at
    return curves(
        "abtest",
        "B - A in percentage points of accuracy",
        f"After {trial.count:,} users the difference is {estimate[-1]:.2f}, its interval that "
        f"holds at all looks {low[-1]:.2f} to {high[-1]:.2f}.",
        [
            Series("difference B - A", users, estimate.tolist(), 0),
            Series(f"{level:g} % at one look", users, (estimate - half).tolist(), 1),
            Series("", users, (estimate + half).tolist(), 1),
        ],
        x_label="users",
        band=Band(f"{level:g} % at all looks together", users, low.tolist(), high.tolist()),
        level=Line("no difference", 0.0),
        marks=[Line(f"decided after {decided:,} users", decided)] if decided is not None else [],
    )


def _errors(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean after each value, [N]."""
    t = np.arange(1, len(values) + 1)
    centered = values - values[0]
    squares = np.cumsum(centered**2) - t * (np.cumsum(centered) / t) ** 2
    return np.sqrt(np.maximum(squares, 0) / np.maximum(t - 1, 1) / t)
