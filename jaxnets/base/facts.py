"""Reprs that show facts instead of arrays, and hints for wrong attribute names.

Nothing here imports JAX.
"""

import difflib
import html
import sys
import types
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

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


def check(owner: str, name: str, known: Sequence[str] = ()) -> None:
    """Raises the error for an attribute that does not exist, if it is clear what is meant.

    >>> check("Chain", "layers")
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


class Described:
    """Shows facts instead of arrays, and suggests the right attribute for a wrong one."""

    def _facts(self) -> dict[str, Any]:
        """The names and values that a repr shows."""
        raise NotImplementedError

    def __repr__(self) -> str:
        try:
            facts = self._facts()
        except Exception:  # A tracer has none.
            return object.__repr__(self)
        return f"{type(self).__name__}({', '.join(f'{n}={_show(x)}' for n, x in facts.items())})"

    def _repr_html_(self) -> str:
        # Names come from files, so every text is escaped.
        cells = [(name, html.escape(_show(value))) for name, value in self._facts().items()]
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"

    if not TYPE_CHECKING:  # Type checkers then find wrong names.

        def __getattr__(self, name):
            known = [found for found in dir(self) if not found.startswith("_")]
            # A known name is a property that failed, whose error the last line raises again.
            if name not in known and name[0] != "_":
                check(type(self).__name__, name, known)
            return getattr(super(), "__getattr__", super().__getattribute__)(name)


def size_text(shape: Iterable[int]) -> str:
    """A shape as text.

    >>> size_text((28, 28, 1))
    '28 x 28 x 1'
    """
    return " x ".join(map(str, shape))


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else repr(value)
