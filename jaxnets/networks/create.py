"""The network of a config."""

from jaxnets.backprop.convolution import with_padding_first
from jaxnets.config.fields import Config
from jaxnets.models import MODELS
from jaxnets.models.chain import Chain, map_layers
from jaxnets.models.precision import with_precision
from jaxnets.networks.rows import from_rows


def create_model(config: Config, num_classes: int, *, draws: bool = True) -> Chain:
    """The config's network with this many logits, after the scaling of its input.

    Args:
      config: Its model and sizes, or its layers.
      num_classes: K; a network of the user's own has been made for it.
      draws: Whether the network draws its first weights (`rows.from_rows`).
    """
    if config.layers is not None:
        model = from_rows(config.layers, draws=draws)
    else:
        names = ("hidden", "activation", "dropout", "input_size", "init", "normalize")
        sizes = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
        model = MODELS[config.model](num_classes=num_classes, **sizes)
    if config.scaling is not None:
        model = Chain([*from_rows(config.scaling).layers, *model.layers])
    return with_precision(map_layers(model, with_padding_first), config.precision)
