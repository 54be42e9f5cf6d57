"""The comparison as a command: every model on every data set, the capacity curve, the files."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxnets.config.fields import Config, preset
from jaxnets.config.recipes import CURVE, REGRESSION
from jaxnets.data.datasets import Dataset
from jaxnets.errors import RunFailedError, UserError
from jaxnets.experiment import Experiment
from jaxnets.lecture.compare import report
from jaxnets.lecture.compare.request import TASKS, Request
from jaxnets.lecture.compare.results import Fit, Results, Row, scores_of
from jaxnets.lecture.compare.samples import load, small_and_noisy
from jaxnets.lecture.many import BAR
from jaxnets.lecture.results import to_json
from jaxnets.runs.run import num_params
from jaxnets.runs.run_folder import fresh_path, make_folder
from jaxnets.training.loop import Checkpoint


def run(request: Request) -> None:
    """Compares, printing each row as soon as it is known.

    What is known is written at the end, and after an interrupt.

    Raises:
      UserError: A data set cannot be loaded, or the work folder holds something.
    """
    samples = load(request)
    path = Path(os.path.expanduser(request.workdir)) if request.workdir else fresh_path("compare")
    if found := make_folder(path):
        raise UserError(f"workdir: expected an empty folder, {path} holds {found[0]}")
    folder, results = path.resolve(), Results(request, samples)
    try:
        for text in _compare(results):
            if not request.json:
                print(text, flush=True)
        results.finished = True
    finally:
        results.write(folder)
        if results.rows:
            report.draw(results, folder / "compare.png")
    print(to_json(results.to_values()).rstrip() if request.json else f"results: {folder}")


def _compare(results: Results) -> Iterator[str]:
    """Fills the results, yielding what is to be printed."""
    request = results.request
    yield from report.notes(request)
    for data in results.samples:
        yield report.heading(request, data)
        for model in request.models:
            results.rows.append(_row(Row(data.name, model), request, data))
            yield report.line(request, results.rows[-1])
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
    if row.model in TASKS[request.task].baselines:
        from jaxnets.lecture.compare.baselines import fit_baseline  # It needs scikit-learn.

        return fit_baseline(row.model, data, request.seed)
    changes: dict[str, Any] = {"validation_size": 0, "devices": 1, "seed": request.seed}
    if request.gradients == "manual":  # auto leaves mlp_handwritten its own gradients.
        changes["gradients"] = "manual"
    if row.hidden is not None:
        changes |= {**CURVE[request.task], "hidden": (row.hidden,)}
    else:
        changes |= REGRESSION[row.model] if data.is_regression else {"model": row.model}
        if request.epochs is not None:
            changes["epochs"] = request.epochs
    return fit_network(preset(**changes), data)


def fit_network(config: Config, data: Dataset) -> Fit:
    """Trains a network; no batch is larger than the training part.

    Raises:
      UserError: The images are too small for the network.
      RunFailedError: Its loss became infinite or NaN.
    """
    if config.batch_size is not None:
        batch_size = min(config.batch_size, len(data.train))
        config = dataclasses.replace(config, batch_size=batch_size)
    started = time.perf_counter()
    experiment = Experiment.create(config, data)
    state = experiment.init_state()
    epochs, name = experiment.epochs(Checkpoint(state)), f"{data.name} {config.model}"
    for trained, _ in tqdm(epochs, name, config.epochs, **BAR):
        state = trained
    seconds = time.perf_counter() - started
    train, test = (
        scores_of(experiment.evaluate(state.params, split, ten_crop=False), data)
        for split in (data.train, data.test)
    )
    return Fit(num_params(state.params), config.epochs, train, test, seconds)
