"""A comparison as people see it: tables, a line as soon as it is known, and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets import table
from jaxnets.data.datasets import Dataset
from jaxnets.lecture.compare.request import TASKS, Request
from jaxnets.lecture.compare.results import TITLES, TOLERANCE, Results, Row, fitted
from jaxnets.lecture.compare.samples import CURVE_NOISE
from jaxnets.lecture.results import create_figure

NAME, NUMBER = 20, 10


def notes(request: Request) -> list[str]:
    """What a reader should know before the tables."""
    own = "every network by its own recipe"
    if request.epochs is not None:
        own += f", but {request.epochs} epochs"
    if request.task == "classification":
        own += " (made for 60,000 images: on fewer, an epoch has fewer steps)"
    return [*request.notes, own, "seconds: training, a network's compilation included"]


def heading(request: Request, data: Dataset) -> str:
    """A data set and the head of its table."""
    kind = "rows" if data.is_regression else "images"
    title = f"{data.name}: {len(data.train):,} training and {len(data.test):,} test {kind}"
    if request.train_size == len(data.train):
        title += " (--train_size=full takes all)"
    heads = _heads(request)
    return "\n".join(["", title, _line("model", heads, heads)])


def line(request: Request, row: Row) -> str:
    """One row of that table."""
    fit = row.fit
    if fit is None:
        return f"{row.model:{NAME}}  {row.why}"
    scores = [
        f"{getattr(fit, part)[score]:,.{0 if score == 'mse' else 4}f}"
        for part, score in TASKS[request.task].columns
    ]
    cells = [_count(fit.parameters), _count(fit.epochs), *scores, f"{fit.seconds:.1f}"]
    return _line(row.model, cells, _heads(request))


def curve(results: Results, data: Dataset, small: Dataset) -> str:
    """The capacity curve of a data set.

    Args:
      results: The comparison, with its curve.
      data: The data set.
      small: The part of it on which the curve was trained.
    """
    about = f"{len(small.train)} training rows"
    if not data.is_regression:
        about = f"{len(small.train)} training images, {CURVE_NOISE:.0%} given a random label"
    heads = ["parameters", f"train {results.ranks_by}", f"test {results.ranks_by}"]
    title = f"capacity on {data.name}: one hidden layer, {about}"
    lines = ["", title, _line("hidden", heads, heads)]
    verdicts = results.verdicts(data.name)
    for row in [row for row in results.curve if row.dataset == data.name]:
        if row.fit is None:
            lines.append(f"{row.hidden:<{NAME}}  {row.why}")
            continue
        numbers = [f"{results.score(row, part):.4f}" for part in ("train", "test")]
        cells = [_count(row.fit.parameters), *numbers, verdicts[row.hidden]]
        lines.append(_line(str(row.hidden), cells, heads))
    lines.append(
        f"(more than {TOLERANCE} below the best: overfits if it fits the training part as well, "
        "else underfits)"
    )
    order = [verdict for verdict in verdicts.values() if verdict]
    if "overfits" in order[: order.index("best") if order else 0]:
        lines.append(
            "(overfitting does not grow with size here: a larger network generalises best)"
        )
    return "\n".join(lines)


def _heads(request: Request) -> list[str]:
    """The heads of a data set's table, without the name's."""
    scores = [f"{part} {TITLES[score]}" for part, score in TASKS[request.task].columns]
    return ["parameters", "epochs", *scores, "seconds"]


def _line(name: str, cells: Sequence[str], heads: Sequence[str]) -> str:
    """A line whose columns are as wide as their heads need; a last one may have no head."""
    widths = [NAME, *(max(NUMBER, len(head)) for head in heads), 0]
    return table.line([name, *cells], widths, "<" + ">" * len(heads) + "<")


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def draw(results: Results, path: Path) -> None:
    """Draws each data set's scores and capacity curve, where matplotlib is installed."""
    figure = create_figure(11, 4 * len(results.samples))
    if figure is None:
        return
    grid = figure.subplots(len(results.samples), 2, squeeze=False)
    for (left, right), data in zip(grid, results.samples, strict=True):
        _draw_scores(left, results, data.name)
        _draw_curve(right, results, data.name)
    figure.savefig(path, dpi=120)


def _draw_scores(axes: Any, results: Results, name: str) -> None:
    """Draws every model's test score as a bar and its training score as a dot."""
    rows = fitted(results.rows, name)
    models = [row.model for row in rows]
    axes.barh(models, [results.score(row) for row in rows], color="tab:blue")
    axes.plot([results.score(row, "train") for row in rows], models, "o", color="tab:orange")
    axes.invert_yaxis()
    axes.set(xlabel=results.ranks_by, title=f"{name} (bar: test, dot: training)")


def _draw_curve(axes: Any, results: Results, name: str) -> None:
    """Draws training and test score over the hidden size, on a logarithmic scale."""
    rows = fitted(results.curve, name)
    axes.set(title=f"capacity on {name}", xlabel="hidden units", ylabel=results.ranks_by)
    if not rows:
        axes.set_axis_off()
        return
    sizes = [row.hidden for row in rows]
    for part, colour in (("train", "tab:orange"), ("test", "tab:blue")):
        scores = [results.score(row, part) for row in rows]
        axes.plot(sizes, scores, "o-", color=colour, label=part)
    below = {"xytext": (0, -14), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    for row in rows:
        verdict = results.verdicts(name)[row.hidden]
        axes.annotate(verdict, (row.hidden, results.score(row)), **below)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.margins(0.15)
    axes.legend()
