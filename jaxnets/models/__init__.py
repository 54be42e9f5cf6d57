"""The networks of the lecture, each a function that returns its chain of layers."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from jaxnets.models.chain import Chain


def _create(name: str, **sizes: Any) -> Chain:
    """The network of a function, as "file.function" of this folder: only then is it loaded."""
    file, function = name.split(".")
    return getattr(importlib.import_module(f"jaxnets.models.{file}"), function)(**sizes)


# The variants are arguments, not classes; the recipes in config/recipes.py give their sizes.
MODELS: dict[str, Callable[..., Chain]] = {
    "softmax": partial(_create, "mlp.mlp", hidden=()),
    "mlp_sequential": partial(_create, "mlp.mlp"),
    "mlp_functional": partial(_create, "mlp.mlp"),
    "mlp": partial(_create, "mlp.mlp"),
    "mlp_handwritten": partial(_create, "mlp.mlp_handwritten"),
    "cnn": partial(_create, "cnn.cnn"),
    "cnn_bn": partial(_create, "cnn_bn.cnn_bn"),
    "cnn_tiny": partial(_create, "cnn_bn.cnn_tiny"),
    "alexnet": partial(_create, "alexnet.alexnet"),
    "alexnet_paper": partial(_create, "alexnet.alexnet_paper"),
    "alexnet_ungrouped": partial(_create, "alexnet.alexnet_paper", groups=1),
    "alexnet_small": partial(_create, "alexnet.alexnet_small"),
    "alexnet_small_bn": partial(_create, "alexnet.alexnet_small", batch_norm=True),
}
