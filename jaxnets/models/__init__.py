"""The networks of the lecture, each a function that returns its chain of layers."""

import functools
from collections.abc import Callable
from typing import Any

from jaxnets.models.chain import Chain
from jaxnets.models.cnn import cnn
from jaxnets.models.mlp import mlp, mlp_handwritten


def _alexnet(name: str, **sizes: Any) -> Chain:
    """A network of alexnet.py, which only its own runs load."""
    from jaxnets.models import alexnet

    return getattr(alexnet, name)(**sizes)


# The variants are arguments, not classes; the recipes in config/recipes.py give their sizes.
MODELS: dict[str, Callable[..., Chain]] = {
    "softmax": functools.partial(mlp, hidden=()),
    "mlp_sequential": mlp,
    "mlp_functional": mlp,
    "mlp": mlp,
    "mlp_handwritten": mlp_handwritten,
    "cnn": cnn,
    "alexnet": functools.partial(_alexnet, "alexnet"),
    "alexnet_paper": functools.partial(_alexnet, "alexnet_paper"),
    "alexnet_ungrouped": functools.partial(_alexnet, "alexnet_paper", groups=1),
    "alexnet_small": functools.partial(_alexnet, "alexnet_small"),
}
