"""Whether --track can work. Nothing here imports JAX or a tracker."""

import importlib.util

from jaxnets.base.errors import not_installed

# Each tracker's package; its extra has the tracker's name.
PACKAGES = dict(tensorboard="tensorboardX", wandb="wandb", mlflow="mlflow")


def check(track: str) -> None:
    """Checks whether --track can work, before JAX is imported and the data are loaded.

    Raises:
      UserError: A tracker's package is missing.
    """
    for name in PACKAGES.keys() & set(track.split(",")):
        spec = importlib.util.find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # A folder of data, such as wandb/, has no origin.
            raise not_installed(PACKAGES[name], name)
