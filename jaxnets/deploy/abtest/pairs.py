"""Two models on the same labelled pictures: a table of four counts, and McNemar's test."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.deploy.abtest import classical
from jaxnets.deploy.abtest.presentation import OTHER, interval_text, p_text, points
from jaxnets.deploy.abtest.trial import Plan
from jaxnets.display import printable, table


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The numbers of pictures that both models, one alone, or neither classified right."""

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

    def needed(self, plan: Plan) -> int | None:
        """The number of pictures that finds the plan's effect.

        It assumes that the models disagree as often as here. None if they never disagree.
        """
        if not (disagreements := (self.only_a + self.only_b) / self.total):
            return None
        disagreements = max(disagreements, plan.effect)
        variance = disagreements - plan.effect**2
        return classical.sample_size(plan.effect, plan.alpha, plan.power, variance, disagreements)


def to_values(pairs: Pairs, plan: Plan) -> dict[str, Any]:
    """The result for machines."""
    exact, mid = classical.mcnemar(pairs.only_a, pairs.only_b)
    low, high = classical.paired_interval(pairs.only_a, pairs.only_b, pairs.total, plan.alpha)
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
        "conclusions": _conclusions(pairs, plan, exact, (low, high)),
        "limits": _limits(pairs, plan, exact),
    }


def to_text(pairs: Pairs, plan: Plan) -> str:
    """The tables, and what follows from them."""
    exact, mid = classical.mcnemar(pairs.only_a, pairs.only_b)
    interval = classical.paired_interval(pairs.only_a, pairs.only_b, pairs.total, plan.alpha)
    rows = [["", "right", "accuracy"]]
    for arm, name, right in zip("AB", pairs.names, pairs.right, strict=True):
        rows.append([f"{arm}  {printable(name)}", f"{right:,}", f"{right / pairs.total:.4f}"])
    counts = [["", "B right", "B wrong"]]
    counts += [["A right", f"{pairs.both:,}", f"{pairs.only_a:,}"]]
    counts += [["A wrong", f"{pairs.only_b:,}", f"{pairs.neither:,}"]]
    lines = [f"{pairs.total:,} labelled test pictures of {printable(pairs.dataset)}", ""]
    lines += [*table(rows, "<>>"), "", *table(counts, "<>>"), ""]
    lines += [
        f"B - A  {pairs.difference:+.4f}   {100 * (1 - plan.alpha):g} % interval "
        f"{interval_text(interval)}",
        f"McNemar's test: exact p {p_text(exact)}, mid-p {p_text(mid)}",
        "",
        *_conclusions(pairs, plan, exact, interval),
        "",
        "What you may not conclude:",
    ]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in _limits(pairs, plan, exact))])


def _conclusions(pairs: Pairs, plan: Plan, p: float, interval: classical.Interval) -> list[str]:
    """The conclusions that the counts allow, in sentences."""
    disagree = pairs.only_a + pairs.only_b
    if not disagree:
        return ["The models are right on the same pictures: there is no difference to test."]
    better = "B" if pairs.only_b > pairs.only_a else "A"
    most = max(pairs.only_a, pairs.only_b)
    if p < plan.alpha:
        return [
            f"{better} is better than {OTHER[better]} on pictures like these: of the {disagree:,} "
            f"on which one model alone is right, {better} has {most:,}. If both were equally "
            f"good, such a lead or a larger one would come with a chance of {p_text(p)}."
        ]
    low, high = interval
    sentences = [
        f"No difference is shown: of the {disagree:,} pictures on which one model alone is right, "
        f"{better} has {most:,}, as a fair coin may give. B may be worse by up to "
        f"{points(max(-low, 0))}, or better by up to {points(max(high, 0))}."
    ]
    if (needed := pairs.needed(plan)) is not None:
        more = max(needed - pairs.total, 0)
        sentences.append(
            f"A true difference of {points(plan.effect)} would be found with a chance of "
            f"{100 * plan.power:g} % by {needed:,} pictures, {more:,} more than here."
        )
    return sentences


def _limits(pairs: Pairs, plan: Plan, p: float) -> list[str]:
    """The limits of these conclusions, in sentences."""
    found = [
        "The p counts only if these pictures chose nothing before: no network, no setting, no "
        "epoch.",
        "Nothing is known about other pictures than those like these: your users' may differ.",
        "One run of each is compared, not two recipes: another seed gives another network (jaxnets "
        "search compares recipes).",
    ]
    if p >= plan.alpha:
        found.append("That no difference is shown does not mean that the models are equally good.")
    return found
