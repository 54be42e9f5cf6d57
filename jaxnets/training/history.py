"""The history of a training: a list of each epoch's record, and columns by name."""

from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

from jaxnets.display import four_digits
from jaxnets.drawing.charts import Series, curves, percent, plain
from jaxnets.drawing.svg import Figure
from jaxnets.errors import UserError, did_you_mean
from jaxnets.facts import Described

# Keras' names of the columns.
KERAS = {
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "validation_loss",
    "val_accuracy": "validation_accuracy",
}
SHOWN = ("epoch", *KERAS, "learning_rate", "seconds")


class History(Described, list[dict[str, Any]]):
    """The records of metrics.jsonl, one an epoch.

    A name gives a column: Keras' (loss, accuracy, val_loss, val_accuracy) or a record's own.

    >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
    >>> history["loss"], history["train_loss"], history[-1]["epoch"]
    ([0.5, 0.25], [0.5, 0.25], 2)
    """

    @overload
    def __getitem__(self, key: SupportsIndex) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> "History": ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...

    def __getitem__(
        self, key: str | SupportsIndex | slice
    ) -> "list[Any] | dict[str, Any] | History":
        if isinstance(key, slice):
            return History(super().__getitem__(key))
        if not isinstance(key, str):
            return super().__getitem__(key)
        name = KERAS.get(key, key)
        if self and name not in self[0]:
            known = [*self.history, *self[0]]
            raise KeyError(f"{key}{did_you_mean(key, known)} (known: {', '.join(known)})")
        return [record[name] for record in self]

    @property
    def history(self) -> dict[str, list[Any]]:
        """The columns that Keras' History has, by its names; val_ only with validation images."""
        return {
            name: self[name] for name in KERAS if self and self[-1].get(KERAS[name]) is not None
        }

    @property
    def last(self) -> dict[str, float]:
        """The last epoch's numbers by Keras' names, and its learning rate; none before an epoch."""
        names = [*self.history, *(["learning_rate"] if self else [])]
        return {name: self[name][-1] for name in names if self[name][-1] is not None}

    @property
    def epoch(self) -> list[int]:
        """The epochs, counted from 0 as Keras does."""
        return [record["epoch"] - 1 for record in self]

    def __repr__(self) -> str:
        last = {name: values[-1] for name, values in self.history.items()}
        texts = [f"{name}={four_digits(value)}" for name, value in last.items()]
        return f"History({', '.join([f'epochs={len(self)}', *texts])})"

    def _repr_html_(self) -> str:
        """The curves of loss and accuracy, and a table with a row an epoch."""
        names = {name: KERAS.get(name, name) for name in SHOWN}
        shown = [name for name in names if self and self[-1].get(names[name]) is not None]
        rows = ["".join(f"<td>{record[names[name]]:.4g}</td>" for name in shown) for record in self]
        head = "".join(f"<th>{name}</th>" for name in shown)
        drawn = plot(self).standalone() if len(self) > 1 else ""
        return f"{drawn}<table>{''.join(f'<tr>{row}</tr>' for row in [head, *rows])}</table>"


def plot(history: Sequence[dict[str, Any]]) -> Figure:
    """Draws loss and accuracy over the epochs, of training and validation.

    Args:
      history: What `Network.fit` returns, or `jaxnets.load(DIR).history`.

    Returns:
      A figure, which a notebook shows; `plot(history).save("curves.svg")` writes a file, a .png
      too.

    Raises:
      UserError: There is no epoch yet.
    """
    if not isinstance(history, list) or not history:
        raise UserError("plot: expected the history of an epoch or more, as net.fit() returns it")
    epochs, drawn = [record["epoch"] for record in history], []
    for name, show in (("loss", plain), ("accuracy", percent)):
        parts = {
            part: [r.get(f"{part}_{name}") for r in history] for part in ("train", "validation")
        }
        series = [
            Series(part, epochs, values, number)
            for number, (part, values) in enumerate(parts.items())
            if any(value is not None for value in values)
        ]
        if not series:  # A regression has no accuracy.
            continue
        last = [f"{one.label} {show(one.y[-1])}" for one in series if one.y[-1] is not None]
        alt = f"{name} after epoch {epochs[-1]}: {', '.join(last)}."
        drawn.append(curves(name, name, alt, series, x_label="epoch", show=show))
    return Figure.grid("history", f"after epoch {epochs[-1]}", [drawn])
