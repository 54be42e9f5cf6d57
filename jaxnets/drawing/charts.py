"""The kinds of charts: curves, dots on an axis, a matrix of counts, accuracy by confidence."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.base.display import shortened, width_of
from jaxnets.drawing.svg import (
    DASHES,
    SERIES,
    Figure,
    LegendEntry,
    element,
    escape,
    signed_pixels,
    text_width,
)

WIDTH = 380  # Pixels of every figure, so that letters have one size; a phone shows about as many.
MAX_POINTS = 200  # Of a curve; more would be no finer.
MAX_NAMED = 30  # Classes whose names and counts can be read in a matrix.
LARGEST = 1e300  # Larger numbers are drawn at the edge: a margin around them would overflow.
LOG_RANGE = 30  # From this ratio on, positive numbers get a logarithmic axis.


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
        """Round numbers on the axis; for a single epoch, one number.

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
    nothing = 0.1 if log else 0.0
    low, high = _within(min(values, default=nothing)), _within(max(values, default=1.0))
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


def short_number(value: float) -> str:
    """A number in a few characters.

    >>> short_number(12345.6), short_number(0.25), short_number(1e-7), short_number(3)
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


class Caption(NamedTuple):
    """A figure's name and title, and the text for readers who cannot see it."""

    name: str
    title: str
    alt: str


class Scale(NamedTuple):
    """How an axis looks."""

    label: str = ""
    show: Callable[[float], str] = short_number  # How its numbers are written.
    log: bool | None = None  # None decides by the range.


class Series(NamedTuple):
    """A curve."""

    label: str  # Without one it is not in the legend.
    x: Sequence[float]
    y: Sequence[float | None]  # None, infinite or NaN: no point.
    number: int  # It gives the colour and the dashes.
    faint: bool = False


class Band(NamedTuple):
    """The area between two curves."""

    label: str
    x: Sequence[float]
    low: Sequence[float]  # Where an edge is infinite or NaN there is no area.
    high: Sequence[float]


class Line(NamedTuple):
    """A straight line across a chart."""

    label: str
    at: float


class Guides(NamedTuple):
    """Aids for reading curves."""

    band: Band | None = None  # Behind them.
    level: Line | None = None  # A horizontal line.
    marks: Sequence[Line] = ()  # Vertical ones.


BY_RANGE, NO_GUIDES = Scale(), Guides()
HEIGHT = 170  # Pixels between the axes' ends.
LEVEL_STYLE = {"stroke": "ink", "stroke_width": 1, "stroke_dasharray": "4 3"}


def curves(
    caption: Caption,
    series: Sequence[Series],
    *,
    x: Scale,
    y: Scale = BY_RANGE,
    guides: Guides = NO_GUIDES,
) -> Figure:
    """Curves over the epochs, or over another x; a pointer shows the values of an x.

    Args:
      caption: The figure's caption.
      series: The curves.
      x: The scale of x, linear unless its log is True.
      y: The scale of y.
      guides: An area behind the curves, and straight lines.
    """
    series = [_thinned(one) for one in series]
    keys = _keys(series, guides)
    legend = _legend([key.label for key in keys], 56)
    legend_height = 18 * (legend[-1][2] + 1 if legend else 0)
    top = 24 + legend_height
    figure = Figure(caption.name, WIDTH, top + HEIGHT + 40, caption.title, caption.alt)
    axes = _draw_axes(figure, _known(series, guides), _all_x(series), (x, y), top)
    drawn = []
    for (label, at, row), key in zip(legend, keys, strict=True):
        y_line = 10 + 18 * row
        drawn.append(element("line", x1=at, x2=at + 20, y1=y_line, y2=y_line, **key.style))
        text = {"x": at + 25, "y": 14 + 18 * row, "font_size": 12, "fill": "ink"}
        drawn.append(element("text", escape(label), **text))
    if keys and len(keys) == len(series) and guides == NO_GUIDES:
        figure.legend(keys, legend_height, drawn)
    else:
        figure.add_all(drawn)
    _draw_guides(figure, guides, axes, top)
    for number, one in enumerate(series):
        _draw_curve(figure, one, axes, number)
    _draw_tips(figure, series, axes, (x, y), top)
    return figure


def _keys(series: Sequence[Series], guides: Guides) -> list[LegendEntry]:
    """What a legend explains; a single curve needs none."""
    keys = [LegendEntry(one.label, _style(one.number, one.faint)) for one in series if one.label]
    if band := guides.band:
        look = {"stroke": "c1", "stroke_width": 12, "stroke_opacity": 0.2}
        keys.append(LegendEntry(band.label, look))
    if guides.level:
        keys.append(LegendEntry(guides.level.label, LEVEL_STYLE))
    keys += [
        LegendEntry(mark.label, _style(2 + number)) for number, mark in enumerate(guides.marks)
    ]
    return keys if len(keys) > 1 else []


def _all_x(series: Sequence[Series]) -> list[float]:
    return sorted({x for one in series for x in one.x})


def _known(series: Sequence[Series], guides: Guides) -> list[float]:
    """The finite numbers on the y axis."""
    shown = [y for one in series for y in one.y]
    shown += [*guides.band.low, *guides.band.high] if guides.band else []
    shown += [guides.level.at] if guides.level else []
    return [y for y in shown if y is not None and math.isfinite(y)]


def _draw_axes(
    figure: Figure,
    known: Sequence[float],
    x_all: Sequence[float],
    scales: tuple[Scale, Scale],
    top: float,
) -> tuple[Axis, Axis]:
    """Draws the ticks and the label of x; returns the axes of x and y."""
    of_x, of_y = scales
    y = axis_of(known, top + HEIGHT, top, log=of_y.log)
    if of_y.show is percent and max(known, default=0) <= 1:
        y = y._replace(high=min(y.high, 1.0))
    ticks = y.ticks()
    texts = [of_y.show(tick) for tick in ticks]
    if of_y.show is short_number and len(set(texts)) < len(texts):  # The numbers hardly differ.
        texts = [f"{tick:.12g}" for tick in ticks]
    left = max(56.0, max(text_width(text, 12) for text in texts) + 12)
    for tick, text in zip(ticks, texts, strict=True):
        figure.line(left, y(tick), WIDTH - 8, y(tick))
        figure.text(left - 6, y(tick) + 4, text, text_anchor="end", fill="soft")
    first, last = min(x_all, default=0), max(x_all, default=1)
    one = 0.5 * (first == last)  # A single epoch is in the middle.
    x = Axis(first - one, last + one, left + 6, WIDTH - 14, bool(of_x.log))
    places = x.ticks(4) if x.log else {round(tick) for tick in x.ticks(6)}
    places = [tick for tick in places if x.low <= tick <= x.high]
    wide = (x.end - x.start) / max(len(places) - 1, 1)
    for tick in places:
        size = _fitting(short_number(tick), 12, wide)
        at = min(x(tick), WIDTH - 5 - text_width(short_number(tick), size) / 2)
        look = {"font_size": size, "text_anchor": "middle", "fill": "soft"}
        figure.text(at, top + HEIGHT + 18, short_number(tick), **look)
    centre = {"text_anchor": "middle", "fill": "soft"}
    figure.text((left + WIDTH) / 2, top + HEIGHT + 36, of_x.label, **centre)
    return x, y


def _draw_guides(figure: Figure, guides: Guides, axes: tuple[Axis, Axis], top: float) -> None:
    x, y = axes
    if band := guides.band:
        edges = [(a, low, high) for a, low, high in zip(*band[1:], strict=True)]
        edges = [edge for edge in edges if all(map(math.isfinite, edge))]
        around = [(a, low) for a, low, _ in edges] + [(a, high) for a, _, high in edges[::-1]]
        figure.add("polygon", points=_points(around, x, y), fill="c1", fill_opacity=0.2)
    if level := guides.level:
        figure.line(x.start - 6, y(level.at), WIDTH - 8, y(level.at), **LEVEL_STYLE)
    for number, mark in enumerate(guides.marks):
        figure.line(x(mark.at), top, x(mark.at), top + HEIGHT, **_style(2 + number))


def _draw_curve(figure: Figure, one: Series, axes: tuple[Axis, Axis], number: int) -> None:
    x, y = axes
    style = _style(one.number, one.faint)
    known = [(a, b) for a, b in zip(one.x, one.y, strict=True) if b is not None]
    points = [(a, b) for a, b in known if math.isfinite(b)]
    line = {"points": _points(points, x, y), "fill": "none", "stroke_linejoin": "round"}
    parts = [element("polyline", **line, **style)]
    if len(points) <= 30:
        for a, b in points:
            parts.append(element("circle", cx=x(a), cy=y(b), r=2.5, fill=style["stroke"]))
    figure.add("g", "".join(parts), class_=f"s{number}")


def _style(number: int, faint: bool = False) -> dict[str, Any]:
    """The look of a curve."""
    return {
        "stroke": SERIES[number % len(SERIES)],
        "stroke_width": 2,
        "stroke_dasharray": DASHES[number % len(DASHES)] or None,
        "stroke_opacity": 0.35 if faint else None,
    }


def _points(places: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in places)


def _thinned(one: Series) -> Series:
    """The curve with at most MAX_POINTS points, the last one among them."""
    if len(one.x) <= MAX_POINTS:
        return one
    at = np.unique(np.linspace(0, len(one.x) - 1, MAX_POINTS).round().astype(int))
    return one._replace(x=[one.x[i] for i in at], y=[one.y[i] for i in at])


def _draw_tips(
    figure: Figure,
    series: Sequence[Series],
    axes: tuple[Axis, Axis],
    scales: tuple[Scale, Scale],
    top: float,
) -> None:
    """Adds the tips that a pointer shows at each epoch: a line, and the values in the first row."""
    (x, _), (of_x, of_y), x_all = axes, scales, _all_x(series)
    half = (x.end - x.start) / max(len(x_all) - 1, 1) / 2
    for at in x_all:
        values = [f"{of_x.label} {at:g}"]
        for number, one in enumerate(series):
            known = dict(zip(one.x, one.y, strict=True))
            value = known.get(at)
            if value is not None and math.isfinite(value) and number < 3:
                values.append(f"{shortened(one.label, 14)} {of_y.show(value)}")
        line = element("line", x1=x(at), x2=x(at), y1=top, y2=top + HEIGHT, stroke="soft")
        text = " · ".join(values)
        size = min(12, 12 * (WIDTH - 12) / text_width(text, 12))
        shown = line + element(
            "text",
            escape(text),
            x=WIDTH / 2,
            y=top - 10,
            font_size=size,
            text_anchor="middle",
            fill="ink",
        )
        figure.tip(x(at) - half, top, 2 * half, HEIGHT, shown)


def _legend(labels: Iterable[str], left: float) -> list[tuple[str, float, int]]:
    """The labels of a legend with the x and the row of each."""
    places: list[tuple[str, float, int]] = []
    x, row = left, 0
    for label in labels:
        label = shortened(label, 44)
        width = 34 + text_width(label, 12)
        if x > left and x + width > WIDTH:
            x, row = left, row + 1
        places.append((label, x, row))
        x += width
    return places


class Marks(NamedTuple):
    """A row of marks."""

    name: str
    values: Sequence[float | Sequence[float]]  # By label, one or several each.
    spread: float = 0.0  # Drawn on both sides of the last value.
    note: str = ""  # To the right.


def dots(
    caption: Caption,
    rows: Sequence[Marks],
    labels: Sequence[str],
    *,
    x: Scale,
    width: int = WIDTH,
) -> Figure:
    """For each row its values as marks on one axis: circles, squares and triangles.

    The axis is linear unless its log is True.
    """
    names = [shortened(row.name, width // 17) for row in rows]
    left = max([56.0, *(text_width(name, 12) + 14 for name in names)])
    right = width - max((text_width(row.note, 11) + 6 for row in rows if row.note), default=0)
    legend = _legend(labels, 12)
    top = 32 + 18 * legend[-1][2]
    height = 20 * len(rows)
    figure = Figure(caption.name, width, top + height + 40, caption.title, caption.alt)
    drawn = [
        (number, row, kind, value, row.spread * (kind == len(row.values) - 1))
        for number, row in enumerate(rows)
        for kind, values in enumerate(row.values)
        for value in (values if isinstance(values, Sequence) else [values])
        if math.isfinite(value) and (value > 0 or not x.log)
    ]
    ends = [end for *_, value, spread in drawn for end in (value - spread, value + spread)]
    axis = axis_of(ends, left + 8, right - 22, log=bool(x.log))
    if x.show is percent and max(ends, default=0) <= 1:  # No score is above 100 %.
        axis = axis._replace(high=min(axis.high, 1.0))
    for tick in axis.ticks(4):
        figure.line(axis(tick), top, axis(tick), top + height)
        figure.text(
            axis(tick),
            top + height + 16,
            x.show(tick),
            text_anchor="middle",
            fill="soft",
            font_size=11,
        )
    figure.text((left + right) / 2, top + height + 34, x.label, text_anchor="middle", fill="soft")
    for number, (label, at, row) in enumerate(legend):
        _mark(figure, number, at + 5, 10 + 18 * row)
        figure.text(at + 14, 14 + 18 * row, label)
    for number, row in enumerate(rows):
        y = top + 20 * number + 10
        figure.line(left, y, right - 14, y, stroke_dasharray="1 3")
        figure.text(left - 6, y + 4, names[number], text_anchor="end")
        figure.text(right, y + 4, row.note, font_size=11)
    for number, row, kind, value, spread in drawn:
        y = top + 20 * number + 10
        hint = escape(f"{row.name}, {labels[kind]}: {x.show(value)}")
        if spread:
            ends = axis(value - spread), axis(value + spread)
            figure.line(ends[0], y, ends[1], y, stroke=SERIES[kind], stroke_width=2)
        faint = 0.5 if isinstance(row.values[kind], Sequence) else None
        _mark(figure, kind, axis(value), y, f"<title>{hint}</title>", faint)
    return figure


def _mark(
    figure: Figure, kind: int, x: float, y: float, content: str = "", opacity: float | None = None
) -> None:
    look = {"fill": SERIES[kind % len(SERIES)], "fill_opacity": opacity}
    if kind == 0:
        figure.add("circle", content, cx=x, cy=y, r=4.5, **look)
    elif kind == 1:
        figure.add("rect", content, x=x - 4, y=y - 4, width=8, height=8, **look)
    else:
        points = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y + 4:.1f} {x - 5:.1f},{y + 4:.1f}"
        figure.add("polygon", content, points=points, **look)


def matrix(
    caption: Caption,
    counts: np.ndarray,
    names: Sequence[str],
    *,
    row_label: str,
    column_label: str,
) -> Figure:
    """Counts [K, K], each cell coloured by its share of the row; a pointer names a cell."""
    size = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if size > MAX_NAMED:
        return _matrix_of_pixels(caption, shares, row_label, column_label)
    short = [shortened(name, 12) for name in names]
    longest = max(text_width(label, 11) for label in short)
    left = 30 + longest
    cell = (WIDTH - left - 6) / size
    turned = longest > cell - 4
    top = 28 + (longest if turned else 14)
    figure = Figure(caption.name, WIDTH, top + cell * size + 8, caption.title, caption.alt)
    figure.text(left + cell * size / 2, 14, column_label, text_anchor="middle", fill="soft")
    _upright(figure, 14, top + cell * size / 2, row_label)
    for k in range(size):
        figure.text(left - 6, top + cell * (k + 0.5) + 4, short[k], text_anchor="end", font_size=11)
        x = left + cell * (k + 0.5)
        if turned:
            figure.text(
                0,
                0,
                short[k],
                font_size=11,
                transform=f"translate({x + 4:.1f},{top - 6:.1f}) rotate(-90)",
            )
        else:
            figure.text(x, top - 6, short[k], text_anchor="middle", font_size=11)
    for row in range(size):
        for column in range(size):
            count, x, y = int(counts[row, column]), left + cell * column, top + cell * row
            hint = f"{row_label}: {names[row]}, {column_label}: {names[column]}: {count:,}"
            # At most half of the colour: the count is then dark enough on it, or light enough.
            share = float(shares[row, column])
            strength = 0.5 * (share if row == column else math.sqrt(share))
            figure.add(
                "rect",
                f"<title>{escape(hint)}</title>",
                x=x + 0.5,
                y=y + 0.5,
                width=cell - 1,
                height=cell - 1,
                fill="c1" if row == column else "c2",
                fill_opacity=max(strength, 0.04),
            )
            _write_count(figure, count, x, y, cell)
    return figure


def _matrix_of_pixels(
    caption: Caption, shares: np.ndarray, row_label: str, column_label: str
) -> Figure:
    """The shares [K, K] of many classes, a pixel each, without names."""
    figure = Figure(caption.name, WIDTH, WIDTH + 10, caption.title, caption.alt)
    figure.text(WIDTH / 2 + 10, 16, column_label, text_anchor="middle", fill="soft")
    _upright(figure, 16, WIDTH / 2, row_label)
    side = WIDTH - 40
    figure.image(26, 26, side, side, signed_pixels(np.sqrt(shares)))
    figure.rect(26, 26, side, side, fill="none", stroke="line")
    return figure


def _write_count(figure: Figure, count: int, x: float, y: float, cell: float) -> None:
    """Writes a count into its cell at (x, y), if it is not 0 and the cell has room."""
    size = min(11.0, cell / 2.4)
    if count and size >= 7:
        figure.text(
            x + cell / 2,
            y + cell / 2 + size * 0.36,
            str(count),
            text_anchor="middle",
            font_size=_fitting(str(count), size, cell),
            pointer_events="none",
        )


def _upright(figure: Figure, x: float, y: float, text: str) -> None:
    """A text that is read from bottom to top."""
    where = f"translate({x:.1f},{y:.1f}) rotate(-90)"
    figure.text(0, 0, text, text_anchor="middle", fill="soft", transform=where)


def _fitting(text: str, size: float, width: float) -> float:
    return min(size, (width - 3) / (0.6 * width_of(text)))


def reliability(
    caption: Caption,
    accuracy: np.ndarray,
    share: np.ndarray,
    *,
    x_label: str,
    y_label: str,
    share_label: str,
) -> Figure:
    """Accuracy in each bin of confidence and the diagonal, and how many examples each has.

    The bins have equal widths.
    """
    figure, left, side = Figure(caption.name, WIDTH, 330, caption.title, caption.alt), 56, 200
    x = Axis(0, 1, left, WIDTH - 24)
    y = Axis(0, 1, 14 + side, 14)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        figure.line(left, y(tick), x(1), y(tick))
        figure.text(left - 6, y(tick) + 4, f"{100 * tick:g} %", text_anchor="end", fill="soft")
        figure.text(x(tick), 302, f"{100 * tick:g} %", text_anchor="middle", fill="soft")
    figure.text((left + WIDTH) / 2, 322, x_label, text_anchor="middle", fill="soft")
    _upright(figure, 13, 14 + side / 2, y_label)
    _upright(figure, 13, 256, share_label)
    most = share.max(initial=0) or 1.0
    edges = np.linspace(0, 1, len(accuracy) + 1)
    for k in range(len(accuracy)):
        a, b = x(edges[k]) + 1, x(edges[k + 1]) - 1
        if share[k] > 0:
            hint = f"{edges[k]:.2f} - {edges[k + 1]:.2f}: {percent(float(accuracy[k]))}"
            hint += f", {share_label} {percent(float(share[k]))}"
            figure.add(
                "rect",
                f"<title>{escape(hint)}</title>",
                x=a,
                y=y(accuracy[k]),
                width=b - a,
                height=max(y(0) - y(accuracy[k]), 1),
                fill="c1",
                fill_opacity=0.75,
            )
            tall = max(50 * float(share[k] / most), 1)
            figure.rect(a, 284 - tall, b - a, tall, fill="c3", fill_opacity=0.75)
    figure.line(left, 284, x(1), 284)
    figure.line(x(0), y(0), x(1), y(1), stroke="ink", stroke_width=1.5, stroke_dasharray="6 3")
    return figure
