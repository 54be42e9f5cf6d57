"""Two runs on the same labelled pictures: a table of four counts, and McNemar's test."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.abtest import classical
from jaxnets.abtest.plan import Plan
from jaxnets.abtest.texts import Sentence, layout, sentences
from jaxnets.base.display import printable
from jaxnets.base.errors import UserError
from jaxnets.base.language import speaking
from jaxnets.base.proportions import Interval, mcnemar
from jaxnets.config.command import CommandResult
from jaxnets.data.datasets import Dataset
from jaxnets.predict.predict import to_predictor
from jaxnets.predict.run_data import data_named
from jaxnets.predict.trained import TrainedNetwork, load_network

SENTENCES = "pairs_sentences.txt"


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
    def disagreements(self) -> int:
        """The number of pictures that only one model classifies right."""
        return self.only_a + self.only_b

    @property
    def leader(self) -> str:
        """The model that is right on more of these; A if both are right on as many."""
        return "B" if self.only_b > self.only_a else "A"

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
        if not self.disagreements:
            return None
        disagreements = max(self.disagreements / self.total, plan.effect)
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
            in_words = self._sentences()
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
            **in_words,
        }

    def text(self) -> str:
        """The tables, and what follows from them."""
        pairs = self.pairs
        arms = [
            [f"{arm}  {printable(name)}", f"{right:,}", f"{right / pairs.total:.4f}"]
            for arm, name, right in zip("AB", pairs.names, pairs.right, strict=True)
        ]
        return layout("pairs.txt", pairs=pairs, plan=self.plan, arms=arms, **self._sentences())

    def _sentences(self) -> dict[str, list[str]]:
        """The conclusions and their limits, in the language of `speaking`."""
        return {
            "conclusions": sentences(SENTENCES, self._conclusions(), self.pairs, self.plan),
            "limits": sentences(SENTENCES, self._limits(), self.pairs, self.plan),
        }

    def _conclusions(self) -> list[Sentence]:
        """The conclusions that the counts allow."""
        pairs, plan = self.pairs, self.plan
        if not pairs.disagreements:
            return [Sentence("same_answers")]
        if pairs.p[0] < plan.alpha:
            return [Sentence("better")]
        is_planned = pairs.needed(plan) is not None
        return [Sentence("no_difference"), *([Sentence("needed")] if is_planned else [])]

    def _limits(self) -> list[Sentence]:
        """The limits of these conclusions."""
        found = [
            Sentence("unused_pictures"),
            Sentence("other_pictures"),
            Sentence("one_run_of_each"),
        ]
        return found + ([Sentence("not_equal")] if self.pairs.p[0] >= self.plan.alpha else [])
