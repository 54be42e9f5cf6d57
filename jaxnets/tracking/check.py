"""Whether --track and --profile can be met, said before JAX is imported and the data are loaded."""

import importlib.util
from pathlib import Path

from jaxnets.errors import UserError
from jaxnets.runs.files import mkdir

# The package of each tracker; its extra has the tracker's name.
PACKAGES = {"tensorboard": "tensorboardX"} | {name: name for name in ("trackio", "wandb", "mlflow")}


def check(track: str, profile: str | None) -> None:
    """Raises UserError if a tracker's package is missing, or a profile cannot be written."""
    for name in set(track.split(",")) & PACKAGES.keys():
        spec = importlib.util.find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # A folder of data, such as wandb/, has no origin.
            raise UserError(
                f"track: expected the package {PACKAGES[name]} for {name}, found none: "
                f"pip install 'jaxnets[{name}]'"
            )
    if profile is not None:
        try:
            mkdir(Path(profile).expanduser())
        except OSError as error:
            raise UserError(f"profile: cannot write {profile}: {error.strerror}") from error
