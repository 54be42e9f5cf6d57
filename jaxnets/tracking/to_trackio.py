"""trackio: a database in this user's cache, which its dashboard shows; nothing leaves the machine.

TRACKIO_DIR chooses another folder; TRACKIO_SPACE_ID and TRACKIO_SERVER_URL send the runs there.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # Before huggingface_hub is imported.
import trackio  # pyright: ignore[reportMissingImports] (an extra)

from jaxnets.tracking.watch import PROJECT


class OpenTracker:
    """Writes a run into trackio's database."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        self._run = trackio.init(
            project=PROJECT, name=key or name, config=config, embed=False,
            resume="never" if key is None else "allow",
        )  # fmt: skip
        self.key, self.how_to_see = self._run.name, f"trackio show --project={PROJECT}"

    def scalars(self, values: dict[str, float], step: int) -> None:
        trackio.log(values, step=step)

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        trackio.log({name: trackio.Histogram(x) for name, x in arrays.items()}, step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        trackio.log({name: trackio.Image(pixels)}, step=step)

    def close(self, finished: bool) -> None:
        trackio.finish()
