"""`jaxnets trace`: one image's numbers in a run's network, or in a fresh one."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.base.display import printable, short_path, shortened
from jaxnets.base.errors import UserError
from jaxnets.base.language import _
from jaxnets.config.command import CommandResult
from jaxnets.config.fields import Config
from jaxnets.config.resolve import preset
from jaxnets.data.pictures.decode import BadPictureError, read_picture, to_square
from jaxnets.drawing.svg import Figure, figure_path, text_width
from jaxnets.machine.platform import compiler_options_for_init, default_platform, set_up_jax
from jaxnets.networks.create import create_model
from jaxnets.predict.digit import SIDE, WORK, to_digit
from jaxnets.predict.predict import usual_preparation
from jaxnets.predict.run_data import data_of
from jaxnets.predict.trained import TrainedNetwork, load_network, to_input
from jaxnets.report.passes import Array, ImagePasses, passes_of
from jaxnets.runs.request import load_data

DIGITS = tuple("0123456789")

# The figure, in pixels: the boxes of the parameters are left of those of the outputs.
WIDTH = 920
MARGIN, LEFT, BOX, RIGHT = 14, 360, 518, 388
LINE = 14  # Pixels of a line of numbers.
WHOLE = 40  # A larger array is not shown whole: some numbers, and a picture.
GAP = ", "
PICTURE = 52  # Pixels of a picture's height.
MAPS = 4
# Above and below zero: forward in blue and grey, backward in red and grey.
FORWARD, BACKWARD = ((21, 101, 192), (130, 130, 130)), ((198, 40, 40), (130, 130, 130))


class Box(NamedTuple):
    """An array's place, its gradient in the right half."""

    x: float
    width: float
    per_line: int  # The numbers in a line of each half.
    gap: float  # On both sides of the gradient.


PARAMS, OUTPUT = Box(MARGIN, LEFT, 3, 6), Box(RIGHT, BOX, 5, 10)


@dataclasses.dataclass(frozen=True)
class Trace(CommandResult):
    """Both passes of one image, drawn in a file."""

    path: Path
    found: ImagePasses
    class_names: Sequence[str]

    @property
    def label(self) -> str:
        """The class with which the loss compares."""
        return self.class_names[self.found.label]

    @property
    def answer(self) -> str:
        """The class that the network predicts."""
        return self.class_names[int(self.found.steps[-1].output.value.argmax())]

    def values(self) -> dict[str, Any]:
        """The same for programs: each layer's name, shape and largest numbers."""
        layers = []
        for step in self.found.steps:
            gradient = step.output.gradient
            layers.append(
                {
                    "layer": step.label,
                    "shape": list(step.output.value.shape),
                    "largest": float(np.abs(step.output.value).max()),
                    "largest_gradient": None if gradient is None else float(np.abs(gradient).max()),
                }
            )
        both = {"label": self.label, "answer": self.answer}
        return {"trace": str(self.path), "loss": self.found.loss, **both, "layers": layers}

    def text(self) -> str:
        """The line that names the file."""
        return _(
            "{}: answer {}, loss {} for {}; forward in blue, backward in red",
            short_path(str(self.path)),
            printable(self.answer),
            f"{self.found.loss:.4g}",
            printable(self.label),
        )


def trace(
    run_folder: str | None, given: dict[str, Any], image: str, label: str | None, output: str
) -> Trace:
    """Draws both passes of one image into a file.

    Args:
      run_folder: A run, or None for a fresh network of `given`.
      given: Fields of Config.
      image: A picture's file, or the number of a test image of the data set.
      label: The class with which the loss compares; None for a test image's own label, or else for
        the network's answer.
      output: The file, .svg or .png.

    Raises:
      UserError: There is no such run, picture or class, or nothing can be written there.
    """
    path = figure_path(output)
    trained = fresh(preset(**given)) if run_folder is None else load_network(run_folder)
    if trained.config.loss == "squared_error":
        raise UserError("expected a network that tells classes apart, got one with squared_error")
    pixels, own = _pixels(trained, image)
    x = np.asarray(to_input(trained.config, pixels[None]))[0]
    names = trained.class_names
    if label is not None:
        if label not in names:
            raise UserError(
                "label: expected one of {}, got {}", ", ".join(names)[:200], repr(label)
            )
        own = names.index(label)
    if own is None:
        logits: Any = trained.model.apply({"params": trained.params}, x[None])
        own = int(np.argmax(logits))
    found = passes_of(trained.model, trained.params, x, own, trained.config.loss)
    title = f"{trained.config.model}: one image forward and backward"
    trace_figure(found, title, [printable(name) for name in names]).save(path)
    return Trace(path, found, names)


def fresh(config: Config) -> TrainedNetwork:
    """A network before its training, for images of MNIST's shape."""
    set_up_jax(None, config.precision)
    model, shape = create_model(config, len(DIGITS)), (SIDE, SIDE, 1)
    init = jax.jit(model.init, compiler_options=compiler_options_for_init(default_platform()))
    params = init(jax.random.key(config.seed), jnp.zeros((1, *shape), jnp.float32))["params"]
    return TrainedNetwork(config, model, jax.device_get(params), shape, DIGITS, 0, False)


def _pixels(trained: TrainedNetwork, image: str) -> tuple[np.ndarray, int | None]:
    """An image in the data set's format, and its class if it is from the data set."""
    if image.isdecimal() and not os.path.exists(image):
        is_fresh = trained.data_sha256 is None  # Of no run.
        test = (load_data(trained.config) if is_fresh else data_of(trained)).test
        if int(image) >= len(test):
            raise UserError(
                "image: expected a test image below {}, got {}", f"{len(test):,}", image
            )
        return np.asarray(test.images[int(image)]), int(test.labels[int(image)])
    shape = trained.image_shape
    is_digit = usual_preparation(shape, trained.class_names) == "auto"
    try:
        picture = read_picture(Path(image), WORK if is_digit else shape[0])
        return (to_digit(picture)[..., None] if is_digit else to_square(picture, shape)), None
    except BadPictureError as error:
        raise UserError("image: {}: {}", image, error) from None


def trace_figure(found: ImagePasses, title: str, class_names: Sequence[str]) -> Figure:
    """Draws both passes: every layer's parameters and output, with their gradients."""
    name = class_names[found.label]
    alt = f"{title}: loss {_three_digits(found.loss)} for class {name}. " + "; ".join(
        f"{step.label} with {step.output.value.size:,} numbers" for step in found.steps
    )
    heights = [_height(step.output, OUTPUT) for step in found.steps]
    needs = [
        max(height + 34, sum(_height(array, PARAMS) + 8 for array in step.params.values()) + 10)
        for step, height in zip(found.steps, heights, strict=True)
    ]
    image = Array(found.image, None)
    total = 40 + _height(image, OUTPUT) + sum(needs) + 90
    figure = Figure("trace", WIDTH, total, title, alt)
    figure.text(MARGIN, 20, "forward: values", fill="c1", font_weight=600)
    figure.text(MARGIN + 130, 20, "backward: gradients of the loss", fill="bad", font_weight=600)
    y = 34.0
    _draw_box(figure, y, OUTPUT, "image", image)
    y += _height(image, OUTPUT)
    flows = False  # Nothing flows back before the first layer with parameters.
    for step, height, need in zip(found.steps, heights, needs, strict=True):
        _arrows(figure, y, flows, shortened(step.label, 40))
        flows = step.output.gradient is not None
        _draw_box(figure, y + 34, OUTPUT, "output", step.output)
        at = y + 10
        for key, array in step.params.items():
            _draw_box(figure, at, PARAMS, key, array)
            figure.line(MARGIN + LEFT, at + 14, RIGHT, y + 48, stroke="c1", stroke_width=1.2)
            at += _height(array, PARAMS) + 8
        y += need if need > height + 34 else height + 34
        if need > height + 34:  # The parameters are taller: the line continues to the next layer.
            low = y - (need - height - 34)
            figure.line(RIGHT + 40, low, RIGHT + 40, y, stroke="c1", stroke_width=1.5)
            if flows:
                figure.line(RIGHT + 60, low, RIGHT + 60, y, stroke="bad", stroke_width=1.5)
    _arrows(figure, y, True, "loss")
    figure.rect(RIGHT, y + 34, BOX, 40, fill="none", stroke="line", rx=6)
    line = f"{_three_digits(found.loss)}   for class {shortened(name, 30)}"
    figure.text(RIGHT + 10, y + 58, line, fill="c1", font_weight=600)
    figure.text(RIGHT + BOX / 2 + 10, y + 58, "1", fill="bad", font_weight=600)
    return figure


def _three_digits(value: float) -> str:
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


def _lines(value: np.ndarray, per_line: int) -> list[str]:
    """An array's numbers: all of a small one, otherwise the first ones, and the largest's place."""
    flat = value.ravel()
    if value.size <= WHOLE:
        texts = list(map(_three_digits, flat.tolist()))
        return [GAP.join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    at = np.unravel_index(int(np.abs(flat).argmax()), value.shape)
    first = GAP.join(map(_three_digits, flat[: per_line - 1].tolist()))
    place = ", ".join(str(int(i)) for i in at)
    return [f"first {first} …", f"largest {_three_digits(float(value[at]))} at [{place}]"]


def _height(array: Array, box: Box) -> float:
    numbers = LINE * len(_lines(array.value, box.per_line))
    return 26 + numbers + (PICTURE + 8 if array.value.size > WHOLE else 0) + 6


def _draw_box(figure: Figure, y: float, box: Box, name: str, array: Array) -> None:
    """An array on the left and its gradient on the right: large ones as pictures, and numbers."""
    figure.rect(box.x, y, box.width, _height(array, box), fill="none", stroke="line", rx=6)
    title = f"{name}  {' × '.join(map(str, array.value.shape))}"
    figure.text(box.x + 10, y + 17, title, fill="soft")
    half = box.width / 2
    width = half - 10 - box.gap
    for value, x, colour, colours in (
        (array.value, box.x + 10, "c1", FORWARD),
        (array.gradient, box.x + half + box.gap, "bad", BACKWARD),
    ):
        if value is None:
            continue
        top = y + 24
        if value.size > WHOLE:
            figure.array(x, top, width, PICTURE, value, maps=MAPS, colours=colours)
            top += PICTURE + 8
        for number, text in enumerate(_lines(value, box.per_line)):
            size = min(11.0, 11 * width / text_width(text, 11))
            figure.text(x, top + 12 + LINE * number, text, fill=colour, font_size=size)
