"""The page of pictures that are no digits: any square size up to 96, grey or in colour."""

import base64
import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from browser import Browser
from conftest import assert_close, quick_jit, random_params, slow
from pages import (
    BOTH_PASSES,
    both_passes_in_jax,
    needs_browser,
    read,
    run_javascript,
    text_of,
    trained,
)
from PIL import Image

from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.data.datasets import Split
from jaxnets.data.pictures.decode import to_square
from jaxnets.losses import LOSSES
from jaxnets.models.precision import with_precision
from jaxnets.networks.create import create_model
from jaxnets.page import build
from jaxnets.predict.portable import folded
from jaxnets.predict.predict import to_predictor
from jaxnets.predict.trained import TrainedNetwork

NAMES = ("bicycle", "cat", "grand piano")


def of_pictures(model: str, side: int, channels: int = 3, **changes) -> TrainedNetwork:
    """A network for pictures of a size, with parameters drawn at random."""
    config, shape = preset(model, **changes), (side, side, channels)
    chain = create_model(config, len(NAMES))
    return TrainedNetwork(config, chain, random_params(chain, shape), shape, NAMES, 7, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "side", "channels", "changes"),
    [
        ("softmax", 9, 3, {}),
        ("cnn", 12, 3, dict(hidden=(5,))),
        slow("cnn", 32, 3, dict(hidden=(16,))),
        slow("alexnet_small", 28, 3, {}),  # It subtracts a mean.
        slow("alexnet_small", 28, 1, {}),  # Grey stands for red, green and blue.
    ],
)
def test_both_passes_on_colour_are_those_of_autodiff(model, side, channels, changes, float64):
    network = folded(of_pictures(model, side, channels, **changes))
    halves = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), network.params)
    network = dataclasses.replace(network, params=halves)  # As a page of many weights has them.
    images = np.random.default_rng(0).random((2, *network.image_shape))
    labels = np.array([0, 2])
    given = [
        [image.ravel().tolist(), int(label)] for image, label in zip(images, labels, strict=True)
    ]
    found = run_javascript(build.page_files(network), BOTH_PASSES, given)
    (losses, values), (_, d) = both_passes_in_jax(network, images, labels)
    model, loss = with_precision(network.model, "float64"), LOSSES[network.config.loss]
    params = jax.tree.map(np.float64, network.params)

    @quick_jit
    @jax.grad
    def dx(image, label):
        logits: Any = model.apply({"params": params}, image[None])
        return loss(logits, label[None])[0]

    for n, ours in enumerate(found):
        assert ours["loss"] == pytest.approx(losses[n], rel=1e-4)
        assert_close(read(ours["p"]), jax.nn.softmax(values[-1][n, 0]), 1e-4)
        assert_close([*map(read, ours["values"])], [value[n].ravel() for value in values], 1e-4)
        assert_close([*map(read, ours["d"][1:])], [gradient[n].ravel() for gradient in d], 1e-4)
        assert_close(read(ours["d"][0]), dx(images[n], labels[n]).ravel(), 1e-4)


SQUARES = """
console.log(JSON.stringify(DATA.map(([height, width, channels, side, bytes]) => {
  const data = Uint8Array.from(Buffer.from(bytes, "base64"));
  return Array.from(toSquare({ height, width, channels, data }, side));
})));
"""


def test_a_picture_is_cut_and_resized_as_pillow_does_it():
    rng, cases = np.random.default_rng(0), []
    shapes = [(37, 90), (201, 133), (64, 64), (20, 31), (32, 60), (33, 32)]
    for (height, width), channels, side in itertools.product(shapes, (1, 3), (32, 64)):
        cases.append((rng.integers(0, 256, (height, width, channels), np.uint8), side))
    given = [
        [*image.shape, side, base64.b64encode(image.tobytes()).decode()] for image, side in cases
    ]
    found = run_javascript(build.page_files(trained("softmax")), SQUARES, given)
    for (image, side), ours in zip(cases, found, strict=True):
        picture = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
        theirs = to_square(picture, (side, side, image.shape[2]))
        np.testing.assert_array_equal(ours, theirs.ravel(), err_msg=f"{image.shape}, {side}")


def photo(side=150):
    """A colour picture that is wider than high, with edges and gradients."""
    y, x = np.mgrid[:side, : side + 77]
    rgb = np.stack([x % 256, (x * y // 70) % 256, 255 - y % 256], axis=-1).astype(np.uint8)
    rgb[20:90, 60:110] = (200, 30, 90)
    return Image.fromarray(rgb)


@pytest.mark.parametrize(
    ("side", "channels", "message"),
    [(97, 3, "at most 96 x 96 pixels, got 97 x 97"), (64, 3, "at most 4,000,000 parameters")],
)
def test_larger_networks_and_pictures_are_refused(side, channels, message):
    network = of_pictures("softmax", 12)
    if side == 64:
        network = of_pictures("cnn", 64, hidden=(400,))
    with pytest.raises(UserError, match=message):
        build.page_files(dataclasses.replace(network, image_shape=(side, side, channels)))


@pytest.fixture(scope="module")
def colour_page(tmp_path_factory):
    """The page of a small CNN on 32 x 32 x 3, with a picture of each class; and the network."""
    network = of_pictures("cnn", 32, hidden=(16,))
    rng = np.random.default_rng(1)
    pictures = Split(rng.integers(0, 256, (4, 32, 32, 3), np.uint8), np.array([1, 0, 1, 2]))
    path = tmp_path_factory.mktemp("colour") / "page.html"
    path.write_text(build.one_file(build.page_files(network, pictures)))
    return path, network


def give_file(page, path):
    """Chooses a file as the user does."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


# A file as another program hands it over: `kind` is "drop" or "paste".
HAND_OVER = """
(async () => {{
  const bytes = Uint8Array.from(atob("{content}"), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "a.png", {{ type: "image/png" }}));
  const given = "{kind}" === "drop" ? new DragEvent("drop", {{ dataTransfer: data, bubbles: true }})
    : new ClipboardEvent("paste", {{ clipboardData: data, bubbles: true }});
  byId("draw").dispatchEvent(given);
}})()
"""


@pytest.mark.slow
@needs_browser
def test_a_colour_picture_is_opened_dropped_pasted_and_painted_over(colour_page, tmp_path):
    path, network = colour_page
    photo().save(tmp_path / "photo.png")
    content = base64.b64encode((tmp_path / "photo.png").read_bytes()).decode()
    with Browser(tmp_path / "chromium") as page:
        page.resize(1280, 900)
        page.open(path)
        assert not page.evaluate("byId('ink').parentElement.hidden")
        expected = to_predictor(network)([tmp_path / "photo.png"])[0]
        for way in ("file", "drop", "paste"):
            page.click("#clear")
            page.wait("state.pass === null")
            if way == "file":
                give_file(page, tmp_path / "photo.png")
            else:
                page.evaluate(HAND_OVER.format(content=content, kind=way))
            page.wait("state.pass !== null")
            np.testing.assert_allclose(
                page.evaluate("Array.from(state.pass.p)"), expected, atol=1e-3
            )
        name = NAMES[int(np.argmax(expected))]
        assert text_of(page, "#answer").startswith(f"The network says {name}: ")
        before = page.evaluate("Array.from(state.pixels)")
        page.evaluate("byId('ink').value = '#00ff00'")
        x, y = page.place("#paper", 0.3, 0.3)
        page.mouse("mousePressed", x, y)
        page.mouse("mouseMoved", x + 60, y + 60)
        page.mouse("mouseReleased", x + 60, y + 60, 0)
        page.frame()
        page.frame()
        after = page.evaluate("Array.from(state.pixels)")
        changed = np.abs(np.subtract(before, after)).reshape(32, 32, 3).max(axis=2)
        assert changed[12:14, 12:14].min() > 50  # Under the pen; the rest stays as it was, nearly.
        assert np.median(changed) < 20
        page.click("#labels label:nth-child(3) input")
        views = page.evaluate(
            "[...document.querySelectorAll('#layer-0 figcaption')].map((e) => e.innerText)"
        )
        assert any(text.startswith("W in colour") for text in views), views
        assert any(text.startswith("dW in colour") for text in views), views
        colours = page.evaluate(
            "(() => { const c = document.querySelector('#layer-0 .ahead .colour canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, 3, 3).data;"
            "return Array.from({ length: 9 }, (_, n) => Math.abs(d[4 * n] - d[4 * n + 2])); })()"
        )
        assert max(colours) > 20  # Red is not blue.
        page.evaluate(
            "byId('example').value = 'own 3'; byId('example').dispatchEvent(new Event('change'))"
        )
        page.wait("photo?.truth === 2")
        assert page.evaluate("byId('train').hidden")
        page.evaluate(
            "navigator.mediaDevices.getUserMedia = async () => { throw new Error('refused'); }"
        )
        page.click("#camera")
        page.wait("byId('problem').innerText.startsWith('The browser does not allow the camera')")
        camera = (
            "(() => { const c = element('canvas', { width: 90, height: 60 });"
            "c.getContext('2d').fillStyle = '#f00'; const draw = () => { c.getContext('2d')"
            ".fillRect(0, 0, 90, 60); requestAnimationFrame(draw); }; draw();"
            "navigator.mediaDevices.getUserMedia = async () => c.captureStream(); })()"
        )
        page.evaluate(camera)
        page.click("#camera")
        page.wait("!document.querySelector('#finder').hidden")
        red = (
            "(() => { const c = element('canvas', { width: 1, height: 1 }).getContext('2d');"
            "c.drawImage(document.querySelector('#finder video'), 0, 0, 1, 1);"
            "return c.getImageData(0, 0, 1, 1).data[0] > 240; })()"
        )
        page.wait(red)
        page.click("#snap")
        page.wait("photo !== null && photo.truth === undefined && photo.width === 90")
        page.frame()
        assert page.evaluate("state.pixels[0]") > 240 and page.evaluate("state.pixels[1]") < 15
        page.click("#tour-start")
        page.wait("!byId('tour').hidden")
        page.click("#tour-end")
        page.click("#language")
        for width in (1280, 390):
            page.resize(width, 844, mobile=width == 390)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not page.problems() and page.requests() == [path.as_uri()]
