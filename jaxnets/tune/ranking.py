"""Settings ranked by their seeds' accuracies: means, deviations, and whether a lead is luck."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from jaxnets.display import four_digits, table
from jaxnets.drawing.charts import Row, dots
from jaxnets.drawing.svg import Figure
from jaxnets.tune.results import finite
from jaxnets.tune.search import Search

SIGNIFICANCE = 0.05  # The chance of a false alarm that "significant" allows.


@dataclasses.dataclass(frozen=True)
class Rank:
    """A point's place: means over the seeds, and how likely its distance to the winner is luck."""

    name: str
    accuracy: float
    deviation: float  # The accuracies' standard deviation; NaN for one seed.
    loss: float
    lead: float  # The winner's lead: the mean of the differences, seed by seed.
    margin: float  # Half of the 95 % interval of this lead alone; NaN for one seed.
    # The chance of such a difference or a larger one if there were none: paired t-test, Holm's
    # correction for the number of points. NaN for the winner, or with one seed.
    p: float


def ranking(search: Search) -> list[Rank]:
    """The points from the best mean accuracy down; the first given wins ties.

    Source: paired t-test, Student 1908; correction, Holm 1979.
    """
    seeds = search.seeds
    runs = {point: [search.runs[point, seed] for seed in seeds] for point in search.points}
    scores = {point: [run.accuracy for run in runs[point]] for point in runs}
    order = sorted(runs, key=lambda point: -statistics.mean(scores[point]))
    differences = [
        [a - b for a, b in zip(scores[order[0]], scores[point], strict=True)] for point in order
    ]
    chances = [math.nan, *holm([paired_p(parts) for parts in differences[1:]])]
    return [
        Rank(
            name=search.name(point),
            accuracy=statistics.mean(scores[point]),
            deviation=statistics.stdev(scores[point]) if len(seeds) > 1 else math.nan,
            loss=statistics.mean(run.loss for run in runs[point]),
            lead=statistics.mean(parts),
            margin=paired_margin(parts),
            p=p,
        )
        for point, parts, p in zip(order, differences, chances, strict=True)
    ]


def paired_p(differences: Sequence[float]) -> float:
    """The two-sided p of Student's t-test that the mean difference is 0; NaN for one difference."""
    if len(differences) < 2:
        return math.nan
    if statistics.stdev(differences) == 0:
        return 0.0 if differences[0] else 1.0
    test: Any = stats.ttest_1samp(differences, 0)
    return float(test.pvalue)


def paired_margin(differences: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean difference; NaN for one difference."""
    count = len(differences)
    if count < 2:
        return math.nan
    quantile = float(stats.t.ppf(1 - SIGNIFICANCE / 2, count - 1))
    return quantile * statistics.stdev(differences) / math.sqrt(count)


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of n is multiplied by n - i, and never falls."""
    order = np.argsort(chances)
    scaled = np.sort(chances) * np.arange(len(chances), 0, -1)
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected.tolist()


def verdict(ranks: Sequence[Rank], seeds: int) -> str:
    """Whether the winner's lead is significant, in a sentence.

    A lead that is not significant shows no equality either, so its interval stands beside it.
    """
    best = ranks[0]
    if len(ranks) == 1:
        return f"Only {best.name} was tried."
    if seeds < 2:
        return f"{best.name} is ahead, but one seed cannot tell a lead from luck: --seeds=10 can."
    tied = [rank for rank in ranks[1:] if not rank.p < SIGNIFICANCE]
    other = tied[0] if tied else ranks[1]
    lead = (
        f"{best.name} leads {other.name} by {other.lead:.4f} in accuracy (95 % interval "
        f"{other.lead - other.margin:+.4f} to {other.lead + other.margin:+.4f}): "
        f"{'not significant' if tied else 'significant'} (p = {other.p:.2g}, paired t-test over "
        f"{seeds} seeds, Holm's correction)."
    )
    names = ", ".join(rank.name for rank in tied)
    return f"{lead} Not shown to differ from the winner: {names}." if tied else lead


def to_text(search: Search) -> str:
    """The table of means and deviations, and the verdict."""
    ranks = ranking(search)
    rows = [["", "validation accuracy", "    loss", "winner's lead", "     p"]]
    for rank in ranks:
        row = [rank.name, f"{rank.accuracy:.4f} ± {rank.deviation:7.4f}", four_digits(rank.loss)]
        if rank is not ranks[0]:
            row += [f"{rank.lead:.4f}", f"{rank.p:.2g}"]
        rows.append([cell.replace("nan", "  -") for cell in row])
    return "\n".join([*table(rows, "<>>>>"), "", verdict(ranks, len(search.seeds))])


def to_values(search: Search) -> dict[str, Any]:
    """The same for machines."""
    ranks, seeds = ranking(search), len(search.seeds)
    values = {
        "flags": search.plain_flags,
        "over": search.over,
        "seeds": seeds,
        "ranking": [dataclasses.asdict(rank) for rank in ranks],
        "significant": len(ranks) > 1 and all(rank.p < SIGNIFICANCE for rank in ranks[1:]),
        "verdict": verdict(ranks, seeds),
        "config": dataclasses.asdict(search.config(search.points[0], 0)),
    }
    return finite(values)


def plot(search: Search) -> Figure:
    """Draws every seed's accuracy, mean and standard deviation."""
    rows = []
    for point in search.points:
        scores = [search.runs[point, seed].accuracy for seed in search.seeds]
        mean = statistics.mean(scores)
        deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
        rows.append(Row(search.name(point), [scores, mean], deviation, f"{mean:.4f}"))
    title = f"{search.plain_flags['model']}: validation accuracy"
    alt = "; ".join(f"{row.name} {row.note} ± {row.spread:.4f}" for row in rows)
    labels = ["a seed", "mean ± standard deviation"]
    return dots("search", title, alt, rows, labels, x_label="validation accuracy", width=640)
