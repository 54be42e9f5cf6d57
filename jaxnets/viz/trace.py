"""`jaxnets trace`: one image's numbers through a run's network, or through a fresh one."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.config.fields import Config
from jaxnets.config.resolve import preset
from jaxnets.data.pictures.decode import BadPictureError, read_picture, to_square
from jaxnets.display import printable, short_path
from jaxnets.drawing.svg import figure_path
from jaxnets.errors import UserError
from jaxnets.machine.platform import compiler_options_for_init, default_platform, set_up_jax
from jaxnets.models import create_model
from jaxnets.predict.digit import SIDE, WORK, to_digit
from jaxnets.predict.predict import usual_preparation
from jaxnets.predict.trained import TrainedNetwork, load_network, to_input
from jaxnets.runs.request import load_data
from jaxnets.viz.report.passes import Passes, passes_of
from jaxnets.viz.trace_figure import trace_figure

DIGITS = tuple("0123456789")


def trace(
    run_folder: str | None, given: dict[str, Any], image: str, label: str | None, output: str
) -> dict[str, Any]:
    """Draws both passes of one image into a file.

    Args:
      run_folder: A run, or None for a fresh network of `given`.
      given: Fields of Config.
      image: A picture's file, or the number of a test image of the data set.
      label: The class with which the loss compares; None for a test image's own, else for the
        network's answer.
      output: The file, .svg or .png.

    Returns:
      What was drawn: "trace", "loss", "label", and each layer's name, shape and largest numbers.

    Raises:
      UserError: There is no such run, picture or class, or nothing can be written there.
    """
    path = figure_path(output)
    trained = _fresh(preset(**given)) if run_folder is None else load_network(run_folder)
    if trained.config.loss == "squared_error":
        raise UserError("expected a network that tells classes apart, got one with squared_error")
    pixels, own = _pixels(trained, image)
    x = np.asarray(to_input(trained.config, pixels[None]))[0]
    names = trained.class_names
    if label is not None:
        if label not in names:
            raise UserError(f"label: expected one of {', '.join(names)[:200]}, got {label!r}")
        own = names.index(label)
    if own is None:
        logits: Any = trained.model.apply({"params": trained.params}, x[None])
        own = int(np.argmax(logits))
    found = passes_of(trained.model, trained.params, x, own, trained.config.loss)
    title = f"{trained.config.model}: one image forward and backward"
    trace_figure(found, title, [printable(name) for name in names]).save(path)
    return _to_values(path, found, names)


def _fresh(config: Config) -> TrainedNetwork:
    """A network as it is before its training, for images of MNIST's form."""
    set_up_jax(None, config.precision)
    model, shape = create_model(config, len(DIGITS)), (SIDE, SIDE, 1)
    init = jax.jit(model.init, compiler_options=compiler_options_for_init(default_platform()))
    params = init(jax.random.key(config.seed), jnp.zeros((1, *shape), jnp.float32))["params"]
    return TrainedNetwork(config, model, jax.device_get(params), shape, DIGITS, 0, False)


def _pixels(trained: TrainedNetwork, image: str) -> tuple[np.ndarray, int | None]:
    """An image in the data set's format, and its class if it is one of the set's."""
    if image.isdecimal() and not os.path.exists(image):
        test = load_data(trained.config).test
        if int(image) >= len(test):
            raise UserError(f"image: expected a test image below {len(test):,}, got {image}")
        return np.asarray(test.images[int(image)]), int(test.labels[int(image)])
    shape = trained.image_shape
    is_digit = usual_preparation(shape, trained.class_names) == "auto"
    try:
        picture = read_picture(Path(image), WORK if is_digit else shape[0])
        return (to_digit(picture)[..., None] if is_digit else to_square(picture, shape)), None
    except BadPictureError as error:
        raise UserError(f"image: {image}: {error}") from None


def _to_values(path: Path, found: Passes, names: tuple[str, ...]) -> dict[str, Any]:
    layers = []
    for step in found.steps:
        gradient = step.output.gradient
        layers.append(
            {
                "layer": step.layer,
                "shape": list(step.output.value.shape),
                "largest": float(np.abs(step.output.value).max()),
                "largest_gradient": None if gradient is None else float(np.abs(gradient).max()),
            }
        )
    answer = names[int(found.steps[-1].output.value.argmax())]
    both = {"label": names[found.label], "answer": answer}
    return {"trace": str(path), "loss": found.loss, **both, "layers": layers}


def to_text(values: dict[str, Any]) -> str:
    """The line that says what `trace` returned."""
    label, answer = printable(values["label"]), printable(values["answer"])
    text = f"{short_path(values['trace'])}: answer {answer}, loss {values['loss']:.4g} for {label}"
    return f"{text}; forward in blue, backward in red"
