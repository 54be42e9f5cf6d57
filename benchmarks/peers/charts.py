"""The figures of the page: bars of ratios, and curves of what grows."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.peers.ways import OURS
from jaxnets.report.svg import Figure

WIDTH, ROW, LEFT = 640, 24, 290  # Pixels.


class Bar(NamedTuple):
    """A row of a figure."""

    label: str
    value: float
    text: str  # Beside the bar.


def bars(name: str, title: str, rows: Sequence[Bar], reference: str) -> Figure:
    """Horizontal bars from 0, and a line at 1, which is the reference."""
    end = max([1.0, *(bar.value for bar in rows)])
    unit = (WIDTH - LEFT - 90) / end
    alt = "; ".join(f"{bar.label}: {bar.text}" for bar in rows)
    figure = Figure(name, WIDTH, 34 + ROW * len(rows), title, alt)
    figure.text(LEFT + unit, 14, f"1 = {reference}", text_anchor="middle", fill="soft")
    for number, bar in enumerate(rows):
        y, ours = 24 + ROW * number, bar.label.startswith(OURS) or bar.label.endswith("by hand")
        figure.text(LEFT - 8, y + 15, bar.label, text_anchor="end")
        figure.rect(LEFT, y + 3, unit * bar.value, ROW - 6, fill="c1" if ours else "c2")
        figure.text(LEFT + unit * bar.value + 6, y + 15, bar.text)
    bottom = 24 + ROW * len(rows)
    figure.line(LEFT + unit, 20, LEFT + unit, bottom, stroke="ink", stroke_dasharray="4 3")
    return figure
