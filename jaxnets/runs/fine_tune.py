"""--init_from=RUN: a new run that begins with the weights of another one."""

import os
from typing import Any

from jaxnets.display import short_path
from jaxnets.errors import UserError
from jaxnets.runs.checkpoints import path_of, steps_in
from jaxnets.runs.resume import read_config
from jaxnets.runs.run_folder import CHECKPOINTS, CONFIG, RunFolder

# What the weights were trained with and need again.
BROUGHT = ("model", "hidden", "activation", "dropout", "input_size", "normalize")


def with_weights_of_run(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags, with init_from naming the last checkpoint where it names a run.

    The run brings its network's settings, and the size to which pictures are decoded; flags that
    are given stay.

    Raises:
      UserError: The folder holds no run, or one that has not been trained.
    """
    path = os.path.expanduser(flags["init_from"])
    if not os.path.exists(os.path.join(path, CONFIG)):
        return flags
    folder = RunFolder.open(path)
    config, steps = read_config(folder), steps_in(folder.path / CHECKPOINTS)
    if not any(steps):
        raise UserError(f"init_from: expected a trained run, found no checkpoint in {path}")
    model = flags.get("model", config.model)
    brought = {name: getattr(config, name) for name in BROUGHT} if model == config.model else {}
    brought |= {"decode_size": folder.read(CONFIG).get("image_shape", [None])[0]}
    brought = {name: value for name, value in brought.items() if value is not None}
    file = short_path(str(path_of(folder.path / CHECKPOINTS, steps[-1])))
    return {**brought, **flags, "init_from": file}
