"""Weights & Biases: files in ./wandb, which `wandb sync` sends; WANDB_MODE=online sends at once."""

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # Else its own faults are sent home.
import wandb  # pyright: ignore[reportMissingImports] (an extra)

from jaxnets.tracking.watch import PROJECT


class OpenTracker:
    """Writes a run for Weights & Biases."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
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
        values = {name: wandb.Histogram(x.ravel().tolist()) for name, x in arrays.items()}
        self._run.log({**values, "step": step})

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._run.log({name: wandb.Image(pixels), "step": step})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
