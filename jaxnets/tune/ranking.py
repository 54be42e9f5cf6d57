"""Ranks settings by their seeds' accuracies: means, deviations, and whether a lead is luck.

After a race (race.py) a p-value would be wrong, because the race has looked before; so e-values are
used.
"""

import dataclasses
import math
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.base.display import four_digits, short_path, table
from jaxnets.base.language import _, speaking
from jaxnets.base.proportions import paired_t_test, rounding_variance
from jaxnets.config.command import CommandResult
from jaxnets.drawing.charts import Caption, Marks, Scale, dots
from jaxnets.drawing.svg import Figure
from jaxnets.tune.race import SIGNIFICANCE, log_e, threshold
from jaxnets.tune.results import finite
from jaxnets.tune.search import Point, Search
from jaxnets.tune.train_many import TrainingSummary


@dataclasses.dataclass(frozen=True)
class Rank:
    """A point's rank: means over the seeds, and whether luck explains the winner's lead."""

    name: str
    accuracy: float
    deviation: float  # The accuracies' standard deviation; NaN for one seed.
    loss: float
    lead: float  # The winner's lead: the mean of the differences, seed by seed.
    margin: float  # Half of the 95 % interval of only this lead; NaN where p is NaN.
    # The probability of this difference or a larger one if there were none: paired t-test, Holm's
    # correction for the number of points. NaN for the winner, with one seed, and in a race.
    p: float
    seeds: int  # The number of seeds that it was trained with.
    e: float = math.nan  # In a race: the e-value of the winner, or of `beaten_by`, against it.
    beaten_by: str | None = None  # In a race: the point that this one lost to.


def ranking(search: Search) -> list[Rank]:
    """The points from the best mean accuracy down; the first given wins ties.

    The points that a race has dropped come last; among them, those with more seeds come first.

    Source: paired t-test, Student 1908; correction, Holm 1979.
    """
    drops, runs = search.drops, compared_runs(search)
    scores = {point: [run.accuracy for run in runs[point]] for point in runs}

    def place(point: Point) -> tuple[int, float]:
        return drops[point].seeds if point in drops else sys.maxsize, statistics.mean(scores[point])

    order = sorted(runs, key=place, reverse=True)
    differences = [
        [a - b for a, b in zip(scores[order[0]], scores[point], strict=False)] for point in order
    ]
    rounding = rounding_variance(search.num_images, search.num_images)
    tests = [paired_t_test(parts, rounding, SIGNIFICANCE) for parts in differences]
    if search.race_from is None:
        chances = [math.nan, *holm([p for _half, p in tests[1:]])]
        evidence = [math.nan] * len(order)
    else:
        chances = [math.nan] * len(order)
        evidence = [math.nan, *(math.exp(log_e(np.array(d))[-1]) for d in differences[1:])]
    return [
        Rank(
            name=search.name(point),
            accuracy=statistics.mean(scores[point]),
            deviation=statistics.stdev(scores[point]) if len(parts) > 1 else math.nan,
            loss=statistics.mean(run.loss for run in runs[point]),
            lead=statistics.mean(parts),
            margin=half if search.race_from is None else math.nan,
            p=p,
            seeds=len(parts),
            e=drops[point].e if point in drops else e,
            beaten_by=search.name(search.points[drops[point].by]) if point in drops else None,
        )
        for point, parts, (half, _), p, e in zip(
            order, differences, tests, chances, evidence, strict=True
        )
    ]


def compared_runs(search: Search) -> dict[Point, list[TrainingSummary]]:
    """Each point's runs by seed: those of all seeds, or those until the race dropped it."""
    seeds, drops = search.seeds, search.drops
    counts = {point: drops[point].seeds if point in drops else None for point in search.points}
    return {
        point: [search.runs[point, seed] for seed in seeds[:count]]
        for point, count in counts.items()
    }


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of n is multiplied by n - i, and never falls."""
    order = np.argsort(chances)
    scaled = np.sort(chances) * np.arange(len(chances), 0, -1)
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected.tolist()


def lead_text(ranks: Sequence[Rank], race: bool) -> str:
    """Whether the winner's lead is significant, or the state of the race, in a sentence.

    A lead that is not significant does not prove equality either, so the sentence gives its
    interval.
    """
    if race:
        return race_verdict(ranks)
    best, seeds = ranks[0], ranks[0].seeds
    if len(ranks) == 1:
        return _("Only {} was tried.", best.name)
    if seeds < 2:
        return _(
            "{} is ahead, but one seed cannot tell a lead from luck: --seeds=10 can.", best.name
        )
    tied = [rank for rank in ranks[1:] if not rank.p < SIGNIFICANCE]
    other = tied[0] if tied else ranks[1]
    sure = _("not significant") if tied else _("significant")
    lead = _(
        "{} leads {} by {} in accuracy (95 % interval {} to {}): {} (p = {}, paired t-test over {} "
        "seeds, Holm's correction).",
        best.name,
        other.name,
        f"{other.lead:.4f}",
        f"{other.lead - other.margin:+.4f}",
        f"{other.lead + other.margin:+.4f}",
        sure,
        f"{other.p:.2g}",
        seeds,
    )
    if not tied:
        return lead
    names = _(", ").join(rank.name for rank in tied)
    return lead + _(" Not shown to differ from the winner: {}.", names)


def race_verdict(ranks: Sequence[Rank]) -> str:
    """The points that remain in a race, and how certain that is."""
    best, left = ranks[0], [rank.name for rank in ranks if rank.beaten_by is None]
    runs = _("{} seeds and {} runs", best.seeds, sum(rank.seeds for rank in ranks))
    said = _("{} has won the race after {}.", best.name, runs)
    if len(left) > 1:
        names = _(", ").join(left)
        count = len(left), len(ranks)
        said = _("{} of {} are still in the race after {}: {}.", *count, runs, names)
    return said + _(
        " A setting is dropped once another has an e-value of {} against it; the truly best one is "
        "ever dropped with a chance of {} at most.",
        f"{threshold(len(ranks)):.3g}",
        f"{SIGNIFICANCE:g}",
    )


@dataclasses.dataclass(frozen=True)
class Ranking(CommandResult):
    """The settings of a search, ranked."""

    search: Search

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        ranks, race = ranking(self.search), self.search.race_from is not None
        beaten = [
            rank.beaten_by is not None if race else rank.p < SIGNIFICANCE for rank in ranks[1:]
        ]
        with speaking("en"):
            conclusion = lead_text(ranks, race)
        values = {
            "flags": self.search.plain_flags,
            "over": self.search.over,
            "seeds": ranks[0].seeds,
            "race": {"alpha": SIGNIFICANCE, "e": threshold(len(ranks))} if race else None,
            "ranking": [dataclasses.asdict(rank) for rank in ranks],
            "significant": len(ranks) > 1 and all(beaten),
            "verdict": conclusion,
            "config": dataclasses.asdict(self.search.config(self.search.points[0], 0)),
        }
        return finite(values)

    def text(self) -> str:
        """The table of means and deviations, the verdict, and the folder of the results."""
        ranks, race = ranking(self.search), self.search.race_from is not None
        end = ["     e", _("seeds"), _("beaten by")] if race else ["     p"]
        rows = [["", _("validation accuracy"), _("    loss"), _("winner's lead"), *end]]
        for rank in ranks:
            row = [
                rank.name,
                f"{rank.accuracy:.4f} ± {rank.deviation:7.4f}",
                four_digits(rank.loss),
            ]
            sure = f"{rank.e:.3g}" if race else f"{rank.p:.2g}"
            row += ["", ""] if rank is ranks[0] else [f"{rank.lead:.4f}", sure]
            row += [str(rank.seeds), rank.beaten_by or ""] if race else []
            rows.append([cell.replace("nan", "  -") for cell in row])
        where = _("results: {}", short_path(str(self.search.folder)))
        return "\n".join([*table(rows, "<>>>>><"), "", lead_text(ranks, race), "", where])


def plot(search: Search) -> Figure:
    """Draws every seed's accuracy, mean and standard deviation."""
    rows = []
    for point, runs in compared_runs(search).items():
        scores = [run.accuracy for run in runs]
        mean = statistics.mean(scores)
        deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
        note = f"{mean:.4f}" + f", {len(runs)} seeds" * (search.race_from is not None)
        rows.append(Marks(search.name(point), [scores, mean], deviation, note))
    title = f"{search.plain_flags['model']}: validation accuracy"
    alt = "; ".join(f"{row.name} {row.note} ± {row.spread:.4f}" for row in rows)
    labels = ["a seed", "mean ± standard deviation"]
    caption, scale = Caption("search", title, alt), Scale("validation accuracy")
    return dots(caption, rows, labels, x=scale, width=640)
