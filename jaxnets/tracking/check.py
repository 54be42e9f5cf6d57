"""Whether --track and --profile can be met, said before JAX is imported and the data are loaded."""

import importlib.util
import os
from pathlib import Path

from jaxnets.errors import UserError, not_installed

# The package of each tracker; its extra has the tracker's name.
PACKAGES = {"tensorboard": "tensorboardX"} | {name: name for name in ("trackio", "wandb", "mlflow")}


def check(track: str, profile: str | None) -> None:
    """Raises UserError if a tracker's package is missing, or a profile cannot be written."""
    for name in set(track.split(",")) & PACKAGES.keys():
        spec = importlib.util.find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # A folder of data, such as wandb/, has no origin.
            raise not_installed(PACKAGES[name], name)
    if profile is not None:
        try:
            path = Path(profile).expanduser().absolute()
            there = next(parent for parent in (path, *path.parents) if parent.exists())
            can_be_written = there.is_dir() and os.access(there, os.W_OK)
        except (OSError, RuntimeError):  # A name that is too long; ~ of no user.
            can_be_written = False
        if not can_be_written:
            raise UserError(f"profile: expected a folder that can be written, got {profile}")
