"""The networks of the lecture: each is a function that returns its chain of layers.

`networks/` creates the network of a config: one of these, or one of the user's own.
"""

from collections.abc import Callable
from functools import partial

from jaxnets.base.suggestions import is_no_function
from jaxnets.models import alexnet, cnn, cnn_bn, mlp, resnet
from jaxnets.models.chain import Chain

# The variants are arguments, not classes; the recipes in config/recipes.py give their sizes.
MODELS: dict[str, Callable[..., Chain]] = {
    "softmax": partial(mlp.mlp, hidden=()),
    "mlp_sequential": mlp.mlp,
    "mlp_functional": mlp.mlp,
    "mlp": mlp.mlp,
    "mlp_handwritten": mlp.mlp_handwritten,
    "cnn": cnn.cnn,
    "cnn_bn": cnn_bn.cnn_bn,
    "cnn_tiny": cnn_bn.cnn_tiny,
    "alexnet": alexnet.alexnet,
    "alexnet_paper": alexnet.alexnet_paper,
    "alexnet_small": alexnet.alexnet_small,
    "alexnet_small_bn": partial(alexnet.alexnet_small, batch_norm=True),
    "resnet20": resnet.resnet20,
}

is_no_function(__name__)
