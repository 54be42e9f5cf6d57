"""What a comparison prints and writes: aligned tables for people, JSON and CSV for machines."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from jaxnets import table
from jaxnets.data.datasets import Dataset
from jaxnets.lecture.compare.request import Request
from jaxnets.lecture.compare.results import RANKS_BY, SCORES, TITLES, TOLERANCE, Results, Row
from jaxnets.lecture.compare.samples import CURVE_NOISE

NAME, NUMBER = 20, 10


def heading(request: Request, data: Dataset) -> str:
    """A data set and the head of its table."""
    kind = "rows" if data.is_regression else "images"
    title = f"{data.name}: {len(data.train):,} training and {len(data.test):,} test {kind}"
    if request.train_size == len(data.train):
        title += " (--train_size=full takes all)"
    heads = ["parameters", "epochs", *(head for head, _, _ in _columns(request)), "seconds"]
    return "\n".join(["", title, _line("model", heads, heads)])


def line(request: Request, row: Row) -> str:
    """One row of that table."""
    fit = row.fit
    if fit is None:
        return f"{row.model:{NAME}}  {row.why}"
    columns = _columns(request)
    heads = ["parameters", "epochs", *(head for head, _, _ in columns), "seconds"]
    scores = [
        f"{getattr(fit, part)[score]:,.{0 if score == 'mse' else 4}f}" for _, part, score in columns
    ]
    texts = [_count(fit.parameters), _count(fit.epochs), *scores, f"{fit.seconds:.1f}"]
    return _line(row.model, texts, heads)


def _columns(request: Request) -> list[tuple[str, str, str]]:
    """The columns of scores: title, part, score; of the training part only the one that ranks."""
    return [
        (f"{part} {TITLES[score]}", part, score)
        for score in SCORES[request.task]
        for part in (("train", "test") if score == RANKS_BY[request.task] else ("test",))
    ]


def curve(results: Results, data: Dataset, small: Dataset) -> str:
    """The capacity curve of a data set.

    Args:
      results: With the curve.
      data: The data set.
      small: The part of it on which the curve was trained.
    """
    score = TITLES[RANKS_BY[results.request.task]]
    about = f"{len(small.train)} training rows"
    if not data.is_regression:
        about = f"{len(small.train)} training images, {CURVE_NOISE:.0%} given a random label"
    heads = ["parameters", f"train {score}", f"test {score}"]
    lines = [
        "",
        f"capacity on {data.name}: one hidden layer, {about}",
        _line("hidden", heads, heads),
    ]
    verdicts = results.verdicts(data.name)
    for row in results.curve:
        if row.dataset == data.name and row.fit is None:
            lines.append(f"{row.hidden:<{NAME}}  {row.why}")
        elif row.dataset == data.name and row.fit is not None:
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


def notes(request: Request) -> list[str]:
    """What is to be known before the tables."""
    own = "every network by its own recipe"
    if request.epochs is not None:
        own += f", but {request.epochs} epochs"
    if request.task == "classification":
        own += " (made for 60,000 images: on fewer, an epoch has fewer steps)"
    return [*request.notes, own, "seconds: training, a network's compilation included"]


def to_json(results: Results) -> str:
    """Everything; a number that is none (R² of targets that do not vary) is null."""
    found = {
        "finished": results.finished,
        "request": dataclasses.asdict(results.request),
        "datasets": [
            {
                "name": data.name,
                "train": len(data.train),
                "test": len(data.test),
                "sha256": data.checksum,
            }
            for data in results.samples
        ],
        "rows": [dataclasses.asdict(row) for row in results.rows],
        "curve": [
            {**dataclasses.asdict(row), "verdict": results.verdicts(row.dataset).get(row.hidden)}
            for row in results.curve
        ],
        "closing": results.closing(),
    }
    return json.dumps(_finite(found), indent=2, allow_nan=False) + "\n"


def to_csv(results: Results) -> str:
    """A line a model and data set, then the curve's; empty where there is nothing to say."""
    scores = SCORES[results.request.task]
    names = [f"{part}_{score}" for part in ("train", "test") for score in scores]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["dataset", "model", "hidden", "parameters", "epochs", "seconds", *names, "why"]
    )
    for row in [*results.rows, *results.curve]:
        fit = row.fit
        cells: list[Any] = [""] * (3 + len(names))
        if fit is not None:
            values = [getattr(fit, part)[score] for part in ("train", "test") for score in scores]
            cells = [fit.parameters, fit.epochs, round(fit.seconds, 3), *values]
        writer.writerow([row.dataset, row.model, row.hidden, *cells, row.why])
    return stream.getvalue()


def _line(name: str, cells: Sequence[str], heads: Sequence[str]) -> str:
    """A line whose columns are as wide as their heads need; a last one may have no head."""
    widths = [NAME, *(max(NUMBER, len(head)) for head in heads), 0]
    return table.line([name, *cells], widths, "<" + ">" * len(heads) + "<")


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _finite(value: Any) -> Any:
    """The same, every infinite number or NaN a None."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
