"""The comparison as a command: every model on every data set, the capacity curve, the files."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxnets.config.fields import preset
from jaxnets.config.recipes import CURVE, REGRESSION
from jaxnets.data.datasets import Dataset
from jaxnets.errors import RunFailedError, UserError
from jaxnets.lecture.compare import picture, report
from jaxnets.lecture.compare.fit import Fit, fit_baseline, fit_network
from jaxnets.lecture.compare.request import NETWORKS, Request
from jaxnets.lecture.compare.results import Results, Row
from jaxnets.lecture.compare.samples import load, small_and_noisy
from jaxnets.runs.run_folder import fresh_path, make_folder, write_text


def run(request: Request) -> None:
    """Compares, printing each row as soon as it is known; what is known is written at the end.

    An interrupt is an end too.

    Raises:
      UserError: A data set cannot be loaded, or the work folder holds something.
    """
    samples = load(request)
    folder = _create_folder(request.workdir)
    results = Results(request, samples)
    try:
        for text in _compare(results):
            if not request.json:
                print(text, flush=True)
        results.finished = True
    finally:
        _write(results, folder)
    print(report.to_json(results).rstrip() if request.json else f"results: {folder}")


def _compare(results: Results) -> Iterator[str]:
    """Fills the results, yielding what is to be printed."""
    request = results.request
    yield from report.notes(request)
    for data in results.samples:
        yield report.heading(request, data)
        for model in request.models:
            row = _row(Row(data.name, model), request, data)
            results.rows.append(row)
            yield report.line(request, row)
    for data in results.samples if request.curve else ():
        small = small_and_noisy(data, request.seed)
        for hidden in request.curve:
            results.curve.append(_row(Row(data.name, "hidden", hidden), request, small))
        yield report.curve(results, data, small)
    yield "\n".join(["", *results.closing()])


def _row(row: Row, request: Request, data: Dataset) -> Row:
    """The row filled in; a model that does not fit the data says why."""
    try:
        return dataclasses.replace(row, fit=_fit(row, request, data))
    except (UserError, RunFailedError) as error:
        return dataclasses.replace(row, why=str(error))


def _fit(row: Row, request: Request, data: Dataset) -> Fit:
    """Trains the row's model."""
    curve = row.hidden is not None
    if not curve and row.model not in NETWORKS[request.task]:
        return fit_baseline(row.model, data, request.seed)
    changes: dict[str, Any] = {"validation_size": 0, "devices": 1, "seed": request.seed}
    if request.gradients == "manual":  # auto leaves mlp_handwritten its own gradients.
        changes["gradients"] = "manual"
    if curve:
        changes |= {**CURVE[request.task], "hidden": (row.hidden,)}
    elif data.is_regression:
        changes |= REGRESSION[row.model]
    else:
        changes["model"] = row.model
    if request.epochs is not None and not curve:
        changes["epochs"] = request.epochs
    return fit_network(preset(**changes), data)


def _create_folder(workdir: str | None) -> Path:
    """Makes the folder of the results.

    Raises:
      UserError: It holds something, or cannot be written.
    """
    path = Path(os.path.expanduser(workdir)) if workdir else fresh_path("compare")
    if found := make_folder(path):
        raise UserError(f"workdir: expected an empty folder, {path} holds {found[0]}")
    return path.resolve()


def _write(results: Results, folder: Path) -> None:
    """compare.json and compare.csv, and compare.png where matplotlib is installed."""
    write_text(folder / "compare.json", report.to_json(results))
    write_text(folder / "compare.csv", report.to_csv(results))
    if results.rows and picture.available():
        picture.draw(results, folder / "compare.png")
