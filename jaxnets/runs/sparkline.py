"""The losses of a run as one line of small bars."""

import math
import sys
from collections.abc import Sequence
from typing import Any, TextIO

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"  # From the lowest to the highest bar.
MOST_BARS = 40


def bars(values: Sequence[float], levels: str = BLOCKS, most: int = MOST_BARS) -> str:
    """A bar for each value, or for the mean of some neighbours; as high as its logarithm.

    Losses fall by powers of ten: on a logarithmic scale the later epochs differ, too. A value that
    is not above 0 counts as the smallest that is.

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
    """The line of a run's validation losses, else of its training losses; "" before two epochs.

    Where the stream's (stdout's) encoding lacks the blocks, the bars are ASCII.
    """
    part = "validation" if records and records[-1]["validation_loss"] is not None else "train"
    losses = [record[f"{part}_loss"] for record in records]
    if len(losses) < 2:
        return ""
    try:
        BLOCKS.encode((stream or sys.stdout).encoding)
        levels = BLOCKS
    except (UnicodeError, LookupError, TypeError):  # None, where the stream is no file.
        levels = ASCII
    start, end = f"{part} loss {losses[0]:.3g} ", f" {losses[-1]:.3g}\n"
    most = max(1, min(MOST_BARS, width - len(start) - len(end)))
    return f"{start}{bars(losses, levels, most)}{end}"
