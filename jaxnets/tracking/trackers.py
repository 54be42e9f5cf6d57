"""The trackers of --track, a class each. Each imports its package, an extra, where it is opened."""

import importlib.util
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxnets.display import short_path
from jaxnets.errors import not_installed

PROJECT = "jaxnets"  # The runs' project, in trackers that have projects.


class Tracker(Protocol):
    """A tracker of runs, with a call for each kind of value. Steps count from the run's start.

    `Tracker(name, folder, config, key, step)` opens a new run of this name, or with a key the one
    that had it, which has come to this step; the folder is the run's own for trackers.
    """

    key: str  # The tracker's own name of the run, by which it continues the run.
    how_to_see: str  # The command that shows it.

    def scalars(self, values: dict[str, float], step: int) -> None: ...
    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None: ...
    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Shows pixels [H, W, 3] uint8."""

    def close(self, finished: bool) -> None: ...


class TensorBoard:
    """Event files in the run's own folder, without TensorFlow.

    A resumed run hides what it trains again.
    """

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        self.key = "."  # The folder is all that continues a run.
        self.how_to_see = f"tensorboard --logdir={short_path(str(folder.parent.parent))}"
        purge_step = None if key is None else step + 1
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)
        if key is None:
            # What the table of hyperparameters shows beside them.
            compared = dict.fromkeys(("validation/accuracy", "test/accuracy", "test/loss"), 0.0)
            experiment, start, _ = hparams(config, compared)
            for summary in (experiment, start):
                self._writer.file_writer.add_summary(summary)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        for name, array in arrays.items():
            self._writer.add_histogram(name, array.ravel(), step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, finished: bool) -> None:
        self._writer.close()


class Trackio:
    """A database in this user's cache, which its dashboard shows; nothing leaves the machine.

    TRACKIO_DIR chooses another folder; TRACKIO_SPACE_ID and TRACKIO_SERVER_URL send the runs there.
    """

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # Before huggingface_hub's import.
        import trackio  # pyright: ignore[reportMissingImports] (an extra)

        self._trackio: Any = trackio
        run = trackio.init(
            project=PROJECT, name=key or name, config=config, embed=False,
            resume="never" if key is None else "allow",
        )  # fmt: skip
        self.key, self.how_to_see = run.name, f"trackio show --project={PROJECT}"

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._trackio.log(values, step=step)

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        values = {name: self._trackio.Histogram(x) for name, x in arrays.items()}
        self._trackio.log(values, step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._trackio.log({name: self._trackio.Image(pixels)}, step=step)

    def close(self, finished: bool) -> None:
        self._trackio.finish()


class Wandb:
    """Weights & Biases: files in ./wandb, which `wandb sync` sends.

    WANDB_MODE=online sends at once.
    """

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # Else its faults are sent home.
        import wandb  # pyright: ignore[reportMissingImports] (an extra)

        self._wandb: Any = wandb
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run: Any = wandb.init(
            project=PROJECT, name=name, id=key, config=config, mode=mode,
            resume=None if key is None else "allow",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        # Its own steps may not go back, as those of a resumed run do: ours are numbers like others.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.key = str(self._run.id)
        files = Path(self._run.dir).parent
        self.how_to_see = f"wandb sync {files}" if mode == "offline" else str(self._run.url)

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        values = {name: self._wandb.Histogram(x.ravel().tolist()) for name, x in arrays.items()}
        self._run.log({**values, "step": step})

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._run.log({name: self._wandb.Image(pixels), "step": step})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """Its database in the working folder, or the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Else its use is sent home.
        import mlflow  # pyright: ignore[reportMissingImports] (an extra)

        self._mlflow: Any = mlflow
        mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=key, run_name=name if key is None else None)
        self.key, self.how_to_see = run.info.run_id, "mlflow ui"
        if key is None:
            mlflow.log_params(config)

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(values, step=step)

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        """MLflow has no histograms: it gets each array's mean and standard deviation."""
        statistics = {f"{name}/mean": float(x.mean()) for name, x in arrays.items()}
        statistics |= {f"{name}/std": float(x.std()) for name, x in arrays.items()}
        self._mlflow.log_metrics(statistics, step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._mlflow.log_image(pixels, f"{name}.png")

    def close(self, finished: bool) -> None:
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


# Each tracker, and its package; its extra has the tracker's name.
TRACKERS = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "trackio": (Trackio, "trackio"),
    "wandb": (Wandb, "wandb"),
    "mlflow": (MLflow, "mlflow"),
}


def check(track: str) -> None:
    """Says before JAX is imported and the data are loaded whether --track can work.

    Raises:
      UserError: A tracker's package is missing.
    """
    for name in TRACKERS.keys() & set(track.split(",")):
        package = TRACKERS[name][1]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # A folder of data, such as wandb/, has no origin.
            raise not_installed(package, name)
