"""The figures of docs/img: their numbers against other programs, their words, their colours."""

import json
import re
from xml.etree import ElementTree

import figures
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from scipy import signal

from jaxnets.config.resolve import preset
from jaxnets.data.load import load_dataset
from jaxnets.drawing.svg import DARK, LIGHT
from jaxnets.experiment import Experiment
from jaxnets.models.chain import Chain
from jaxnets.models.cnn import cnn
from jaxnets.models.layers import MaxPool

SVG = "{http://www.w3.org/2000/svg}"
DOCS = ROOT / "docs"
FILES = [figures.FOLDER / f"{name}{end}" for name in figures.FIGURES for end in (".svg", ".zh.svg")]
CHARTS = ("initialization", "learning-rates")  # Their ticks are no data.
PHONE = 358  # Pixels of a picture in a page 390 wide.


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def drawn(request):
    """A committed file and its elements."""
    return request.param, ElementTree.fromstring(request.param.read_text("utf-8"))


@pytest.mark.slow
def test_the_files_are_what_the_script_draws():
    drawn = {path.name: figure.themed() for path, figure in figures.files().items()}
    there = {path.name: path.read_text("utf-8") for path in figures.FOLDER.glob("*.svg")}
    assert drawn == there


def numbers_in(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?(?:e[−]?\d+)?", text))


def test_every_number_in_a_figure_is_in_its_description(drawn):
    path, root = drawn
    title, desc = (root.findtext(f"{SVG}{tag}") or "" for tag in ("title", "desc"))
    assert title and desc
    if not path.name.startswith(CHARTS):
        shown = " ".join(each.text or "" for each in root.iter(f"{SVG}text"))
        assert numbers_in(shown) <= numbers_in(f"{title} {desc}")


def test_a_page_in_each_language_shows_the_figure_with_its_description(drawn):
    path, root = drawn
    chinese = path.name.endswith(".zh.svg")
    pages = [
        p for p in DOCS.rglob("*.md") if ("zh" in p.parts) == chinese and "_" not in p.parts[-2]
    ]
    tags = [
        tag for page in pages for tag in re.findall("<img[^>]*>", page.read_text("utf-8"))
        if f'img/{path.name}"' in tag
    ]  # fmt: skip
    assert tags, f"no page shows {path.name}"
    if not path.name.startswith("forward-backward"):  # Shown often, and told step by step.
        alt = f' alt="{root.findtext(f"{SVG}desc")}">'
        assert all(tag.endswith(alt) for tag in tags), alt


PICTURE = """<picture>
<source media="(prefers-reduced-motion: reduce) and (prefers-color-scheme: dark)" srcset="{0}page-still-dark{1}.webp">
<source media="(prefers-reduced-motion: reduce)" srcset="{0}page-still{1}.webp">
<source media="(prefers-color-scheme: dark)" srcset="{0}page-dark{1}.webp">
<img src="{0}page{1}.webp" width="{2}" """  # noqa: E501


@pytest.mark.parametrize("end", ["", ".zh"])
def test_the_animation_is_small_and_shown_with_a_still(end):
    for name in ("page", "page-dark"):
        path = DOCS / "_static" / f"{name}{end}.webp"
        still = path.with_name(path.name.replace("page", "page-still", 1))
        assert path.stat().st_size <= 1_000_000
        for file, least, most in ((path, 20, 60), (still, 1, 1)):
            with Image.open(file) as image:
                assert image.size == (780, 480)
                assert least <= getattr(image, "n_frames", 1) <= most
    homes = {"README.md": "docs/_static/", "docs/index.md": "_static/"}
    if end:
        homes = dict.fromkeys(("docs/zh/README.md", "docs/zh/index.md"), "../_static/")
    for page, folder in homes.items():
        width = (
            560 if page.endswith("README.md") else 780
        )  # GitHub's first screen has more to show.
        assert PICTURE.format(folder, end, width) in (ROOT / page).read_text("utf-8"), page


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def name_of(fill: str) -> str:
    return fill.removeprefix("var(--").removesuffix(")")


def texts_on_grounds(root) -> list[tuple[str, str]]:
    """The colour of every text, and of the last rectangle that was drawn below it."""
    grounds, found = [], []
    for each in root.iter():
        fill = name_of(each.get("fill", ""))
        x, y = float(each.get("x", 0)), float(each.get("y", 0))
        if each.tag == f"{SVG}rect" and fill != "none":
            size = float(each.get("width")), float(each.get("height"))
            grounds.append((x, y, x + size[0], y + size[1], fill))
        elif each.tag == f"{SVG}text":
            below = [g[4] for g in grounds if g[0] <= x <= g[2] and g[1] <= y - 3 <= g[3]]
            found.append((fill, below[-1] if below else "card"))
    return found


def test_letters_are_large_and_dark_enough_in_both_themes(drawn):
    _, root = drawn
    pairs = texts_on_grounds(root)
    assert pairs
    for theme in (LIGHT, DARK):
        for colour, ground in set(pairs):
            dark, light = sorted(luminance(theme[name]) for name in (colour, ground))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (colour, ground)
    scale = min(1, PHONE / float(root.get("width")))
    assert min(float(each.get("font-size")) for each in root.iter(f"{SVG}text")) * scale > 10


def test_a_text_on_a_ground_that_hides_it_is_found():
    figure = figures.Figure("f", 60, 30, "t", "a")
    figures.table(figure, 0, 0, np.ones((1, 1)), "soft", marked=[(0, 0)])
    root = ElementTree.fromstring(figure.themed())
    assert ("soft", "line") in texts_on_grounds(root)


def test_the_convolutions_numbers_are_scipys():
    found = figures.convolved()
    x, kernel, dz = (
        np.arange(1.0, 10).reshape(3, 3),
        np.arange(1.0, 5).reshape(2, 2),
        np.ones((2, 2)),
    )
    np.testing.assert_array_equal(found.z, signal.correlate2d(x, kernel, "valid"))
    np.testing.assert_array_equal(found.d_kernel, signal.correlate2d(x, dz, "valid"))
    np.testing.assert_array_equal(found.dx, signal.convolve2d(dz, kernel, "full"))
    np.testing.assert_array_equal(sum(found.parts), found.dx)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_the_pools_numbers_are_those_of_autodiff(kind):
    found = figures.pooled(kind)
    pool = {"max": nn.max_pool, "average": nn.avg_pool}[kind]
    x, dy = found.x.reshape(1, 1, 4, 1), found.dy.reshape(1, 1, 2, 1)
    y, back = jax.vjp(lambda x: pool(x, (1, 3), (1, 1)), x)
    np.testing.assert_allclose(found.y, y.ravel())
    np.testing.assert_allclose(found.dx, back(dy)[0].ravel())
    np.testing.assert_allclose(sum(found.parts), found.dx)
    for place, winner in enumerate(found.winners):
        assert winner == np.argmax(found.x[place : place + 3])


@pytest.mark.slow
def test_the_batch_norms_gradients_are_those_of_autodiff(float64):
    """A zero is added to each node of the graph: its gradient is the node's."""
    found = figures.normalized()

    def loss(nodes):
        x = jnp.array([1.0, 2.0, 6.0]) + nodes["x"]
        mu = x.mean() + nodes["mu"]
        v = ((x - mu) ** 2).mean() + nodes["v"]
        r = 1 / jnp.sqrt(v + 1e-5) + nodes["r"]
        normal = r * (x - mu) + nodes["normal"]
        y = (1 + nodes["gamma"]) * normal + 1 + nodes["beta"]
        return y @ jnp.array([2.0, 0.0, 0.0]), {"mu": mu, "v": v, "r": r, "normal": normal, "y": y}

    zeros = {name: jnp.zeros(3) for name in ("x", "normal")}
    zeros |= {name: jnp.zeros(()) for name in ("mu", "v", "r", "gamma", "beta")}
    gradients, values = jax.grad(loss, has_aux=True)(zeros)
    for name, value in values.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    for name, value in gradients.items():
        np.testing.assert_allclose(found["d" + name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    parts = sum(found[name] for name in ("by_normal", "by_mu", "by_v"))
    np.testing.assert_allclose(parts, found["dx"], atol=1e-6)


@pytest.mark.slow
def test_the_attentions_numbers_are_flaxs_and_autodiffs(float64):
    found = figures.attended()

    def attend(q, k, v):
        """Flax' own, with one example and one head."""
        return nn.dot_product_attention(*(a[None, :, None] for a in (q, k, v)))[0, :, 0]

    given = (figures.QUERIES, figures.KEYS, figures.VALUES)
    out, backward = jax.vjp(attend, *map(jnp.asarray, given))
    np.testing.assert_allclose(found["O"], out, atol=1e-6)
    for name, gradient in zip(("dQ", "dK", "dV"), backward(jnp.eye(2, dtype="f")), strict=True):
        np.testing.assert_allclose(found[name], gradient, atol=1e-6, err_msg=name)
    softmax, from_weights = jax.vjp(jax.nn.softmax, jnp.asarray(found["S"]))
    np.testing.assert_allclose(found["P"], softmax, atol=1e-6)
    np.testing.assert_allclose(found["dS"], from_weights(jnp.asarray(found["dP"]))[0], atol=1e-6)


def test_a_pixel_outside_the_receptive_field_changes_nothing():
    """784 images, a white pixel each, through Flax's layers with positive weights."""
    single = [
        each.clone(features=1, use_bias=False) if isinstance(each, nn.Conv) else each
        for each in cnn().layers[:6]
    ]
    images, sizes = np.eye(784, dtype=np.float32).reshape(784, 28, 28, 1), []
    for count, layer in enumerate(single, start=1):
        if not isinstance(layer, nn.Conv | MaxPool):
            continue
        chain = Chain(single[:count])
        shapes = jax.eval_shape(chain.init, jax.random.key(0), images[:1])
        ones = jax.tree.map(lambda a: jnp.ones(a.shape), shapes)
        out = np.asarray(chain.apply(ones, images))
        middle = out.shape[1] // 2
        seen = np.argwhere(out[:, middle, middle, 0].reshape(28, 28) > 0)
        sizes.append((seen.max(0) - seen.min(0) + 1).tolist())
    fields = figures.fields()
    assert sizes == [[one.field] * 2 for one in fields]
    assert [one.name for one in fields] == ["conv1", "pool1", "conv2", "pool2"]


def test_the_deviations_are_numpys():
    drawn = np.random.default_rng(0)
    x = drawn.standard_normal((200, 100), np.float32).astype(np.float64)
    weights = drawn.standard_normal((10, 100, 100), np.float32)
    for sigma, found in zip((0.01, 1, np.sqrt(0.02)), figures.deviations().values(), strict=True):
        h, expected = x, [x.std()]
        for weight in weights:
            h = np.maximum(h @ (sigma * weight), 0)
            expected.append(h.std())
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_the_losses_are_those_of_the_command():
    """Ten steps of the good rate, in one process; the command is in the file."""
    kept = json.loads(figures.LOSSES.read_text("utf-8"))
    assert kept["command"] == figures.COMMAND and list(kept["losses"]) == list(figures.RATES)
    given = dict(re.findall(r"--(\w+)=(\S+)", figures.COMMAND))
    assert given["epochs"] == str(len(kept["losses"]["0.1"])) and given["batch_size"] == "full"
    config = preset(
        given["model"], optimizer=given["optimizer"], limit=int(given["limit"]),
        batch_size=None, epochs=10, learning_rate=0.1,
    )  # fmt: skip
    data = load_dataset("mnist").limited(config.limit)
    _, history = Experiment.create(config, data).train()
    found = [record["train_loss"] for record in history]
    np.testing.assert_allclose(found, kept["losses"]["0.1"][:10], rtol=1e-3)
