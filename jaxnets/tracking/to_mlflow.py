"""MLflow: its database in the working folder, or the server that MLFLOW_TRACKING_URI names."""

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Else its use is sent home.
import mlflow  # pyright: ignore[reportMissingImports] (an extra)

from jaxnets.tracking.watch import PROJECT


class OpenTracker:
    """Writes a run into MLflow's store."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=key, run_name=name if key is None else None)
        self.key, self.how_to_see = run.info.run_id, "mlflow ui"
        if key is None:
            mlflow.log_params(config)

    def scalars(self, values: dict[str, float], step: int) -> None:
        mlflow.log_metrics(values, step=step)

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        """MLflow has no histograms: it gets each array's mean and standard deviation."""
        statistics = {f"{name}/mean": float(x.mean()) for name, x in arrays.items()}
        statistics |= {f"{name}/std": float(x.std()) for name, x in arrays.items()}
        mlflow.log_metrics(statistics, step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        mlflow.log_image(pixels, f"{name}.png")

    def close(self, finished: bool) -> None:
        mlflow.end_run("FINISHED" if finished else "KILLED")
