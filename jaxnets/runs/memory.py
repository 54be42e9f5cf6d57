"""Whether a limited memory is enough to train a network, known before any of it is taken."""

import functools

import jax
import numpy as np

from jaxnets.experiment import Experiment, init_state
from jaxnets.system import check_memory, memory_limits

# How often each is counted: the training images; the state (the old, the new, gradients, the one
# being saved); the outputs of layers with parameters, with what is computed of them, and the
# compiler. Of ulimit -d alexnet_small took 609 MB at batch 32, and aborted at 700.
IMAGES, STATES, OUTPUTS = 2, 4, 8


def check_enough_memory(experiment: Experiment, runs: int = 1) -> None:
    """Raises RunFailedError where a limit is too low for so many runs side by side."""
    if not memory_limits():
        return
    model, data = experiment.model, experiment.data
    init = functools.partial(init_state, model, experiment.optimizer, data)
    try:
        state = jax.eval_shape(init, jax.random.key(0))
    except ZeroDivisionError:  # The images are too small, which Experiment.init_state says.
        return
    images = jax.ShapeDtypeStruct((experiment.loader.batch_size, *data.image_shape), np.float32)
    forward = functools.partial(model.apply, capture_intermediates=True, mutable="intermediates")
    _, outputs = jax.eval_shape(forward, {"params": state.params}, images)
    in_memory = isinstance(data.train.images, np.ndarray)
    more = IMAGES * data.train.images.nbytes if in_memory else 0
    check_memory(more + runs * (STATES * _num_bytes(state) + OUTPUTS * _num_bytes(outputs)))


def _num_bytes(tree: object) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
