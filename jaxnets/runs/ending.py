"""The last lines of a run."""

import math
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np

from jaxnets.base.display import PAGE, PICTURES, REPORT, columns, command_line, printable, program
from jaxnets.base.language import _
from jaxnets.config.fields import Config
from jaxnets.data import planes
from jaxnets.metrics import Metrics
from jaxnets.runs.progress import duration

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"  # From the lowest to the highest bar.
MOST_BARS = 40


def seconds_of(records: Sequence[Any]) -> tuple[float, float]:
    """The seconds that all epochs of a run spent on training and on validation."""
    names = ("seconds", "validation_seconds")  # The second is None without validation images.
    trained, validated = (sum(record[name] or 0.0 for record in records) for name in names)
    return trained, validated


def ending(
    test: Metrics | None,
    names: Sequence[str],
    config: Config,
    where: str,
    records: Sequence[Any],
    *,
    ours: bool = True,
) -> str:
    """The last lines of a run: errors, time, its folder `where` and commands to use it.

    Without a test they name the command that tests. At chance level a note names settings, unless
    rules other than ours gave the gradients.
    """
    trained, validated = seconds_of(records)
    took = duration(trained)
    if validated:
        took = _("{}, validated in {}", took, duration(validated))
    are_points = config.dataset in planes.SETS
    report, predict, page, evaluate = (
        printable(command_line([*program(name), where]))
        for name in ("report", "predict", "page", "evaluate")
    )
    if test is None:
        line = _("trained in {}; the test images are still closed: {}", took, evaluate) + "\n"
    else:
        line = _tested(test, names, config, took, are_points=are_points, ours=ours)
    if sys.stdout.isatty():
        line = loss_line(records, columns()) + line
    line += _("run folder: {}", printable(where))
    use = _(PAGE, page) if are_points else _(PICTURES, f"{predict} PICTURE")
    return "\n".join([line, _(REPORT, report), use])


def _tested(
    test: Metrics,
    names: Sequence[str],
    config: Config,
    took: str,
    *,
    are_points: bool,
    ours: bool,
) -> str:
    """The number of errors of the test and, at chance level, a note."""
    wrong, count = int(test.count - test.correct), int(test.count)
    numbers = f"{wrong:,}", f"{count:,}", took
    text = _("{} of {} test images are wrong; trained in {}", *numbers)
    if are_points:
        text = _("{} of {} test points are wrong; trained in {}", *numbers)
    counts = np.asarray(test.confusion).sum(axis=1)
    if test.correct > counts.max() or not ours:
        return f"{text}\n"
    note = _(
        "note: test accuracy {} is no better than always answering {} ({}): try another "
        "--learning_rate than {}, or more --epochs than {}",
        f"{test.accuracy:.4f}",
        printable(names[int(counts.argmax())]),
        f"{counts.max() / counts.sum():.4f}",
        f"{config.learning_rate:g}",
        config.epochs,
    )
    return f"{text}\n{note}\n"


def bars(values: Sequence[float], levels: str = BLOCKS, most: int = MOST_BARS) -> str:
    """A bar for each value, or for the mean of some neighbours, on a logarithmic scale.

    Losses fall by powers of ten: on a logarithmic scale the later epochs also differ. Values of 0
    or less count as the smallest positive value.

    >>> bars([2.3, 0.6, 0.3, 0.2, 0.2])
    '█▄▂▁▁'
    """
    least = min((value for value in values if value > 0), default=1.0)
    logs = [math.log(max(value, least)) for value in values]
    if len(logs) > most:
        ends = [len(logs) * bar // most for bar in range(most + 1)]
        parts = [logs[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        logs = [sum(part) / len(part) for part in parts]
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    return "".join(levels[round((x - low) / span * (len(levels) - 1))] for x in logs)


def loss_line(records: Sequence[dict[str, Any]], width: int, stream: TextIO | None = None) -> str:
    """The line of a run's validation losses, or else training losses; "" before two epochs.

    If the stream's (stdout's) encoding lacks the blocks, the bars are ASCII.
    """
    part = "validation" if records and records[-1]["validation_loss"] is not None else "train"
    losses = [record[f"{part}_loss"] for record in records]
    if len(losses) < 2:
        return ""
    try:
        BLOCKS.encode((stream or sys.stdout).encoding)
        levels = BLOCKS
    except (UnicodeError, LookupError, TypeError):  # None, if the stream is not a file.
        levels = ASCII
    start, end = f"{part} loss {losses[0]:.3g} ", f" {losses[-1]:.3g}\n"
    most = max(1, min(MOST_BARS, width - len(start) - len(end)))
    return f"{start}{bars(losses, levels, most)}{end}"
