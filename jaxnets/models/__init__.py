"""The networks of the lecture: each a function that returns its chain of layers.

A network of the user's own is rows of plain data (`as_data.py`), which a file made (`own.py`).
"""

from collections.abc import Callable
from functools import partial

from jaxnets.config.fields import Config
from jaxnets.models import alexnet, cnn, cnn_bn, mlp, resnet
from jaxnets.models.as_data import from_rows
from jaxnets.models.chain import Chain
from jaxnets.models.precision import with_precision

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


def create_model(config: Config, num_classes: int, *, draws: bool = True) -> Chain:
    """The config's network with this many logits, after the scaling of its input.

    Args:
      config: Its model and sizes, or its layers.
      num_classes: K; a network of the user's own has been made for it.
      draws: Whether the network draws its first weights (`as_data.from_rows`).
    """
    if config.layers is not None:
        model = from_rows(config.layers, draws=draws)
    else:
        names = ("hidden", "activation", "dropout", "input_size", "init", "normalize")
        sizes = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
        model = MODELS[config.model](num_classes=num_classes, **sizes)
    if config.scaling is not None:
        model = Chain([*from_rows(config.scaling).layers, *model.layers])
    return with_precision(model, config.precision)
