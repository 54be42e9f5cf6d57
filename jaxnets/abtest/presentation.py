"""The results of an experiment as a text, as JSON and as a picture; its conclusions and limits."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.abtest.sequential import MIN_USERS, moments
from jaxnets.abtest.texts import Sentence, layout, level_text, p_text, sentences
from jaxnets.abtest.trial import Trial
from jaxnets.base.display import printable
from jaxnets.base.language import _, speaking
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

SENTENCES = "trial_sentences.txt"


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
            in_words = self._sentences()
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
            **in_words,
        }

    def text(self) -> str:
        """The table, and what follows from it."""
        trial = self.trial
        arms = []
        for arm, users, accuracy in zip("AB", trial.users, trial.accuracy, strict=True):
            models = ", ".join(map(printable, trial.models[arm]))
            arms.append([f"{arm}  {models[:50]}".strip(), f"{users:,}", f"{accuracy:.4f}"])
        return layout(
            "trial.txt",
            trial=trial,
            name=self.name,
            arms=arms,
            sequential_p=p_text(float(trial.sequence.p[-1])) if trial.interval else "-",
            **self._sentences(),
        )

    def _sentences(self) -> dict[str, list[str]]:
        """The conclusions and their limits, in the language of `speaking`."""
        return {
            "conclusions": sentences(SENTENCES, conclusions(self.trial), self.trial),
            "limits": sentences(SENTENCES, limits(self.trial), self.trial),
        }


def conclusions(trial: Trial) -> list[Sentence]:
    """The conclusions that the experiment allows."""
    if trial.unbalanced:
        return [Sentence("unbalanced")]
    if trial.lopsided:
        return [Sentence("lopsided")]
    if trial.interval is None:
        return [_unknown(trial)]
    if trial.drifts:
        return [Sentence("drifts")]
    if trial.winner:
        return [Sentence("better" if trial.still_shown else "better_at_first")]
    low, high = trial.interval
    if max(-low, high) < trial.plan.effect:
        return [Sentence("about_equal")]
    is_planned = trial.needed is not None and trial.needed_once is not None
    return [Sentence("undecided"), *([Sentence("needed")] if is_planned else [])]


def _unknown(trial: Trial) -> Sentence:
    """The reason why there is no interval yet."""
    if trial.count < MIN_USERS:
        return Sentence("too_few_users")
    return Sentence("always_equal" if trial.paired else "too_few_answers")


def limits(trial: Trial) -> list[Sentence]:
    """The limits of the conclusions."""
    found = [
        Sentence("one_look"),
        Sentence("too_large" if trial.winner else "not_equal"),
        Sentence("silent_users"),
        Sentence("other_users"),
    ]
    if trial.answers > sum(trial.users):
        found.append(Sentence("answers_alike"))
    if trial.left_out:
        found.append(Sentence("left_out"))
    mixed = [arm for arm, names in trial.models.items() if len(names) > 1]
    return [*found, *(Sentence("mixed", {"arm": arm}) for arm in mixed)]


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
