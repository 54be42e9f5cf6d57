"""One image's own numbers through a network: forward in blue, backward in red."""

from collections.abc import Sequence

import numpy as np

from jaxnets.drawing.svg import Figure, shortened, signed_pixels, text_width
from jaxnets.viz.report.passes import Array, Passes

WIDTH = 920
MARGIN, LEFT, BOX, RIGHT = 14, 360, 518, 388  # The parameters' boxes stand left of the values'.
LINE = 14  # Pixels of a line of numbers.
WHOLE = 40  # An array with as many numbers is shown whole; of larger ones some, and a picture.
PER_LINE, PARAMS_PER_LINE = 5, 3
GAP = ", "
PICTURE = 52  # Pixels of a picture's height.
MAPS = 4
# Above and below zero: forward in blue and grey, backward in red and grey.
FORWARD, BACKWARD = ((21, 101, 192), (130, 130, 130)), ((198, 40, 40), (130, 130, 130))


def trace_figure(found: Passes, title: str, class_names: Sequence[str]) -> Figure:
    """Draws both passes: every layer's parameters and output, with their gradients."""
    name = class_names[found.label]
    alt = f"{title}: loss {_number(found.loss)} for class {name}. " + "; ".join(
        f"{step.layer} with {step.output.value.size:,} numbers" for step in found.steps
    )
    heights = [_height(step.output) for step in found.steps]
    needs = [
        max(height + 34, sum(_params_height(array) + 8 for array in step.params.values()) + 10)
        for step, height in zip(found.steps, heights, strict=True)
    ]
    image = Array(found.image, None)
    total = 40 + _height(image) + sum(needs) + 90
    figure = Figure("trace", WIDTH, total, title, alt)
    figure.text(MARGIN, 20, "forward: values", fill="c1", font_weight=600)
    figure.text(MARGIN + 130, 20, "backward: gradients of the loss", fill="bad", font_weight=600)
    y = 34.0
    _draw_values(figure, y, _title("image", found.image), image)
    y += _height(image)
    flows = False  # Nothing flows back before the first layer with parameters.
    for step, height, need in zip(found.steps, heights, needs, strict=True):
        _arrows(figure, y, flows, shortened(step.layer, 40))
        flows = step.output.gradient is not None
        _draw_values(figure, y + 34, _title("output", step.output.value), step.output)
        at = y + 10
        for key, array in step.params.items():
            _draw_params(figure, at, _title(key, array.value), array)
            figure.line(MARGIN + LEFT, at + 14, RIGHT, y + 48, stroke="c1", stroke_width=1.2)
            at += _params_height(array) + 8
        y += need if need > height + 34 else height + 34
        if need > height + 34:  # The parameters are taller: the line goes on to the next layer.
            low = y - (need - height - 34)
            figure.line(RIGHT + 40, low, RIGHT + 40, y, stroke="c1", stroke_width=1.5)
            if flows:
                figure.line(RIGHT + 60, low, RIGHT + 60, y, stroke="bad", stroke_width=1.5)
    _arrows(figure, y, True, "loss")
    figure.rect(RIGHT, y + 34, BOX, 40, fill="none", stroke="line", rx=6)
    line = f"{_number(found.loss)}   for class {shortened(name, 30)}"
    figure.text(RIGHT + 10, y + 58, line, fill="c1", font_weight=600)
    figure.text(RIGHT + BOX / 2 + 10, y + 58, "1", fill="bad", font_weight=600)
    return figure


def _title(name: str, value: np.ndarray) -> str:
    return f"{name}  {' × '.join(map(str, value.shape))}"


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"  # -0 is 0.


def _arrows(figure: Figure, y: float, backward: bool, label: str) -> None:
    """A blue arrow down and, where a gradient flows, a red one up."""
    for x, colour, tip in ((RIGHT + 40, "c1", y + 34), (RIGHT + 60, "bad", y)):
        if colour == "c1" or backward:
            towards = 6 if tip > y else -6
            figure.line(x, y, x, y + 34, stroke=colour, stroke_width=1.5)
            points = f"{x - 4},{tip - towards} {x + 4},{tip - towards} {x},{tip}"
            figure.add("polygon", points=points, fill=colour)
    figure.text(RIGHT + 76, y + 22, label, font_weight=600)


def _lines(value: np.ndarray, per_line: int = PER_LINE) -> list[str]:
    """An array's numbers: all of a small one, else the first and the largest with its place."""
    flat = value.ravel()
    if value.size <= WHOLE:
        texts = list(map(_number, flat.tolist()))
        return [GAP.join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    at = np.unravel_index(int(np.abs(flat).argmax()), value.shape)
    first = GAP.join(map(_number, flat[: per_line - 1].tolist()))
    place = ", ".join(str(int(i)) for i in at)
    return [f"first {first} …", f"largest {_number(float(value[at]))} at [{place}]"]


def _has_picture(value: np.ndarray) -> bool:
    return value.size > WHOLE


def _height(array: Array) -> float:
    """Of a box with a layer's output."""
    numbers = LINE * len(_lines(array.value))
    return 26 + numbers + (PICTURE + 8 if _has_picture(array.value) else 0) + 6


def _params_height(array: Array) -> float:
    """Of a box with parameters."""
    numbers = LINE * len(_lines(array.value, PARAMS_PER_LINE))
    return 26 + numbers + (PICTURE + 8 if _has_picture(array.value) else 0) + 6


def _draw_values(figure: Figure, y: float, title: str, array: Array) -> None:
    """A box with a layer's output on the left and its gradient on the right."""
    figure.rect(RIGHT, y, BOX, _height(array), fill="none", stroke="line", rx=6)
    figure.text(RIGHT + 10, y + 17, title, fill="soft")
    half = BOX / 2
    _column(figure, RIGHT + 10, y + 24, half - 20, array.value, "c1", FORWARD)
    if array.gradient is not None:
        _column(figure, RIGHT + half + 10, y + 24, half - 20, array.gradient, "bad", BACKWARD)


def _column(figure: Figure, x, y, width, value, colour, colours, per_line=PER_LINE) -> None:
    """A picture, if the array is large, above its numbers."""
    if _has_picture(value):
        _picture(figure, x, y, width, value, colours)
        y += PICTURE + 8
    for number, text in enumerate(_lines(value, per_line)):
        size = min(11.0, 11 * width / text_width(text, 11))
        figure.text(x, y + 12 + LINE * number, text, fill=colour, font_size=size)


def _draw_params(figure: Figure, y: float, title: str, array: Array) -> None:
    """A box with an array of parameters on the left and its gradient on the right."""
    figure.rect(MARGIN, y, LEFT, _params_height(array), fill="none", stroke="line", rx=6)
    figure.text(MARGIN + 10, y + 17, title, fill="soft")
    assert array.gradient is not None
    half, per_line = LEFT / 2, PARAMS_PER_LINE
    _column(figure, MARGIN + 10, y + 24, half - 16, array.value, "c1", FORWARD, per_line)
    right = MARGIN + half + 6
    _column(figure, right, y + 24, half - 16, array.gradient, "bad", BACKWARD, per_line)


def _picture(figure: Figure, x, y, width, value: np.ndarray, colours) -> None:
    """The first maps of a stack, the rows of a matrix or a row of numbers, at most 64 a side."""
    if value.ndim == 3:
        maps = np.moveaxis(value, -1, 0)[:MAPS]
        largest = float(np.abs(value).max(initial=0))
        for number, one in enumerate(maps):
            step = max(1, -(-max(one.shape) // 64))
            pixels = signed_pixels(one[::step, ::step], largest, colours)
            figure.image(x + number * (PICTURE + 4), y, PICTURE, PICTURE, pixels)
            figure.rect(x + number * (PICTURE + 4), y, PICTURE, PICTURE, fill="none", stroke="line")
        return
    if value.ndim == 1:
        columns = 64
        rows = -(-value.size // columns)
        padded = np.zeros(rows * columns, value.dtype)
        padded[: value.size] = value
        table = padded.reshape(rows, columns)
    else:
        table = value.reshape(-1, value.shape[-1])
    step = [max(1, -(-size // 64)) for size in table.shape]
    pixels = signed_pixels(table[:: step[0], :: step[1]], None, colours)
    figure.image(x, y, width, PICTURE, pixels)
    figure.rect(x, y, width, PICTURE, fill="none", stroke="line")
