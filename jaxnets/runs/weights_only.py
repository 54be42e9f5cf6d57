"""--weights_only: what a finished run keeps of its checkpoints."""

import numpy as np

from jaxnets.runs import checkpoints
from jaxnets.runs.run_folder import CHECKPOINTS, RunFolder
from jaxnets.training.step import Params


def keep_weights_only(run: RunFolder, params: Params) -> None:
    """Leaves a finished run one checkpoint, which holds nothing but its parameters."""
    run.check_in_place()
    folder, (*old, last) = run.path / CHECKPOINTS, run.steps
    named = checkpoints.named_leaves({"params": params})
    arrays = {name: np.array(leaf, order="C") for name, leaf in named.items()}
    checkpoints.write(checkpoints.path_of(folder, last), arrays)
    for step in old:
        checkpoints.path_of(folder, step).unlink()
