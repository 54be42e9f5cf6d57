"""The networks of the lecture, each a function that returns its chain of layers."""

import functools
from collections.abc import Callable

from jaxnets.models.alexnet import alexnet, alexnet_paper, alexnet_small
from jaxnets.models.chain import Chain
from jaxnets.models.cnn import cnn
from jaxnets.models.mlp import mlp, mlp_handwritten

# The variants are arguments, not classes; sizes come from the presets in config.py.
MODELS: dict[str, Callable[..., Chain]] = {
    "softmax": functools.partial(mlp, hidden=()),
    "mlp_sequential": mlp,
    "mlp_functional": mlp,
    "mlp": mlp,
    "mlp_handwritten": mlp_handwritten,
    "cnn": cnn,
    "alexnet": alexnet,
    "alexnet_paper": alexnet_paper,
    "alexnet_ungrouped": functools.partial(alexnet_paper, groups=1),
    "alexnet_small": alexnet_small,
}
