"""Settings ranked by their seeds' accuracies: means, deviations, and whether a lead is luck."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

from jaxnets.config.fields import to_json
from jaxnets.lecture.search import PLOT, Search, finite
from jaxnets.table import table

# The chance of a false alarm that "significant" allows.
SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Rank:
    """A point's place.

    Attributes:
      name: As "hidden=200".
      accuracy: Mean over the seeds.
      deviation: Standard deviation over the seeds; NaN for one.
      loss: Mean over the seeds.
      lead: How far the winner is ahead: mean of the differences, seed by seed.
      p: Chance of such a difference or a larger one if there were none: paired t-test, Holm's
        correction for the number of points. NaN for the winner, or with one seed.
    """

    name: str
    accuracy: float
    deviation: float
    loss: float
    lead: float
    p: float


def ranking(search: Search) -> list[Rank]:
    """The points from the best mean accuracy down; the first given wins ties.

    Source: paired t-test, Student 1908; correction, Holm 1979.
    """
    points = [point for point in search.points if search.scores(point)]
    points.sort(key=lambda point: -statistics.mean(search.scores(point).values()))
    best = search.scores(points[0])
    leads, chances = [0.0], []
    for point in points[1:]:
        scores = search.scores(point)
        differences = [best[seed] - scores[seed] for seed in best if seed in scores]
        leads.append(statistics.mean(differences))
        chances.append(paired_p(differences))
    chances = [math.nan, *holm(chances)]
    ranks = []
    for point, lead, p in zip(points, leads, chances, strict=True):
        scores = list(search.scores(point).values())
        losses = [run.loss for (at, _), run in search.runs.items() if at == point]
        deviation = statistics.stdev(scores) if len(scores) > 1 else math.nan
        name, mean = search.name(point), statistics.mean(scores)
        ranks.append(Rank(name, mean, deviation, statistics.mean(losses), lead, p))
    return ranks


def paired_p(differences: Sequence[float]) -> float:
    """The two-sided p of Student's t-test that the mean difference is 0; NaN for one difference."""
    if len(differences) < 2:
        return math.nan
    if statistics.stdev(differences) == 0:
        return 0.0 if differences[0] else 1.0
    test: Any = stats.ttest_1samp(differences, 0)
    return float(test.pvalue)


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of n is multiplied by n - i, and never falls.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = list(chances), 0.0
    for rank, index in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        largest = max(largest, min(1.0, chances[index] * (len(chances) - rank)))
        corrected[index] = math.nan if math.isnan(chances[index]) else largest
    return corrected


def verdict(ranks: Sequence[Rank], seeds: int) -> str:
    """Whether the winner's lead is significant or noise, in a sentence."""
    best = ranks[0]
    if len(ranks) == 1:
        return f"Only {best.name} was tried."
    if seeds < 2:
        return f"{best.name} is ahead, but one seed cannot tell a lead from luck: --seeds=10 can."
    tied = [rank for rank in ranks[1:] if not rank.p < SIGNIFICANCE]
    other = tied[0] if tied else ranks[1]
    lead = (
        f"{best.name} leads {other.name} by {other.lead:.4f} in accuracy: "
        f"{'noise' if tied else 'significant'} (p = {other.p:.2g}, paired t-test over {seeds} "
        f"seeds, Holm's correction)."
    )
    names = ", ".join(rank.name for rank in tied)
    return f"{lead} Not to be told from the winner: {names}." if tied else lead


def to_text(search: Search, seeds: int) -> str:
    """The table of means and deviations, and the verdict."""
    ranks = ranking(search)
    rows = [["", "validation accuracy", "    loss", "winner's lead", "     p"]]
    for rank in ranks:
        row = [rank.name, f"{rank.accuracy:.4f} ± {rank.deviation:7.4f}", f"{rank.loss:.4f}"]
        if rank is not ranks[0]:
            row += [f"{rank.lead:.4f}", f"{rank.p:.2g}"]
        rows.append([cell.replace("nan", "  -") for cell in row])
    return "\n".join([*table(rows, "<>>>>"), "", verdict(ranks, seeds)])


def to_values(search: Search, seeds: int) -> dict[str, Any]:
    """The same for machines."""
    ranks = ranking(search)
    return {
        "flags": search.flags,
        "over": search.over,
        "seeds": seeds,
        "ranking": [
            {"name": rank.name, **finite({k: v for k, v in vars(rank).items() if k != "name"})}
            for rank in ranks
        ],
        "significant": len(ranks) > 1 and all(rank.p < SIGNIFICANCE for rank in ranks[1:]),
        "verdict": verdict(ranks, seeds),
        "config": to_json(search.config(search.points[0], 0)),
    }


def plot(search: Search) -> bool:
    """Draws every seed's accuracy, mean and deviation; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    ranks = {rank.name: rank for rank in ranking(search)}
    points = [point for point in search.points if search.name(point) in ranks]
    figure = Figure(figsize=(max(5.0, 1.2 * len(points)), 4), layout="constrained")
    axes = figure.subplots()
    for place, point in enumerate(points):
        scores, rank = list(search.scores(point).values()), ranks[search.name(point)]
        axes.plot([place - 0.12] * len(scores), scores, "o", color="tab:blue", alpha=0.4)
        deviation = 0.0 if math.isnan(rank.deviation) else rank.deviation
        axes.errorbar(place + 0.12, rank.accuracy, deviation, fmt="s", color="black", capsize=4)
    axes.set_xticks(range(len(points)), [search.name(point).replace(" ", "\n") for point in points])
    axes.set_xlim(-0.6, len(points) - 0.4)
    axes.set_ylabel("validation accuracy: seeds, mean ± sd")
    axes.set_title(search.flags["model"])
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(search.folder / PLOT, dpi=150)
    return True
