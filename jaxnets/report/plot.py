"""Figures of a history and of metrics: `jaxnets.plot`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.base.errors import UserError
from jaxnets.drawing.charts import Caption, Scale, Series, curves, matrix, percent, short_number
from jaxnets.drawing.svg import Figure
from jaxnets.metrics import Metrics


def plot(of: Sequence[dict[str, Any]] | Metrics) -> Figure:
    """Draws a history's curves of loss and accuracy, or the confusion matrix of metrics.

    Args:
      of: The history that `Network.fit` returns, or `jaxnets.load(DIR).history`; or the metrics
        that `Network.evaluate` returns.

    Returns:
      A figure, which a notebook shows. `plot(history).save("curves.svg")` writes it to a file,
      which may also be a .png.

    Raises:
      UserError: No epoch has ended yet.
    """
    if isinstance(of, Metrics):
        return _confusion(of)
    if not isinstance(of, list) or not of:
        raise UserError("plot: expected the history of an epoch or more, as net.fit() returns it")
    return _learning(of)


def _learning(history: Sequence[dict[str, Any]]) -> Figure:
    """Loss and accuracy over the epochs, of training and validation."""
    epochs, drawn = [record["epoch"] for record in history], []
    for name, show in (("loss", short_number), ("accuracy", percent)):
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
        drawn.append(curves(Caption(name, name, alt), series, x=Scale("epoch"), y=Scale(show=show)))
    return Figure.grid("history", f"after epoch {epochs[-1]}", [drawn])


def _confusion(metrics: Metrics) -> Figure:
    """The confusion matrix; the classes are named by their numbers."""
    counts = np.asarray(metrics.confusion)
    alt = f"{metrics.correct} of {metrics.count} are right."
    return matrix(
        Caption("confusion", "confusion matrix", alt),
        counts,
        [str(number) for number in range(len(counts))],
        row_label="label",
        column_label="prediction",
    )
