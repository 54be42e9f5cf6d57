"""Reprs that show facts instead of arrays, and hints for wrong attribute names.

Nothing here imports JAX.
"""

import difflib
import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

NETWORK = 'jaxnets.Network("cnn")'
# Attributes that users of other libraries look for, and the ones that jaxnets has.
ANSWERS = {
    "fit": f"{NETWORK}.fit() trains",
    "evaluate": f"{NETWORK}.evaluate() tests",
    "predict": f"{NETWORK}.predict(pictures) gives probabilities",
    "summary": f"{NETWORK}.summary() prints the layers",
    "save": f"{NETWORK}.save(DIR) writes a run folder",
    "load": "jaxnets.load(DIR) reads a run folder",
    "compile": f'optimizer, loss and learning_rate are settings: {NETWORK[:-1]}, optimizer="adam")',
    "history": f"{NETWORK}.fit() returns it",
    "create_model": f"{NETWORK} makes a network",
    "chain": f"{NETWORK}.experiment.model is its chain of layers",
    "load_data": 'jaxnets.load_dataset("mnist") loads a data set',
    "params": f"{NETWORK}.state.params has the parameters",
    "gradients": f"{NETWORK}.gradients(x, y) gives them by hand, by name",
    "logits": f"{NETWORK}(x) gives the logits",
    "plot": "jaxnets.plot(history) draws the curves",
    "export": "net.save(DIR) writes a run folder; the command jaxnets export DIR exports it",
    "add": "a chain lists its layers: jaxnets.Network(jaxnets.Chain([flatten, nn.Dense(10)]))",
    "to": f'the device is a setting: {NETWORK[:-1]}, platform="gpu")',
}
ANSWERS["__sklearn_tags__"] = 'jaxnets.Classifier("cnn") is an estimator of scikit-learn'
ANSWERS |= dict.fromkeys(("train", "Trainer", "train_on_batch"), ANSWERS["fit"])
ANSWERS |= dict.fromkeys(("test", "score", "eval"), ANSWERS["evaluate"])
ANSWERS |= dict.fromkeys(("grad", "backward", "loss_and_grad"), ANSWERS["gradients"])
ANSWERS |= dict.fromkeys(("forward", "call", "apply"), ANSWERS["logits"])
ANSWERS |= dict.fromkeys(("cuda", "cpu", "gpu"), ANSWERS["to"])
ANSWERS |= dict.fromkeys(("predict_proba", "classify"), ANSWERS["predict"])
ANSWERS |= dict.fromkeys(("save_weights", "save_model", "to_file"), ANSWERS["save"])
ANSWERS |= dict.fromkeys(("load_model", "load_weights", "from_pretrained"), ANSWERS["load"])
ANSWERS |= dict.fromkeys(
    ("Model", "Sequential", "create_state", "model", "nn"), ANSWERS["create_model"]
)
ANSWERS |= dict.fromkeys(("layers", "count_params", "describe"), ANSWERS["summary"])
ANSWERS |= dict.fromkeys(("datasets", "mnist"), ANSWERS["load_data"])
ANSWERS |= dict.fromkeys(("weights", "get_weights", "state_dict", "parameters"), ANSWERS["params"])


def check(owner: str, name: str, known: Sequence[str] = ()) -> None:
    """Raises the error for an attribute that does not exist, if it is clear what is meant.

    >>> check("Chain", "summary")
    Traceback (most recent call last):
    AttributeError: Chain has no "summary"; jaxnets.Network("cnn").summary() prints the layers
    """
    if name in ANSWERS:
        raise AttributeError(f'{owner} has no "{name}"; {ANSWERS[name]}')
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.65):
        raise AttributeError(f'{owner} has no "{name}"; did you mean {near[0]}?')


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
            # One of its own is a property that failed, whose error the last line raises again.
            if name not in known and (name[0] != "_" or name == "__sklearn_tags__"):
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
