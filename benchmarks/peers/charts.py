"""The figures of the page: bars of ratios, and curves of what grows."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxnets.drawing.svg import Figure, text_width

WIDTH, ROW, LEFT = 380, 38, 12  # Pixels; a phone shows about as many.


class Bar(NamedTuple):
    """A row of a figure."""

    label: str
    value: float
    text: str  # Beside the bar.
    is_ours: bool


def bars(name: str, title: str, rows: Sequence[Bar], reference: str) -> Figure:
    """Horizontal bars from 0, and a line at 1, which is the reference."""
    end = max([1.0, *(bar.value for bar in rows)])
    unit = (WIDTH - LEFT - 56) / end
    alt = "; ".join(f"{bar.label}: {bar.text}" for bar in rows)
    figure = Figure(name, WIDTH, 30 + ROW * len(rows), title, alt)
    side = "start" if unit < WIDTH / 3 else "middle" if unit < 0.8 * WIDTH else "end"
    figure.text(LEFT + unit, 14, f"1 = {reference}", text_anchor=side, fill="soft")
    for number, bar in enumerate(rows):
        y = 22 + ROW * number
        figure.text(LEFT, y + 13, bar.label)
        figure.rect(LEFT, y + 18, unit * bar.value, 14, fill="c1" if bar.is_ours else "c2")
        end_of_bar = unit * bar.value
        if end_of_bar < unit < end_of_bar + 12 + text_width(bar.text, 12):
            end_of_bar = unit  # The line would go through the number.
        figure.text(LEFT + end_of_bar + 6, y + 29, bar.text)
        figure.line(LEFT + unit, y + 16, LEFT + unit, y + 34, stroke="ink", stroke_width=2)
    return figure
