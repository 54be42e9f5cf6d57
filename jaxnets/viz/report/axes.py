"""Axes of figures, and numbers as they stand there."""

import math
from collections.abc import Sequence
from typing import NamedTuple

LARGEST = 1e300  # Larger numbers stand at the edge: a margin around them would overflow.
LOG_RANGE = 30  # From this ratio on, positive numbers stand on a logarithmic axis.


class Axis(NamedTuple):
    """The scale of numbers between two pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, x = self.low, self.high, _within(value)
        if self.log:
            low, high, x = (math.log(max(v, 1e-300)) for v in (low, high, x))
        return self.start + (self.end - self.start) * (x - low) / ((high - low) or 1.0)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round numbers on the axis; of one epoch there is one.

        >>> Axis(1, 1, 0, 100).ticks(), Axis(0, 1, 0, 100).ticks(2)
        ([1], [0.0, 0.5, 1.0])
        """
        if self.low == self.high:
            return [self.low]
        if self.log and self.high > 4 * self.low:
            ends = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            found: list[float] = []
            for factors in ((1, 2, 5), (1, 3), (1,)):
                powers = range(ends[0], ends[1] + 1)
                found = [factor * 10.0**power for power in powers for factor in factors]
                found = [x for x in found if self.low * 0.999 <= x <= self.high * 1.001]
                if len(found) <= wanted + 1:
                    break
            return found[:: max(1, -(-len(found) // (wanted + 1)))]
        step = _round_up((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + number) * step for number in range(count)]


def axis_of(values: Sequence[float], start: float, end: float, *, log: bool | None = None) -> Axis:
    """An axis that the values fill; it does not begin at 0, so that differences show."""
    low, high = _within(min(values, default=0.0)), _within(max(values, default=1.0))
    if log is None:
        log = low > 0 and high / low > LOG_RANGE
    if log:
        return Axis(low / 1.15, high * 1.15, start, end, True)
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    lowest = 0.0 if low >= 0 else -math.inf  # A loss is never below it.
    return Axis(max(low - margin, lowest), high + margin, start, end)


def _within(value: float) -> float:
    return max(-LARGEST, min(value, LARGEST))


def _round_up(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, ..."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def plain(value: float) -> str:
    """A number in a few characters.

    >>> plain(12345.6), plain(0.25), plain(1e-7), plain(3)
    ('12,346', '0.25', '1e-07', '3')
    """
    if abs(value) >= 1000 and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share as percentage.

    >>> percent(0.9923), percent(1.0)
    ('99.23 %', '100 %')
    """
    return f"{100 * value:.4g} %"
