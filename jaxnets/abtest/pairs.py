"""Two runs on the same labelled pictures: a table of four counts, and McNemar's test."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.abtest import classical
from jaxnets.abtest.presentation import (
    NOT_EQUAL,
    OTHER,
    interval_text,
    level_text,
    p_text,
    points,
)
from jaxnets.abtest.trial import Plan
from jaxnets.base.display import printable, table
from jaxnets.base.errors import UserError
from jaxnets.base.language import _, speaking
from jaxnets.base.proportions import Interval, mcnemar
from jaxnets.config.command import CommandResult
from jaxnets.data.datasets import Dataset
from jaxnets.predict.predict import to_predictor
from jaxnets.predict.run_data import data_named
from jaxnets.predict.trained import TrainedNetwork, load_network


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The numbers of pictures that both models, only one, or neither classified right."""

    names: tuple[str, str]  # The run folders.
    dataset: str
    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(
        cls, names: tuple[str, str], dataset: str, right_a: np.ndarray, right_b: np.ndarray
    ) -> "Pairs":
        """Counts the pictures, [N] bool each."""
        counts = (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)
        return cls(names, dataset, *(int(count.sum()) for count in counts))

    @property
    def total(self) -> int:
        """The number of pictures."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def right(self) -> tuple[int, int]:
        """The numbers of pictures that A and B classify right."""
        return self.both + self.only_a, self.both + self.only_b

    @property
    def difference(self) -> float:
        """B's accuracy minus A's."""
        return (self.only_b - self.only_a) / self.total

    @property
    def p(self) -> tuple[float, float]:
        """McNemar's two-sided p: exact, and the mid-p."""
        return mcnemar(self.only_a, self.only_b)

    def interval(self, plan: Plan) -> Interval:
        """The interval of the difference."""
        return classical.paired_interval(self.only_a, self.only_b, self.total, plan.alpha)

    def needed(self, plan: Plan) -> int | None:
        """The number of pictures that finds the plan's effect.

        It assumes that the models disagree as often as here. None if they never disagree.
        """
        if not (disagreements := (self.only_a + self.only_b) / self.total):
            return None
        disagreements = max(disagreements, plan.effect)
        variance = disagreements - plan.effect**2
        return classical.sample_size(plan.effect, plan.alpha, plan.power, variance, disagreements)


def compare_runs(run_a: str, run_b: str, dataset: str | None = None) -> Pairs:
    """Counts the test pictures on which both networks, only one, or neither is right.

    Args:
      run_a: The folder of a finished or an interrupted run.
      run_b: The folder of the other run.
      dataset: The name or the folder of a data set, as in `load_dataset`; None for the runs' own.

    Raises:
      UserError: A folder holds no run, the runs have different data sets, or a network does not fit
        the pictures or their classes.
    """
    names, right, sets = (run_a, run_b), [], []
    for name in names:
        network = load_network(name)
        data = data_named(name, network, dataset)
        sets.append(data)
        if sets[0].checksum != data.checksum:
            raise UserError(
                "expected runs of one data set, got {} and {}, whose test pictures "
                "differ; --dataset=NAME tests both on the same ones",
                sets[0].name,
                data.name,
            )
        right.append(_right(network, data))
    return Pairs.of(names, sets[0].name, *right)


def _right(network: TrainedNetwork, data: Dataset) -> np.ndarray:
    """Whether the network's most probable class is the picture's, [N] bool."""
    classes = to_predictor(network).probabilities(data.test.images).argmax(axis=1)
    return classes == data.test.labels


@dataclasses.dataclass(frozen=True)
class PairsResult(CommandResult):
    """What labelled pictures say about two models."""

    pairs: Pairs
    plan: Plan

    def values(self) -> dict[str, Any]:
        """The result for programs."""
        pairs, plan = self.pairs, self.plan
        (exact, mid), (low, high) = pairs.p, pairs.interval(plan)
        with speaking("en"):
            sentences = {"conclusions": _conclusions(pairs, plan), "limits": _limits(pairs, plan)}
        return {
            "runs": dict(zip("AB", pairs.names, strict=True)),
            "dataset": pairs.dataset,
            "pictures": pairs.total,
            "both_right": pairs.both,
            "only_a_right": pairs.only_a,
            "only_b_right": pairs.only_b,
            "neither_right": pairs.neither,
            "accuracy": {arm: n / pairs.total for arm, n in zip("AB", pairs.right, strict=True)},
            "difference": pairs.difference,
            "interval": {"level": 1 - plan.alpha, "low": low, "high": high},
            "mcnemar": {"p": exact, "mid_p": mid},
            "pictures_needed": {
                "effect": plan.effect,
                "alpha": plan.alpha,
                "power": plan.power,
                "count": pairs.needed(plan),
            },
            **sentences,
        }

    def text(self) -> str:
        """The tables, and what follows from them."""
        pairs, plan = self.pairs, self.plan
        exact, mid = pairs.p
        rows = [["", _("right"), _("accuracy")]]
        for arm, name, right in zip("AB", pairs.names, pairs.right, strict=True):
            rows.append([f"{arm}  {printable(name)}", f"{right:,}", f"{right / pairs.total:.4f}"])
        counts = [["", _("B right"), _("B wrong")]]
        counts += [[_("A right"), f"{pairs.both:,}", f"{pairs.only_a:,}"]]
        counts += [[_("A wrong"), f"{pairs.only_b:,}", f"{pairs.neither:,}"]]
        interval = _("{} interval", level_text(plan))
        name = printable(pairs.dataset)
        lines = [_("{} labelled test pictures of {}", f"{pairs.total:,}", name), ""]
        lines += [*table(rows, "<>>"), "", *table(counts, "<>>"), ""]
        lines += [
            f"B - A  {pairs.difference:+.4f}   {interval} {interval_text(pairs.interval(plan))}",
            _("McNemar's test: exact p {}, mid-p {}", p_text(exact), p_text(mid)),
            "",
            *_conclusions(pairs, plan),
            "",
            _("What you may not conclude:"),
        ]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in _limits(pairs, plan))])


def _conclusions(pairs: Pairs, plan: Plan) -> list[str]:
    """The conclusions that the counts allow, in sentences."""
    disagree, p = pairs.only_a + pairs.only_b, pairs.p[0]
    if not disagree:
        text = _("The models are right on the same pictures: there is no difference to test.")
        return [text]
    better = "B" if pairs.only_b > pairs.only_a else "A"
    most = max(pairs.only_a, pairs.only_b)
    if p < plan.alpha:
        text = _(
            "{0} is better than {1} on pictures like these: of the {2} on which one model alone is "
            "right, {0} has {3}. If both were equally good, such a lead or a larger one would come "
            "with a chance of {4}.",
            better,
            OTHER[better],
            f"{disagree:,}",
            f"{most:,}",
            p_text(p),
        )
        return [text]
    low, high = pairs.interval(plan)
    text = _(
        "No difference is shown: of the {} pictures on which only one model is right, {} has {}, "
        "as a fair coin may give. B may be worse by up to {}, or better by up to {}.",
        f"{disagree:,}",
        better,
        f"{most:,}",
        points(max(-low, 0)),
        points(max(high, 0)),
    )
    sentences = [text]
    if (needed := pairs.needed(plan)) is not None:
        more = max(needed - pairs.total, 0)
        text = _(
            "A true difference of {} would be found with a chance of {} % by {} pictures, {} more "
            "than here.",
            points(plan.effect),
            f"{100 * plan.power:g}",
            f"{needed:,}",
            f"{more:,}",
        )
        sentences.append(text)
    return sentences


def _limits(pairs: Pairs, plan: Plan) -> list[str]:
    """The limits of these conclusions, in sentences."""
    found = [
        _(
            "The p counts only if these pictures were not used before to choose a network, a "
            "setting or an epoch."
        ),
        _("Nothing is known about pictures unlike these, and your users' pictures may differ."),
        _(
            "One run of each is compared, not two recipes: another seed gives another network "
            "(jaxnets search compares recipes)."
        ),
    ]
    return found + ([_(NOT_EQUAL)] if pairs.p[0] >= plan.alpha else [])
