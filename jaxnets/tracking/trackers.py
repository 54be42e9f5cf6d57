"""The trackers of --track. Each is an observer, which imports its package when it opens."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.base.display import one_line, short_path, show
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.files import mkdir, read_json, write_text
from jaxnets.metrics import Metrics
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import TRACKING
from jaxnets.tracking.check import check
from jaxnets.tracking.values import hyperparameters, parameters_by_path, scalars_of
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import TrainState

PROJECT = "jaxnets"  # The runs' project, in trackers that have projects.
KEYS = "runs.json"  # In TRACKING: each tracker's key, which continues the same tracked run.
KEY = re.compile(r"[\w.-]{1,128}")


class Tracker(Observer):
    """Sends the numbers of each epoch and of the test to a tool.

    A tool that fails during training gets nothing more, and stderr says so; the run continues.
    """

    name: str  # Its name in --track.
    how_to_see: str  # The command that shows the run; `open` sets it.

    def __init__(self, run: Run):
        """Opens the run in a tool.

        Raises:
          UserError: The tool cannot start.
        """
        self._run, self._finished, self._failed = run, False, False
        folder, step = run.folder.path / TRACKING, int(run.checkpoint.state.step)
        mkdir(folder)
        keys = read_json(folder / KEYS) if (folder / KEYS).exists() else {}
        key = keys.get(self.name)
        if not (isinstance(key, str) and KEY.fullmatch(key)):  # It may be untrusted.
            key = None
        config = hyperparameters(run.config)
        try:
            with _silenced():
                keys[self.name] = self.open(run.folder.path.name, folder, config, key, step)
        except Exception as error:
            raise UserError("track: {}: {}", self.name, first_line(error)) from error
        write_text(folder / KEYS, json.dumps(keys, indent=2) + "\n")
        if key is None:  # A resumed run may not have been tracked before.
            for record in run.folder.records():
                self._send(self.scalars, scalars_of(record), record["step"])

    def open(
        self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int
    ) -> str:
        """Starts a run in the tool, or continues one; returns the tool's key of the run.

        Args:
          name: The run's name.
          folder: The run's own folder for trackers.
          config: Its hyperparameters.
          key: The key of the run to continue; None starts a new one.
          step: The step from which it continues. Steps count from the run's start.
        """
        raise NotImplementedError

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Logs numbers by name."""
        raise NotImplementedError

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        """Logs the distribution of each array."""
        raise NotImplementedError

    def end(self, finished: bool) -> None:
        """Ends the run in the tool, and tells it whether the run was finished."""
        raise NotImplementedError

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Sends an epoch's numbers, and the parameters after it."""
        self._send(self.scalars, scalars_of(record), record["step"])
        self._send(self.histograms, parameters_by_path(state.params), record["step"])

    def on_finish(self, test: Metrics | None) -> None:
        """Sends the test's numbers."""
        self._finished = True
        if test is not None:
            values = {"test/loss": test.loss, "test/accuracy": test.accuracy}
            self._send(self.scalars, values, int(self._run.checkpoint.state.step))
        if not self._failed:
            show(f"tracked by {self.name}: {self.how_to_see}")

    def close(self) -> None:
        """Tells the tool that the run has ended."""
        self._send(self.end, self._finished)

    def _send(self, method: Callable[..., None], *values: Any) -> None:
        if self._failed:
            return
        try:
            with _silenced():
                method(*values)
        except Exception as error:
            self._failed = True
            text = f"warning: {self.name} gets no more data of this run: {first_line(error)}"
            show(one_line(text), sys.stderr)


class TensorBoard(Tracker):
    """Event files in the run's own folder, without TensorFlow.

    A resumed run hides the epochs that it trains again.
    """

    name = "tensorboard"

    def open(self, name, folder, config, key, step):
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        self.how_to_see = f"tensorboard --logdir={short_path(str(folder.parent.parent))}"
        purge_step = None if key is None else step + 1
        # File names contain seconds: a run resumed within a second would replace its first file.
        self._writer: Any = SummaryWriter(
            str(folder), purge_step=purge_step, flush_secs=10, filename_suffix=f".{step:09}"
        )
        if key is None:
            # The metrics that the table of hyperparameters shows.
            compared = dict.fromkeys(("validation/accuracy", "test/accuracy", "test/loss"), 0.0)
            experiment, start, _ = hparams(config, compared)
            for summary in (experiment, start):
                self._writer.file_writer.add_summary(summary)
        return "."  # The folder is all that continues a run.

    def scalars(self, values, step):
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def histograms(self, arrays, step):
        for name, array in arrays.items():
            self._writer.add_histogram(name, array.ravel(), step)

    def end(self, finished):
        self._writer.close()


class Wandb(Tracker):
    """Weights & Biases: files in ./wandb, which `wandb sync` sends.

    WANDB_MODE=online sends at once.
    """

    name = "wandb"

    def open(self, name, folder, config, key, step):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # Else it reports errors.
        import wandb  # pyright: ignore[reportMissingImports] (an extra)

        self._histogram: Any = wandb.Histogram
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._wandb_run: Any = wandb.init(
            project=PROJECT, name=name, id=key, config=config, mode=mode,
            resume=None if key is None else "allow",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        # Its own steps may not go back, but a resumed run's do. So ours are logged as a number.
        self._wandb_run.define_metric("step")
        self._wandb_run.define_metric("*", step_metric="step")
        files = Path(self._wandb_run.dir).parent
        self.how_to_see = f"wandb sync {files}" if mode == "offline" else str(self._wandb_run.url)
        return str(self._wandb_run.id)

    def scalars(self, values, step):
        self._wandb_run.log({**values, "step": step})

    def histograms(self, arrays, step):
        values = {name: self._histogram(x.ravel().tolist()) for name, x in arrays.items()}
        self._wandb_run.log({**values, "step": step})

    def end(self, finished):
        self._wandb_run.finish(exit_code=0 if finished else 1)


class MLflow(Tracker):
    """Its database in the working folder, or the server that MLFLOW_TRACKING_URI names."""

    name = "mlflow"

    def open(self, name, folder, config, key, step):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Else it reports its use.
        import mlflow  # pyright: ignore[reportMissingImports] (an extra)

        self._mlflow: Any = mlflow
        mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=key, run_name=name if key is None else None)
        self.how_to_see = "mlflow ui"
        if key is None:
            mlflow.log_params(config)
        return run.info.run_id

    def scalars(self, values, step):
        self._mlflow.log_metrics(values, step=step)

    def histograms(self, arrays, step):
        """MLflow has no histograms: it gets each array's mean and standard deviation."""
        statistics = {f"{name}/mean": float(x.mean()) for name, x in arrays.items()}
        statistics |= {f"{name}/std": float(x.std()) for name, x in arrays.items()}
        self._mlflow.log_metrics(statistics, step=step)

    def end(self, finished):
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


TRACKERS = {kind.name: kind for kind in (TensorBoard, Wandb, MLflow)}


@contextlib.contextmanager
def trackers_of(run: Run) -> Iterator[list[Observer]]:
    """The observers that a run's config asks for; with several processes, only the first has any.

    Raises:
      UserError: A package is missing, or a tracker cannot start.
    """
    config, observers = run.config, []
    if not run.processes.is_first:
        yield observers
        return
    check(config.track)  # A resumed run's config may ask for what is not here.
    with contextlib.ExitStack() as stack:
        for name in config.track.split(",") if config.track != "none" else ():
            observers.append(stack.enter_context(contextlib.closing(TRACKERS[name](run))))
        yield observers


def _silenced() -> contextlib.AbstractContextManager:
    """Drops what a tracker prints to stdout: the run itself says how to see it."""
    return contextlib.redirect_stdout(io.StringIO())
