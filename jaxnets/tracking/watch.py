"""Follows a run: its numbers and pictures go to trackers.

A tracker that fails while the run trains is disabled, and stderr says so: the run goes on.
"""

import contextlib
import io
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import Field
from typing import Any

import jax
import numpy as np

from jaxnets.config.fields import SINGLE_PROCESS, Config
from jaxnets.config.options import options_of, show
from jaxnets.config.resolve import FOLLOWS, OF_THE_PROCESS
from jaxnets.display import one_line
from jaxnets.display import show as show_line
from jaxnets.errors import UserError, first_line
from jaxnets.files import mkdir, read_json, write_text
from jaxnets.metrics import Metrics
from jaxnets.predict.predict import create_predictor
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import TRACKING
from jaxnets.tracking.pictures import confusion_picture, sample_picture
from jaxnets.tracking.trackers import TRACKERS, Tracker, check
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import TrainState

KEYS = "runs.json"  # In TRACKING: each tracker's key, which continues the same tracked run.
KEY = re.compile(r"[\w.-]{1,128}")
SAMPLES, CANDIDATES = 16, 512  # Test images shown, of the first so many, wrong ones first.
# Fields of Config that are no hyperparameters: where a run works, and what observes it.
NOT_SENT = {*SINGLE_PROCESS, *OF_THE_PROCESS, *FOLLOWS}


@contextlib.contextmanager
def trackers_of(run: Run) -> Iterator[list[Observer]]:
    """The observers that a run's config asks for; of several processes only the first has any.

    Raises:
      UserError: A package is missing, or a tracker cannot begin.
    """
    config, observers = run.config, []
    if not run.processes.is_first:
        yield observers
        return
    check(config.track)  # A resumed run's config may ask for what is not here.
    with contextlib.ExitStack() as stack:
        if config.track != "none":
            observers.append(stack.enter_context(contextlib.closing(Tracking(run))))
        yield observers


class Tracking(Observer):
    """Sends to trackers what is known after an epoch and after the test."""

    def __init__(self, run: Run):
        self._run, self._finished = run, False
        self._trackers: dict[str, Tracker] = {}
        folder, name = run.folder.path / TRACKING, run.folder.path.name
        step, config = int(run.checkpoint.state.step), hyperparameters(run.config)
        mkdir(folder)
        keys = read_json(folder / KEYS) if (folder / KEYS).exists() else {}
        for tracker in run.config.track.split(","):
            key = keys.get(tracker)
            if not (isinstance(key, str) and KEY.fullmatch(key)):  # It may be untrusted.
                key = None
            try:
                with _silenced():
                    opened = TRACKERS[tracker][0](name, folder, config, key, step)
            except Exception as error:
                self.close()
                raise UserError(f"track: {tracker}: {first_line(error)}") from error
            self._trackers[tracker], keys[tracker] = opened, opened.key
            if key is None:  # A resumed run may not have been tracked before.
                for record in run.folder.records():
                    self._send(tracker, "scalars", scalars_of(record), record["step"])
        write_text(folder / KEYS, json.dumps(keys, indent=2) + "\n")

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Sends an epoch's numbers, and the parameters after it."""
        parameters = parameters_by_path(state.params)
        for tracker in list(self._trackers):
            self._send(tracker, "scalars", scalars_of(record), record["step"])
            self._send(tracker, "histograms", parameters, record["step"])

    def on_finish(self, test: Metrics) -> None:
        """Sends the test's numbers, its confusion matrix, and test images with predictions."""
        self._finished, step = True, int(self._run.checkpoint.state.step)
        values = {"test/loss": test.loss, "test/accuracy": test.accuracy}
        names = self._run.experiment.data.class_names
        matrix = confusion_picture(np.asarray(test.confusion), names)
        samples = samples_of(self._run)
        for tracker in list(self._trackers):
            self._send(tracker, "scalars", values, step)
            self._send(tracker, "picture", "test/confusion_matrix", matrix, step)
            self._send(tracker, "picture", "test/samples", samples, step)
        for name, tracker in self._trackers.items():
            show_line(f"tracked by {name}: {tracker.how_to_see}")

    def _send(self, name: str, method: str, *arguments: Any) -> None:
        """Calls a tracker's method; one that fails gets nothing more."""
        if (tracker := self._trackers.get(name)) is None:
            return
        try:
            with _silenced():
                getattr(tracker, method)(*arguments)
        except Exception as error:
            del self._trackers[name]
            text = f"warning: {name} gets nothing more of this run: {first_line(error)}"
            show_line(one_line(text), sys.stderr)

    def close(self) -> None:
        """Tells the trackers that the run has ended, and whether it was finished."""
        for tracker in list(self._trackers):
            self._send(tracker, "close", self._finished)


def hyperparameters(config: Config) -> dict[str, Any]:
    """The fields of a config that a tracker compares: numbers, booleans and texts."""
    values = {field: getattr(config, field.name) for field in options_of(Config)}
    return {
        field.name: value if isinstance(value, bool | int | float | str) else _text(field, value)
        for field, value in values.items()
        if field.name not in NOT_SENT
    }


def _text(field: Field, value: object) -> str:
    return show(field, value) if value else "none"  # The help would say what None leads to.


def scalars_of(record: Record) -> dict[str, float]:
    """An epoch's numbers, those of a part as "train/loss"; None and infinite ones are left out.

    >>> scalars_of({"epoch": 1, "train_loss": 0.5, "validation_loss": None})
    {'epoch': 1.0, 'train/loss': 0.5}
    """
    parts = ("train_", "validation_")
    return {
        name.replace("_", "/", 1) if name.startswith(parts) else name: float(value)
        for name, value in record.items()
        if name != "step" and value is not None and math.isfinite(value)
    }


def parameters_by_path(params: Any) -> dict[str, np.ndarray]:
    """The parameters by names as "weights/conv1/kernel": trackers show groups by the alphabet."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
    paths = ["/".join(["weights", *(str(key.key) for key in path)]) for path, _ in leaves]
    return {
        path: np.asarray(leaf, np.float32) for path, (_, leaf) in zip(paths, leaves, strict=True)
    }


def samples_of(run: Run) -> np.ndarray:
    """A picture of some test images with what the network takes them for, the wrong ones first."""
    experiment, state = run.experiment, run.checkpoint.state
    predictor = create_predictor(run.config, experiment.data, state, True)
    split = experiment.data.test[np.arange(min(CANDIDATES, len(experiment.data.test)))]
    probabilities = predictor.probabilities(split.images)
    predicted = probabilities.argmax(axis=1)
    chosen = np.argsort(predicted == split.labels, kind="stable")[:SAMPLES]
    names = experiment.data.class_names
    return sample_picture(
        [predictor.seen(split.images[i]) for i in chosen],
        [names[split.labels[i]] for i in chosen],
        [f"{names[predicted[i]]} {probabilities[i].max():.2f}" for i in chosen],
    )


def _silenced() -> contextlib.AbstractContextManager:
    """Drops what a tracker prints to stdout: the run says itself how to see it."""
    return contextlib.redirect_stdout(io.StringIO())
