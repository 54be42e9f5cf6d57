"""The picture of a network: its layers from above with shapes, parameters and arithmetic."""

from collections.abc import Sequence

from jaxnets.drawing.charts import plain
from jaxnets.drawing.svg import Figure, shortened
from jaxnets.viz.summary import Row, totals

WIDTH, ROW, TOP = 640, 46, 30
# The left edges of the columns: glyph, name, shape, and the bars of parameters and FLOPs.
GLYPH, NAME, SHAPE, PARAMS, FLOPS = 34, 74, 240, 350, 500
BAR = 110
MAPS = 4  # Squares of a glyph, at most.


def network_figure(title: str, rows: Sequence[Row], image_shape: Sequence[int]) -> Figure:
    """Draws the rows of `summary`, the image first."""
    params, flops = totals(rows)
    alt = f"{title}: " + "; ".join(
        f"{row.layer}, {_shape(row.shape)}, {row.params:,} parameters" for row in rows
    )
    height = TOP + ROW * (len(rows) + 1) + 40
    figure = Figure(title, WIDTH, height, title, alt)
    heads = (NAME, "layer"), (SHAPE, "output"), (PARAMS, "parameters"), (FLOPS, "FLOPs an image")
    for x, text in heads:
        figure.text(x, 18, text, fill="soft")
    sides = [image_shape[0], *(row.shape[0] for row in rows if len(row.shape) == 3)]
    everything = [Row("image", tuple(image_shape), 0, 0), *rows]
    for number, row in enumerate(everything):
        y = TOP + ROW * number + ROW / 2
        if number:
            figure.line(GLYPH, y - ROW + 17, GLYPH, y - 19, stroke="soft", stroke_width=1.5)
            points = f"{GLYPH - 4},{y - 23} {GLYPH + 4},{y - 23} {GLYPH},{y - 17}"
            figure.add("polygon", points=points, fill="soft")
        _glyph(figure, y, row.shape, max(sides))
        weight = 600 if row.params else None
        figure.text(NAME, y + 4, shortened(row.layer, 24), font_weight=weight)
        figure.text(SHAPE, y + 4, _shape(row.shape))
        most = max(row.params for row in rows), max(row.flops for row in rows)
        for x, value, largest, colour in (
            (PARAMS, row.params, most[0], "c1"),
            (FLOPS, row.flops, most[1], "c2"),
        ):
            if value:
                figure.text(x, y, f"{value:,}", font_size=11)
                figure.rect(x, y + 5, max(BAR * value / largest, 1), 6, fill=colour, rx=2)
    y = TOP + ROW * len(everything)
    figure.line(NAME, y + 6, WIDTH - 20, y + 6)
    figure.text(NAME, y + 26, "together", font_weight=600)
    figure.text(PARAMS, y + 26, f"{params:,}", font_weight=600)
    figure.text(FLOPS, y + 26, f"{flops:,}", font_weight=600)
    return figure


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(plain, shape))


def _glyph(figure: Figure, y: float, shape: tuple[int, ...], largest: int) -> None:
    """Squares behind each other for maps, as large as they are; a bar for a row of numbers."""
    if len(shape) != 3:
        figure.rect(GLYPH - 20, y - 5, 40, 10, fill="c3", fill_opacity=0.55, rx=2)
        return
    side = max(5.0, 22 * (shape[0] / largest) ** 0.7)
    count = min(MAPS, shape[2])
    for k in reversed(range(count)):
        shift = 3 * (k - (count - 1) / 2)
        figure.rect(
            GLYPH - side / 2 + shift,
            y - side / 2 - shift,
            side,
            side,
            fill="c3",
            stroke="card",
            stroke_width=0.8,
            fill_opacity=0.9 - 0.18 * k,
        )
