"""The history of a training: a list of the epochs' records, with columns by name."""

from typing import Any, SupportsIndex, overload

from jaxnets.base.described import Described
from jaxnets.base.errors import did_you_mean

# Keras's names of the columns.
KERAS = {
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "validation_loss",
    "val_accuracy": "validation_accuracy",
}


class History(Described, list[dict[str, Any]]):
    """The records of metrics.jsonl, one for each epoch.

    A name gives a column: one of Keras's names (loss, accuracy, val_loss, val_accuracy), or a
    record's own name.

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
        """The columns of Keras's History, by its names; val_ only with validation images."""
        return {
            name: self[name] for name in KERAS if self and self[-1].get(KERAS[name]) is not None
        }

    @property
    def last(self) -> dict[str, float]:
        """The last epoch's numbers by Keras's names, and its learning rate; empty at first."""
        names = [*self.history, *(["learning_rate"] if self else [])]
        return {name: self[name][-1] for name in names if self[name][-1] is not None}

    @property
    def epoch(self) -> list[int]:
        """The epochs, counted from 0 as Keras does."""
        return [record["epoch"] - 1 for record in self]

    def _repr_fields(self) -> dict[str, Any]:
        return {"epochs": len(self)} | {name: values[-1] for name, values in self.history.items()}
