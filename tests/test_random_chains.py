"""Networks of every kind of layer, most drawn by Hypothesis, in every tool that knows layers.

Their gradients by hand against autodiff; their exports and the page's JavaScript against the
network in float64. The draws are the same in every run.
"""

import functools
import json
import math
import random
import re
from typing import Any

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import Browser
from conftest import quick_jit, random_params
from exports import logits_of
from hypothesis import Phase, given, settings
from pages import draw, needs_browser, read, run_javascript

from jaxnets.backprop.convolution import CONV
from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.windows import window_pads
from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.export import archive, export
from jaxnets.gradcheck.networks import NUM_CLASSES, NetworkCase, check_network
from jaxnets.losses import cross_entropy
from jaxnets.models.alexnet_layers import AdaptiveAveragePool, LocalResponseNorm
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain
from jaxnets.models.layers import AveragePool, LeakyReLU, MaxPool, flatten, global_average_pool
from jaxnets.models.precision import with_precision
from jaxnets.models.residual import Residual
from jaxnets.networks.own import from_object
from jaxnets.page import build
from jaxnets.predict import portable
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.step import autodiff_loss_and_grad

IMAGE, CLASSES, DEPTH = (28, 28, 1), 3, 12
ACTIVATIONS = [nn.relu, nn.leaky_relu, nn.sigmoid, nn.tanh, nn.gelu, nn.softmax]
# Kinds of layers; "residual" and "projection" are blocks without and with a shortcut.
ANYWHERE = ["activation", "activation", "leaky", "batch_norm", "layer_norm", "response", "dropout"]
ON_IMAGES = [*5 * ["conv"], "max_pool", "average_pool", "adaptive"]
ON_ROWS = ["dense", "dense", "flatten"]


class Drawing:
    """The layers drawn so far, their output's shape, and how many more there may be.

    Without exports it also has what they refuse, a negative padding, and what their float32 makes
    inexact: a batch norm right behind a layer, and the default's small ε.
    """

    def __init__(self, draw, shape, exports=True, depth=0):
        self.draw, self.shape, self.exports, self.depth = draw, shape, exports, depth
        self.layers: list[Any] = []

    def add(self, layer, shape=None):
        self.shape = shape or shape_behind(layer, self.shape)
        self.layers.append(layer)

    def number(self, low, high):
        return self.draw(st.integers(low, high))

    def any_layer(self, left, keeps_shape=False):
        """Adds one layer, and returns how many that were."""
        is_image = len(self.shape) == 3
        kinds = ANYWHERE + (ON_IMAGES if is_image else ON_ROWS)
        # The page writes many weights in 16 bits: no block takes long rows.
        if left > 2 and self.depth < 2 and (is_image or self.shape[0] <= 100):
            kinds = [*kinds, "residual", "projection"]
        if keeps_shape:
            kinds = [*ANYWHERE, "same_conv" if is_image else "same_dense"]
        kind = self.draw(st.sampled_from(kinds))
        if kind in ("residual", "projection"):
            return self.block(min(left, 5), kind == "projection")
        layer = self.layer(kind)
        self.add(layer)
        if self.exports or not isinstance(layer, nn.Conv | nn.Dense) or not self.number(0, 1):
            return 1
        self.add(BatchNorm())
        return 2

    def block(self, left, projects):
        """Adds a residual block of 2 to `left` layers, itself one of them."""
        inner = Drawing(self.draw, self.shape, self.exports, self.depth + 1)
        wanted, used = self.number(1, left - 1), 0
        while used < wanted:
            used += inner.any_layer(wanted - used, keeps_shape=not projects)
        shortcut = None
        if projects:
            shortcut = [self.projection(inner.shape)]
        self.add(Residual(inner.layers, shortcut), inner.shape)
        return used + 1

    def projection(self, shape):
        """A layer that gives images this shape, or rows this length."""
        if len(shape) == 1:
            return nn.Dense(shape[0], name="dense1")
        sizes = zip(self.shape[:2], shape[:2], strict=True)
        # With stride s a window of old - s (new - 1) fits just `new` times, if it is padded.
        strides = [max(1, old // new) for old, new in sizes]
        sizes = zip(self.shape[:2], shape[:2], strides, strict=True)
        pads = [(0, max(0, s * (new - 1) + 1 - old)) for old, new, s in sizes]
        sizes = zip(self.shape[:2], shape[:2], strides, pads, strict=True)
        window = [old + pad[1] - s * (new - 1) for old, new, s, pad in sizes]
        return nn.Conv(shape[2], tuple(window), tuple(strides), pads, name="conv1")

    def layer(self, kind):
        """A layer of a kind, with settings that fit."""
        draw, number = self.draw, self.number
        side = min(self.shape[:2]) if len(self.shape) == 3 else 1
        small = functools.partial(number, 1, min(side, 3))
        match kind:
            case "conv":
                return self.convolution()
            case "same_conv":
                return nn.Conv(self.shape[2], (3, 3), padding=1, use_bias=draw(st.booleans()))
            case "dense":
                return nn.Dense(number(2, 7), use_bias=draw(st.booleans()))
            case "same_dense":
                return nn.Dense(self.shape[0])
            case "max_pool":
                return MaxPool(small(), number(1, 3))
            case "average_pool":
                return AveragePool(small(), number(1, 3))
            case "adaptive":
                return AdaptiveAveragePool(number(1, side))
            case "response":
                return LocalResponseNorm(k=1.0, n=number(1, 5), alpha=0.2, beta=0.75)
            case "batch_norm" | "layer_norm":  # A small ε magnifies rounding of equal numbers.
                norm = BatchNorm if kind == "batch_norm" else nn.LayerNorm
                return norm(epsilon=draw(st.sampled_from([0.01, 0.1] if self.exports else [1e-5])))
            case "dropout":
                return nn.Dropout(0.3)
            case "flatten":
                return flatten
            case "leaky":
                return LeakyReLU(draw(st.sampled_from([0.1, 0.3])))
        return draw(st.sampled_from(ACTIVATIONS))

    def convolution(self):
        draw, number = self.draw, self.number
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if self.shape[2] % g == 0]))
        window = [number(1, min(size, 4)) for size in self.shape[:2]]
        fewest = 0 if self.exports or min(self.shape[:2]) < 7 else -1
        pair = st.tuples(st.integers(fewest, 2), st.integers(fewest, 2))
        padding = draw(st.sampled_from(["SAME", "VALID", 1]) | st.tuples(pair, pair))
        strides = draw(st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
        bias, features = draw(st.booleans()), number(1, 3) * groups
        rest = dict(feature_group_count=groups, use_bias=bias)
        layer = nn.Conv(features, tuple(window), strides, padding, **rest)
        # XLA aborts where a gradient dz, spread by a stride, has no more places than the window
        # (stock autodiff too, jax 0.10.2 and 0.12.0): 4 x 4 pixels, window (2, 3), stride 2.
        if math.prod(shape_behind(layer, self.shape)[:2]) <= math.prod(window):
            return layer.clone(strides=1)
        return layer


def shape_behind(layer, shape):
    """A layer's output shape; JAX would ask for it in a way that Hypothesis forbids to a draw."""
    match layer:
        case nn.Conv():
            static = CONV.static(layer)
            window, strides = np.ravel(layer.kernel_size).tolist(), static["strides"]
            pads = window_pads(shape[:2], window, strides, static["padding"])
            sizes = zip(shape[:2], pads, window, strides, strict=True)
            places = [(size + sum(pad) - k) // s + 1 for size, pad, k, s in sizes]
            return (*places, layer.features)
        case nn.Dense():
            return (*shape[:-1], layer.features)
        case MaxPool() | AveragePool():
            places = [(size - layer.window) // layer.stride + 1 for size in shape[:2]]
            return (*places, shape[2])
        case AdaptiveAveragePool():
            return (layer.size, layer.size, shape[2])
    if layer is flatten:
        return (math.prod(shape),)
    return shape[-1:] if layer is global_average_pool else shape


@st.composite
def chains(draw, depth=DEPTH, exports=True, classes=CLASSES):
    """A chain of at most `depth` layers, with those of residual blocks, for images of one size."""
    state = random.getstate()  # beartype samples by it what a list holds; a draw must not move it.
    drawing = Drawing(draw, IMAGE, exports)
    left = draw(st.integers(1, depth - 2))
    if draw(st.integers(0, 3)):  # Most get small images first, which are quick to compute.
        first = st.sampled_from([AveragePool(3, 3), MaxPool(2, 3), AdaptiveAveragePool(7)])
        drawing.add(draw(first))
        left -= 1
    while left > 0:
        if len(drawing.shape) == 3 and draw(st.integers(0, 9)) == 5:
            drawing.add(draw(st.sampled_from([flatten, global_average_pool])))
            left -= 1
        left -= drawing.any_layer(left)
    if len(drawing.shape) == 3:
        drawing.add(draw(st.sampled_from([flatten, global_average_pool])))
    chain = Chain([*drawing.layers, nn.Dense(classes, name="logits")])
    random.setstate(state)
    return chain


def network(chain, seed=0):
    """The chain with parameters drawn at random."""
    params = random_params(chain, IMAGE, seed)
    names = tuple("abcdefghij"[:CLASSES])
    return TrainedNetwork(preset("softmax"), chain, params, IMAGE, names, 7, True)


def all_gradients(ours: TrainedNetwork, batch: Batch):
    """In float64: both gradients of training; the logits, the loss and autodiff's of an evaluation.

    The evaluation is that of the network whose batch norms are folded, as the page shows it.
    """
    model, shown = with_precision(ours.model, "float64"), portable.folded(ours)
    evaluated = with_precision(shown.model, "float64")

    def loss(params, image):
        logits: Any = evaluated.apply({"params": params}, image)
        return cross_entropy(logits, jnp.asarray(batch.labels[:1]))[0], logits

    def both(params, shown_params):
        key = jax.random.key(1)
        manual = manual_loss_and_grad(model, "cross_entropy")(params, batch, key)[1]
        auto = autodiff_loss_and_grad(model.apply, cross_entropy)(params, batch, key)[1]
        found = jax.value_and_grad(loss, (0, 1), has_aux=True)(shown_params, batch.images[:1])
        return manual, auto, evaluated.apply({"params": shown_params}, batch.images), found

    trees = [jax.tree.map(np.float64, params) for params in (ours.params, shown.params)]
    return jax.device_get(quick_jit(both)(*trees))


def assert_near(ours, theirs, tolerance, note):
    """Demands |ours - theirs| <= tolerance x the largest number of all arrays."""
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    largest = max(float(np.abs(array).max()) for array in theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=note)


PAGES = """
const plain = (array) => Buffer.from(Float64Array.from(array).buffer).toString("base64");
console.log(JSON.stringify(DATA.map(([run, image, label]) => {
  const network = readNetwork(run), pass = forward(network, Float64Array.from(image));
  const { d, gradients } = backward(network, pass, label), arrays = {};
  network.layers.forEach(({ name }, n) => {
    for (const [key, array] of Object.entries(gradients[n])) {
      if (array) arrays[`${name}.${key}`] = plain(array);
    }
  });
  const logits = plain(pass.values.at(-1));
  return { loss: lossOf(network, pass, label), logits, image: plain(d[0]), arrays };
})));
"""


def on_the_page(cases):
    """The pages' loss, logits and gradients of (network, image, label), in one process."""
    data = []
    for ours, image, label in cases:
        run = build.run_script(ours).partition("const RUN = ")[2].rstrip(";\n")
        data.append([json.loads(run), image.ravel().tolist(), int(label)])
    return run_javascript(build.page_files(cases[0][0]), PAGES, data)


def assert_page_is_right(found, expected, note):
    """Compares a page's numbers with autodiff's."""
    (loss, logits), (d_params, d_image) = expected
    assert found["loss"] == pytest.approx(float(loss), rel=1e-4), note
    assert_near(read(found["logits"]), logits.ravel(), 1e-4, note)
    right = {
        ".".join(key.key for key in path): x for path, x in jax.tree.leaves_with_path(d_params)
    }
    missing = {path.rpartition(".")[2] for path in right.keys() - found["arrays"].keys()}
    assert missing <= {"mean", "var"}, note  # A batch norm's statistics, which no loss moves here.
    ours = {path: read(array) for path, array in found["arrays"].items()}
    theirs = {path: right[path].ravel() for path in ours}
    assert_near([read(found["image"]), ours], [d_image.ravel(), theirs], 1e-4, note)


@pytest.mark.oracle
def test_drawn_networks_agree_by_hand_in_onnx_and_the_page(float64):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    rng, cases, expected = np.random.default_rng(0), [], []
    images = rng.random((4, *IMAGE), np.float32)
    batch = Batch(images.astype(np.float64), np.array([0, 1, 2, 1]), np.array([1.0, 1, 1, 0]))

    # A smaller failing network would take minutes of compiling to find.
    @settings(
        max_examples=40, derandomize=True, deadline=None, database=None, phases=[Phase.generate]
    )
    @given(chains())
    def compare(chain):
        ours = network(chain)
        manual, auto, logits, evaluation = all_gradients(ours, batch)
        assert_near(manual, auto, 1e-10, str(chain))
        session = onnxruntime.InferenceSession(export.content_of(ours, "onnx"))
        assert_near(session.run(None, {"images": images})[0], logits, 1e-5, str(chain))
        rows = portable.portable_network(ours)
        numpy = archive.logits(archive.Archive({"layers": rows.layers}, rows.arrays), images)
        assert_near(numpy, logits, 1e-5, str(chain))
        cases.append((ours, images[0], batch.labels[0]))
        expected.append(evaluation)

    compare()
    for case, found, right in zip(cases, on_the_page(cases), expected, strict=True):
        assert_page_is_right(found, right, str(case[0].model))


def a_chain(number):
    """The chain of a number for gradcheck: its sixth draw, as the first is the smallest chain."""
    found = []

    @hypothesis.seed(number)
    @settings(max_examples=6, deadline=None, database=None, phases=[Phase.generate])
    @given(chains(exports=False, classes=NUM_CLASSES))
    def collect(chain):
        found.append(chain)

    collect()
    return found[-1]


@pytest.mark.stress
def test_right_networks_pass_gradcheck(request):
    first, failed = request.config.getoption("seed"), []
    for number in range(first, first + (request.config.getoption("cases") or 400)):
        chain = a_chain(number)
        config = preset(from_object(chain).for_data(IMAGE, NUM_CLASSES))
        row = check_network(f"{number}: {chain}", NetworkCase(config, IMAGE))
        print(row, flush=True)
        failed += [] if row.ok else [row]
    assert not failed


def every_kind():
    """A fixed network of every kind of layer, with the settings that the drawn ones lack."""
    inner = [nn.Conv(8, (3, 3), padding=1, feature_group_count=2, name="conv1"), nn.relu]
    chain = [
        BatchNorm(name="norm1"), LeakyReLU(0.1),
        nn.Conv(8, (3, 3), (2, 2), use_bias=False, name="conv1"), BatchNorm(name="norm2"), nn.tanh,
        Residual(inner, name="residual1"),
    ]  # fmt: skip
    shortcut = [AveragePool(2, 2), nn.Conv(8, (1, 1), name="conv1")]
    return Chain([
        nn.Conv(6, (5, 5), strides=2, name="conv1"), nn.gelu,
        Residual(chain, shortcut, name="residual1"),
        nn.LayerNorm(use_scale=False, name="norm1"), nn.leaky_relu, AdaptiveAveragePool(6),
        LocalResponseNorm(n=4, alpha=0.2),
        nn.Conv(6, (3, 2), (1, 2), ((2, 0), (1, 1)), name="conv2"),
        BatchNorm(name="norm2"), nn.softmax, MaxPool(2, 1), nn.sigmoid, BatchNorm(name="norm3"),
        global_average_pool, nn.LayerNorm(epsilon=0.1, name="norm4"), nn.Dropout(0.5),
        nn.Dense(CLASSES, name="logits"),
    ])  # fmt: skip


@pytest.mark.slow
def test_the_page_of_a_network_of_every_kind_of_layer_is_right(float64):
    ours, images = network(every_kind()), np.random.default_rng(0).random((4, *IMAGE))
    batch = Batch(images, np.array([0, 1, 2, 1]), np.ones(4))
    (found,) = on_the_page([(ours, images[0], 0)])
    assert_page_is_right(found, all_gradients(ours, batch)[3], "every kind")


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_a_network_of_every_kind_of_layer_is_exported(kind, tmp_path):
    for package in export.NEEDS[kind]:
        pytest.importorskip(package)
    ours, images = network(every_kind()), np.random.default_rng(0).random((3, *IMAGE), np.float32)
    expected = np.asarray(ours.model.apply({"params": ours.params}, images))
    found = logits_of(kind, export.content_of(ours, kind), tmp_path / "file", images)
    assert_near(found, expected, 1e-5, kind)


def swish(x):
    """A layer of somebody's own."""
    return x * nn.sigmoid(x)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (swish, "swish: it has no rule"),
        (nn.Conv(2, (3, 3), kernel_dilation=2), "conv1: expected a convolution without dilation"),
        (nn.Conv(2, 3), "conv1: expected a convolution without dilation or mask"),
        (nn.Conv(2, (3, 3), padding=((-1, 0), (0, 0))), "conv1: its padding is negative"),
    ],
)
def test_a_layer_without_a_row_is_exported_by_stablehlo_alone(layer, named, tmp_path):
    chain = Chain([layer, flatten, nn.Dense(CLASSES, name="logits")])
    for attempt in (build.page_files, lambda ours: export.content_of(ours, "onnx")):
        with pytest.raises(UserError, match=f"the page cannot hold {named}.*--format=stablehlo"):
            attempt(network(chain))
    pytest.importorskip("flatbuffers")
    images = np.random.default_rng(0).random((3, *IMAGE), np.float32)
    expected = np.asarray(chain.apply({"params": network(chain).params}, images))
    content = export.content_of(network(chain), "stablehlo")
    found = logits_of("stablehlo", content, tmp_path / "file", images)
    assert_near(found, expected, 1e-5, named)


# Every number that is explained is the sum of its terms, and every gradient is checked.
EXPLAINED = """(() => {
  const found = [];
  const places = [...state.network.layers.keys(), -1, state.network.layers.length];
  for (const n of places) for (const [view, , array] of viewsOf(n)) {
    const index = largestAt(array());
    showCell(n, view, index, mapOf(n, view));
    const { value, terms = [], extra, check } = explain(state, n, view, index);
    const parts = [...terms.map(([, a, b]) => a * b), ...(extra ?? []).map(([, v]) => v)];
    const sum = parts.length ? parts.reduce((a, b) => a + b) : value;
    const verdict = check && checkDerivative(state, check, value).verdict;
    found.push([byId("cell-title").textContent, array()[index], value, sum, verdict]);
  }
  closeCell();
  return found;
})()"""


@pytest.mark.slow
@needs_browser
def test_each_number_of_every_kind_of_layer_shows_its_sum(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(build.one_file(build.page_files(network(every_kind()))))
    with Browser(tmp_path / "chromium") as browser:
        browser.resize(1280, 900)
        browser.open(path)
        draw(browser, "7")
        browser.click("#labels label:nth-child(3) input")
        found = browser.evaluate(EXPLAINED)
        assert len(found) > 60
        for title, drawn, value, total, verdict in found:
            assert drawn == pytest.approx(value, rel=1e-12), title
            assert total == pytest.approx(value, rel=1e-9, abs=1e-12), title
            assert verdict != "differ", title
            assert not re.search(r"undefined|NaN|\{", title), title
        assert {verdict for *_, verdict in found} >= {"agree", None}
        browser.click("#step")
        assert browser.evaluate("state.pass.p.every(Number.isFinite)")
        browser.click("#language")
        texts = browser.evaluate("[...document.querySelectorAll('h3')].map((e) => e.innerText)")
        assert not any(re.search(r"undefined|the |input|\{", text) for text in texts)
        browser.resize(360, 740, mobile=True)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert not browser.problems()
