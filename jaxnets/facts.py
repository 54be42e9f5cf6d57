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
    "load_data": 'jaxnets.load_dataset("mnist") loads a data set',
    "params": f"{NETWORK}.state.params has the parameters",
}
ANSWERS["__sklearn_tags__"] = 'jaxnets.Classifier("cnn") is an estimator of scikit-learn'
ANSWERS |= dict.fromkeys(("train", "Trainer", "train_on_batch"), ANSWERS["fit"])
ANSWERS |= dict.fromkeys(("test", "score"), ANSWERS["evaluate"])
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
        return to_text(self)

    def _repr_html_(self) -> str:
        return to_html(self)

    if not TYPE_CHECKING:  # Type checkers then find wrong names.

        def __getattr__(self, name):
            if not name.startswith("_") or name == "__sklearn_tags__":
                check(type(self).__name__, name)
            return getattr(super(), "__getattr__", super().__getattribute__)(name)


def size_text(shape: Iterable[int]) -> str:
    """A shape as text.

    >>> size_text((28, 28, 1))
    '28 x 28 x 1'
    """
    return " x ".join(map(str, shape))


def to_text(thing: Described) -> str:
    """The facts in one line; an object that cannot say them, as a tracer's, is only named."""
    try:
        facts = thing._facts()
    except Exception:
        return object.__repr__(thing)
    return f"{type(thing).__name__}({', '.join(f'{n}={_show(x)}' for n, x in facts.items())})"


def to_html(thing: Described) -> str:
    """The facts as a table; names come from files, so that every text is escaped."""
    cells = [(name, html.escape(_show(value))) for name, value in thing._facts().items()]
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
    table = f"<table><caption>{type(thing).__name__}</caption>{rows}</table>"
    confusion = getattr(thing, "confusion", None)
    return table if confusion is None else table + _matrix(confusion.tolist())


def _matrix(confusion: list[list[int]]) -> str:
    """The picture of a confusion matrix: a row for each label, a column for each prediction.

    A cell is blue on the diagonal and orange elsewhere; its strength is the root of its share of
    the row, so that few mistakes are seen. Up to 20 classes have their counts and numbers.
    """
    count = len(confusion)
    named, edge = count <= 20, 46
    cell = 34 if named else max(3, 600 // count)
    side, drawn = edge + cell * count + 6, []
    for row, counts in enumerate(confusion):
        middle = edge + cell * (row + 0.5)
        if named:
            drawn.append(f'<text x="{edge - 6}" y="{middle + 4}" text-anchor="end">{row}</text>')
            drawn.append(f'<text x="{middle}" y="{edge - 6}" text-anchor="middle">{row}</text>')
        for column, number in enumerate(counts):
            if number:
                x, strength = edge + cell * column, (number / sum(counts)) ** 0.5
                colour, ink = "#1f5fb0" if row == column else "#c44e00", strength > 0.7
                drawn.append(
                    f'<rect x="{x}" y="{edge + cell * row}" width="{cell - 1}" height="{cell - 1}" '
                    f'fill="{colour}" fill-opacity="{strength:.2f}"><title>label {row}, prediction '
                    f"{column}: {number}</title></rect>"
                )
                if named:
                    drawn.append(
                        f'<text x="{x + cell / 2}" y="{middle + 4}" text-anchor="middle" '
                        f'fill="{"#fff" if ink else "#222"}">{number}</text>'
                    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" role="img" '
        f'viewBox="0 0 {side} {side}" style="background:#fff;max-width:100%;height:auto" '
        'font-family="sans-serif" font-size="11" fill="#222"><title>confusion matrix: rows are '
        f'labels, columns predictions</title><text x="{edge}" y="14">prediction</text>'
        f'<text transform="translate(14 {edge + 28}) rotate(-90)">label</text>'
        f"{''.join(drawn)}</svg>"
    )


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else repr(value)
