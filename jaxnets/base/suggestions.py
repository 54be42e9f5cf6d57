"""Suggestions for names that jaxnets does not have: Keras's, PyTorch's, and misspelt ones.

Nothing here imports JAX.
"""

import difflib
import sys
import types
from collections.abc import Sequence

NETWORK = 'jaxnets.Network("cnn")'
# Names of Keras and PyTorch, and what jaxnets has instead.
ANSWERS = {
    "Sequential": f"{NETWORK} makes a network",
    "train": f"{NETWORK}.fit() trains",
    "compile": f'optimizer, loss and learning_rate are settings: {NETWORK[:-1]}, optimizer="adam")',
    "layers": f"{NETWORK}.summary() prints the layers",
    "to": f'the device is a setting: {NETWORK[:-1]}, platform="gpu")',
    "plot": "jaxnets.plot(history) draws the curves of the history that fit returns",
    "count_params": f"{NETWORK}.summary() prints their number",
    "freeze": f'all layers train; {NETWORK[:-1]}, init_from="runs/x") starts from its weights',
    "models": "`jaxnets train --help` lists the networks",
    "runs": '`jaxnets runs` lists the runs; jaxnets.load("runs/x") reads one',
}
PARAMS = "state_dict", "weights", "get_weights", "parameters", "named_parameters", "params"
ANSWERS |= dict.fromkeys(PARAMS, f"{NETWORK}.state.params has the parameters")
LAYERS = "Dense", "Linear", "Conv", "Conv2D", "Conv2d", "Dropout", "Embed", "Embedding"
ANSWERS |= dict.fromkeys(
    LAYERS, "layers are Flax's, as flax.linen.Dense; jaxnets.Chain([...]) makes a network of them"
)
ANSWERS |= dict.fromkeys(
    ("to_onnx", "export"), "net.save(DIR) saves a run, and `jaxnets export DIR` writes it as ONNX"
)
ANSWERS |= dict.fromkeys(
    ("get_params", "set_params"), 'jaxnets.Classifier("cnn") has the parameters of scikit-learn'
)
ANSWERS |= dict.fromkeys(("trainable", "requires_grad_"), ANSWERS["freeze"])
ANSWERS |= dict.fromkeys(("list_models", "available_models"), ANSWERS["models"])
ANSWERS["list_runs"] = ANSWERS["runs"]


def suggest(owner: str, name: str, known: Sequence[str] = ()) -> None:
    """Raises the error for an attribute that does not exist, if it is clear what is meant.

    >>> suggest("Chain", "layers")
    Traceback (most recent call last):
    AttributeError: Chain has no "layers"; jaxnets.Network("cnn").summary() prints the layers
    """
    if name in ANSWERS:
        raise AttributeError(f'{owner} has no "{name}"; {ANSWERS[name]}')
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.65):
        raise AttributeError(f'{owner} has no "{name}"; did you mean {near[0]}?')


class _Room(types.ModuleType):
    """A module whose name a user may take for a function's."""

    def __call__(self, *_arguments: object, **_settings: object) -> None:
        name = self.__name__.rpartition(".")[2]
        raise TypeError(f"{self.__name__} is a module, no function; {ANSWERS[name]}")


def is_no_function(module: str) -> None:
    """Lets a module that is called say what there is instead; ANSWERS has its name."""
    sys.modules[module].__class__ = _Room
