"""A comparison as a picture: scores as bars, the capacity curve beside them, a row a data set."""

import importlib.util
from pathlib import Path
from typing import Any

from jaxnets.lecture.compare.results import RANKS_BY, TITLES, Results


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(results: Results, path: Path) -> None:
    """Writes the picture as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4 * len(results.samples)), layout="constrained")
    grid: Any = figure.subplots(len(results.samples), 2, squeeze=False)
    for (left, right), data in zip(grid, results.samples, strict=True):
        _bars(left, results, data.name)
        _curve(right, results, data.name)
    figure.savefig(path, dpi=120)


def _bars(axes: Any, results: Results, name: str) -> None:
    """The test score of every model, a dot for the training score."""
    rows = [row for row in results.rows if row.dataset == name and row.fit is not None]
    tests = [results.score(row) for row in rows]
    models = [row.model for row in rows]
    axes.barh(models, tests, color="tab:blue")
    axes.plot([results.score(row, "train") for row in rows], models, "o", color="tab:orange")
    axes.invert_yaxis()
    axes.set_xlabel(TITLES[RANKS_BY[results.request.task]])
    axes.set_title(f"{name} (bar: test, dot: training)")


def _curve(axes: Any, results: Results, name: str) -> None:
    """Training and test score over the hidden size, on a logarithmic scale."""
    rows = [row for row in results.curve if row.dataset == name and row.fit is not None]
    axes.set_title(f"capacity on {name}")
    if not rows:
        axes.set_axis_off()
        return
    sizes = [row.hidden for row in rows]
    for part, colour in (("train", "tab:orange"), ("test", "tab:blue")):
        scores = [results.score(row, part) for row in rows]
        axes.plot(sizes, scores, "o-", color=colour, label=part)
    for row in rows:
        verdict = results.verdicts(name)[row.hidden]
        axes.annotate(verdict, (row.hidden, results.score(row)), xytext=(0, -14),
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("hidden units")
    axes.set_ylabel(TITLES[RANKS_BY[results.request.task]])
    axes.margins(0.15)
    axes.legend()
