"""The comparison as a command: trains, prints each row as soon as it is known, writes the files."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxnets import display
from jaxnets.data.datasets import Dataset
from jaxnets.errors import RunFailedError, UserError, on_interrupt
from jaxnets.files import locked
from jaxnets.runs.run_folder import make_folder
from jaxnets.system import check_memory
from jaxnets.tune.compare.models import fit
from jaxnets.tune.compare.request import TASKS, Request
from jaxnets.tune.compare.results import TOLERANCE, Results, Row, title_of
from jaxnets.tune.compare.samples import CURVE_NOISE, load, small_and_noisy
from jaxnets.tune.results import to_json
from jaxnets.viz.figure import create_figure

LIBRARIES = 300 << 20  # Bytes, of scikit-learn and Matplotlib: ulimit -v of 1,150 MB was too low.
NAME, SHORT_NAME, NUMBER = 20, 17, 10  # The columns' widths; regression has shorter names.
WIDE = 98  # Columns of a terminal for all of regression's; others do without the epochs.
# The picture's style for the scores of each part; the marks differ, not only the colours.
PART_STYLES: dict[str, dict[str, Any]] = {
    "train": {"marker": "s", "color": "tab:orange", "markerfacecolor": "none"},
    "test": {"marker": "o", "color": "tab:blue"},
}
# The legend's place, where it covers no dot: above the axes, beside the title.
ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "ncols": 2,
    "frameon": False,
}
FORMATS = {"parameters": ",", "epochs": ",", "seconds": ".1f", "test_mse": ",.0f"}


def run(request: Request) -> None:
    """Compares, prints and draws."""
    check_memory(LIBRARIES)
    samples = load(request)
    folder, results = make_folder(request.workdir, "compare"), Results(request, samples)
    with locked(folder), on_interrupt(f"interrupted; kept: {folder}"):
        if found := sorted(os.listdir(folder)):
            raise UserError(f"workdir: expected an empty folder, {folder} holds {found[0]}")
        for text in _compare(results, folder):
            if not request.json:
                display.show(text)
        results.finished = True
        results.write(folder)
        _draw(results, folder / "compare.png")
    where = f"results: {display.short_path(str(folder))}"
    print(to_json(results.to_values()).rstrip() if request.json else where)


def _compare(results: Results, folder: Path) -> Iterator[str]:
    """Fills the results and writes them after each row, yielding what is to be printed."""
    request, task = results.request, TASKS[results.request.task]
    yield from _notes(request)
    epochs = ["epochs"] if display.columns() >= WIDE else []
    shown = ["parameters", *epochs, *task.shown, "seconds"]
    for data in results.samples:
        kind = "rows" if data.is_regression else "images"
        title = f"{data.name}: {len(data.train):,} training and {len(data.test):,} test {kind}"
        if request.train_size == len(data.train):
            title += " (--train_size=full takes all)"
        yield f"\n{title}\n{_aligned(['model', *map(title_of, shown)], shown)}"
        for model in request.models:
            results.rows.append(_row(model, None, request, data))
            results.write(folder)
            yield _line(results.rows[-1], shown)
    shown = ["parameters", f"train_{task.ranks_by}", f"test_{task.ranks_by}"]
    for data in results.samples if request.curve else ():
        small = small_and_noisy(data, request.seed)
        for hidden in request.curve:
            results.rows.append(_row("hidden", hidden, request, small))
            results.write(folder)
        verdicts = results.judge(data.name)
        kind = "rows" if data.is_regression else f"images, {CURVE_NOISE:.0%} given a random label"
        title = f"capacity on {data.name}: one hidden layer, {len(small.train)} training {kind}"
        yield f"\n{title}\n{_aligned(['hidden', *map(title_of, shown)], shown)}"
        yield from (_line(row, shown) for row in results.rows[-len(request.curve) :])
        yield (
            f"(more than {TOLERANCE} below the best: overfits if it fits the training part as "
            "well, else underfits)"
        )
        if "overfits" in verdicts[: verdicts.index("best") if verdicts else 0]:
            yield "(overfitting does not grow with size here: a larger network generalises best)"
    yield "\n".join(["", *results.closing()])


def _row(model: str, hidden: int | None, request: Request, data: Dataset) -> Row:
    """Trains a model; one that does not fit the data says why."""
    row = {"dataset": data.name, "model": model, "hidden": hidden}
    try:
        return row | fit(model, hidden, request, data)
    except (UserError, RunFailedError) as error:
        return row | {"why": str(error)}


def _notes(request: Request) -> list[str]:
    """The notes that a reader needs before the tables."""
    own = "every network by its own recipe"
    if request.epochs is not None:
        own += f", but {request.epochs} epochs"
    if request.task == "classification":
        own += " (made for 60,000 images: on fewer, an epoch has fewer steps)"
    return [*request.notes, own, "seconds: training, a network's compilation included"]


def _line(row: Row, shown: Sequence[str]) -> str:
    """A row of a table; its verdict, if it has one, stands behind it without a title."""
    name = row["model"] if row["hidden"] is None else str(row["hidden"])
    if "why" in row:
        return f"{name:{NAME}}  {row['why']}"
    cells = [
        "-" if row[column] is None else format(row[column], FORMATS.get(column, ".4f"))
        for column in shown
    ]
    return _aligned([name, *cells, row.get("verdict", "")], shown)


def _aligned(cells: Sequence[str], shown: Sequence[str]) -> str:
    """A line of a table, its columns closer on a narrow terminal."""
    is_wide = display.columns() >= WIDE
    name = NAME if is_wide or len(shown) < 6 else SHORT_NAME
    least = NUMBER if is_wide else 7
    widths = [name, *(max(least, len(title_of(column))) for column in shown), 0]
    return display.line(cells, widths, "<" + ">" * len(shown) + "<")


def _draw(results: Results, path: Path) -> None:
    """Draws each data set's scores and capacity curve, where matplotlib is installed."""
    models = len(results.request.models)
    figure = create_figure(11, max(4, 1 + 0.4 * models) * len(results.samples))
    if figure is None:
        return
    grid = figure.subplots(len(results.samples), 2, squeeze=False)
    title = title_of(TASKS[results.request.task].ranks_by)
    for (left, right), data in zip(grid, results.samples, strict=True):
        _draw_scores(left, results, data.name)
        left.set_xlabel(title)
        left.set_title(data.name, loc="left")
        right.set(xlabel="hidden units", ylabel=title)
        right.set_title(f"capacity on {data.name}", loc="left")
        _draw_curve(right, results, data.name)
    figure.savefig(path, dpi=120)


def _finite_rows(results: Results, name: str, *, curve: bool = False) -> list[Row]:
    """The rows of a data set, or of its capacity curve, whose scores are numbers."""
    rows = results.trained(name, curve=curve)
    return [r for r in rows if math.isfinite(results.score(r) + results.score(r, "train"))]


def _draw_scores(axes: Any, results: Results, name: str) -> None:
    """Draws each model's training and test score as dots, the test's with its number.

    The axis spans the scores, not 0 to 1: so 0.96 and 0.99 lie apart. A bar would have to begin at
    0, a dot need not.
    """
    rows = _finite_rows(results, name)
    models = [row["model"] for row in rows]
    for part, style in PART_STYLES.items():
        scores = [results.score(row, part) for row in rows]
        axes.plot(scores, models, linestyle="none", label=part, **style)
    above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    for row in rows:
        score = results.score(row)
        axes.annotate(f"{score:.4f}", (score, row["model"]), **above)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(**ABOVE)


def _draw_curve(axes: Any, results: Results, name: str) -> None:
    """Draws training and test score over the hidden size, on a logarithmic scale."""
    rows = _finite_rows(results, name, curve=True)
    if not rows:
        axes.set_axis_off()
        return
    sizes = [row["hidden"] for row in rows]
    for part, style in PART_STYLES.items():
        scores = [results.score(row, part) for row in rows]
        axes.plot(sizes, scores, "-", label=part, **style)
    below: dict[str, Any] = {
        "xytext": (0, -8),
        "textcoords": "offset points",
        "ha": "center",
        "va": "top",
    }
    below["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    for row in rows:
        text = f"{results.score(row):.4f}\n{row.get('verdict', '')}".rstrip()
        axes.annotate(text, (row["hidden"], results.score(row)), fontsize=8, **below)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.margins(0.15, 0.2)
    axes.grid(alpha=0.3)
    axes.legend(**ABOVE)
