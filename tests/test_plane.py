"""Points of a plane: their sets, and the page of a network on them against JAX and in a browser."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from browser import Browser
from conftest import quick_jit, random_params
from pages import needs_browser, printed_in_node, read, text_of

from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.data import planes
from jaxnets.data.load import load_dataset
from jaxnets.models.precision import with_precision
from jaxnets.networks.create import create_model
from jaxnets.page import build
from jaxnets.predict.trained import TrainedNetwork

MEAN, STD = (0.1, -0.2), (0.5, 0.8)
RATE, STEPS = 0.1, 10
SCALING = [{"kind": "normalize", "mean": MEAN, "std": STD}]
# Rounded, they are the same on every machine and with every NumPy.
CHECKSUMS = dict(circles="56893172", moons="b555f749", spirals="9133e43e", xor="5dc0891c")


@pytest.mark.parametrize("name", planes.SETS)
def test_a_set_is_the_same_everywhere_and_no_line_parts_it(name):
    data = load_dataset(name)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 200)
    assert data.image_shape == (2,) and data.is_table and data.name == name
    assert data.checksum.startswith(CHECKSUMS[name])
    assert np.abs(data.train.images).max() < 1.4 and abs(data.train.labels.mean() - 0.5) < 0.02
    points = np.c_[data.train.images, np.ones(900)]
    best, *_ = np.linalg.lstsq(points, 2 * data.train.labels - 1.0)
    assert np.mean((points @ best > 0) == data.train.labels) < 0.93
    near = np.linalg.norm(data.test.images[:, None] - data.train.images, axis=2).argmin(axis=1)
    assert np.mean(data.train.labels[near] == data.test.labels) > 0.98  # But neighbours do.


def test_what_takes_no_points_says_so(run_main):
    run_main("--model=cnn", "--dataset=xor").assert_refused("got rows of 2 numbers")
    run_main("--dataset=xor", "--data_dir=.").assert_refused("expected none for xor")


def network(model: str = "mlp_functional", shape=(2,), classes: int = 2, **changes):
    """A network on points with parameters drawn at random."""
    config = preset(model, dataset="circles", **changes)
    config = dataclasses.replace(config, scaling=SCALING)
    chain = create_model(config, classes)
    params = random_params(chain, shape)
    return TrainedNetwork(config, chain, params, shape, tuple("0123456"[:classes]), 7, True)


def run_javascript(trained, program: str, data):
    """What a program prints that follows the programs of a page's worker."""
    page = build.page_files(trained)
    parts = [page[name][1].decode() for name in ("run.js", "network.js", "trainer.js")]
    text = "\n".join([*parts, f"const DATA = {json.dumps(data)};", program])
    return printed_in_node(text)


PROGRAM = """
const [points, labels, batches, settings] = DATA, network = readNetwork(RUN);
const images = Float64Array.from(points.flat());
const trainer = new Trainer(network, { images, labels, count: 30 });
trainer.begin(network, settings);
const losses = batches.map((batch) => trainer.step(batch)), arrays = {};
const plain = (array) => Buffer.from(Float64Array.from(array).buffer).toString("base64");
network.layers.forEach((layer) => Object.keys(layer.shapes ?? {}).forEach((name) => {
  arrays[`${layer.name}.${name}`] = plain(layer[name]);
}));
console.log(JSON.stringify({ losses, arrays, tested: trainer.test(2) }));
"""


@pytest.mark.parametrize(
    ("changes", "momentum"),
    [
        (dict(model="softmax"), 0.0),
        (dict(hidden=(8,)), 0.9),
        (dict(hidden=(5, 4), activation="sigmoid", classes=3), 0.9),
        (dict(hidden=(6,), loss="half_mse"), 0.0),
    ],
)
def test_ten_steps_on_points_are_those_of_autodiff_and_optax(changes, momentum, float64):
    trained = network(**changes)
    random = np.random.default_rng(0)
    points, labels = random.normal(size=(32, 2)), random.integers(0, len(trained.class_names), 32)
    batches = random.integers(0, 30, (STEPS, 7)).tolist()
    settings = dict(rate=RATE, momentum=momentum, batch=7, seed=3, bug="none")
    data = [points.tolist(), labels.tolist(), batches, settings]
    found = run_javascript(trained, PROGRAM, data)

    model = with_precision(trained.model, "float64")
    squares = trained.config.loss == "half_mse"

    def loss_of(params, points, labels):
        logits: Any = model.apply({"params": params}, points)
        targets = jax.nn.one_hot(labels, logits.shape[1])
        if squares:
            return ((jax.nn.softmax(logits) - targets) ** 2).sum(axis=1).mean() / 2
        return optax.softmax_cross_entropy(logits, targets).mean()

    optimizer = optax.sgd(RATE, momentum)
    params = jax.tree.map(np.float64, trained.params)
    state, losses = optimizer.init(params), []
    gradient = quick_jit(jax.value_and_grad(loss_of))
    for batch in batches:
        value, d = gradient(params, jnp.asarray(points[batch]), jnp.asarray(labels[batch]))
        changed, state = optimizer.update(d, state, params)
        params = optax.apply_updates(params, changed)
        losses.append(float(value))
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-4)
    tested = float(loss_of(params, jnp.asarray(points[-2:]), jnp.asarray(labels[-2:])))
    assert found["tested"]["loss"] == pytest.approx(tested, rel=1e-4)
    for path, leaf in jax.tree.leaves_with_path(params):
        name = ".".join(key.key for key in path)
        ours = read(found["arrays"][name])
        np.testing.assert_allclose(ours, np.ravel(leaf), rtol=1e-4, atol=1e-7, err_msg=name)


def test_networks_that_have_no_plane_are_refused_in_a_line():
    with pytest.raises(UserError, match="pictures or on rows of 2 numbers, got one on rows of 3"):
        build.page_files(dataclasses.replace(network(), image_shape=(3,)))
    with pytest.raises(UserError, match="at most 6 classes, got 7"):
        build.page_files(network(classes=7))


def test_the_page_has_the_points_of_the_run_first_and_the_other_sets():
    trained = dataclasses.replace(network(), data_sha256=load_dataset("circles").checksum)
    points = build.practice(trained)
    assert points is not None
    script = build.points_script(trained, points)
    sets = json.loads(script.partition("const PRACTICE = ")[2].removesuffix(";\n"))["sets"]
    assert [*sets][0] == "circles" and sets.keys() == planes.SETS.keys()
    train = load_dataset("circles").train.images
    for name, one in sets.items():
        assert len(one["points"]) == len(one["labels"]) == 400 and one["count"] == 300
        assert set(one["labels"]) == {0, 1}, name
    shown = np.asarray(sets["circles"]["points"], np.float32)
    assert (shown[:, None] == train).all(axis=2).any(axis=1).all()  # No test point.
    assert build.practice(dataclasses.replace(network(), data_sha256="0" * 64)) is None


@pytest.fixture
def plane(tmp_path):
    """The page of a network on circles, open in a browser."""
    trained = dataclasses.replace(
        network(hidden=(4,)), data_sha256=load_dataset("circles").checksum
    )
    files = build.page_files(trained, build.practice(trained))
    (tmp_path / "page.html").write_text(build.one_file(files, kind=build.PLANE))
    with Browser(tmp_path / "chromium") as page:
        page.resize(1280, 900)
        page.open(tmp_path / "page.html")
        yield page
        assert not page.problems()


def choose(page, name: str, value: str) -> None:
    page.evaluate(f"byId('{name}').value = '{value}'")
    page.evaluate(f"byId('{name}').dispatchEvent(new Event('change'))")


COLOURS = "byId('plane').toDataURL()"


@needs_browser
@pytest.mark.slow
def test_the_colours_follow_the_training_and_a_wrong_pass_spoils_it(plane):
    before = plane.evaluate(COLOURS)
    assert text_of(plane, "#train-now").startswith("The run's weights after 7 steps: ")
    choose(plane, "hidden", "8")
    plane.click("#train-step")
    assert text_of(plane, "#train-now").startswith("Step 1: ")
    assert plane.evaluate(COLOURS) != before
    plane.click("#train-start")
    plane.wait("rightOf(state.points) >= 390")
    plane.click("#train-start")
    assert not plane.evaluate("state.running")
    choose(plane, "train-bug", "sign")  # Another training begins, and waits.
    assert plane.evaluate("trainer.steps") == 0
    for _ in range(30):
        plane.evaluate("byId('train-step').click()")
    assert not plane.evaluate("rightOf(state.points) >= 390")
    plane.click("#train-leave")
    assert plane.evaluate("state.network === runsNetwork") and plane.evaluate(COLOURS) == before


@needs_browser
def test_points_are_added_and_removed_by_click_and_key(plane):
    number = "state.points.length"
    assert plane.evaluate(number) == 400
    choose(plane, "data", "own")
    assert plane.evaluate(number) == 0 and plane.evaluate("byId('train-start').disabled")
    plane.click("#labels label:nth-child(2) input")
    plane.click("#plane", 0.75, 0.25)
    (point,) = plane.evaluate("state.points")
    assert point["label"] == 1 and not point["held"] and plane.evaluate("trainer.count") == 1
    place = plane.evaluate("placeOf(state.points[0].at)")
    assert place == [pytest.approx(0.75, abs=0.01), pytest.approx(0.25, abs=0.01)]
    plane.click("#labels label:nth-child(3) input")
    plane.click("#plane", 0.25, 0.25)  # None is there.
    assert plane.evaluate(number) == 1
    plane.click("#plane", 0.75, 0.25)
    assert plane.evaluate(number) == 0
    plane.evaluate("byId('plane').focus()")
    for key, code in (("ArrowRight", 39), ("ArrowUp", 38)):
        plane.key(key, code)
    plane.key("2", 50, "2")
    assert plane.evaluate("[state.points[0].label, placeOf(state.points[0].at)]") == [
        1,
        [pytest.approx(0.52), pytest.approx(0.48)],
    ]
    assert "1 points" in text_of(plane, "#live")
    plane.key("Delete", 46)
    assert plane.evaluate(number) == 0
    choose(plane, "data", "spirals")
    plane.click("#points-again")
    assert plane.evaluate(number) == 400
    plane.click("#language")
    words = plane.evaluate("document.body.innerText")
    assert "undefined" not in words and "Start" not in words
    plane.resize(390, 844, mobile=True)
    for _ in range(2):
        assert plane.evaluate("document.documentElement.scrollWidth") == 390
        plane.click("#language")


# The gradient of the loss of a point with respect to a number of each kernel, and its difference.
DERIVED = """(() => {
  const pass = forward(state.network, Float64Array.of(0.3, -0.7));
  return backward(state.network, pass, 1).gradients.flatMap(({ kernel }) => kernel?.[3] ?? []);
})()"""
DIFFERENCES = """state.network.layers.filter(({ kernel }) => kernel).map(({ kernel }) => {
  const own = kernel[3], losses = [own + 1e-4, own - 1e-4].map((value) => {
    kernel[3] = value;
    return lossOf(state.network, forward(state.network, Float64Array.of(0.3, -0.7)), 1);
  });
  kernel[3] = own;
  return (losses[0] - losses[1]) / 2e-4;
})"""


@needs_browser
def test_a_unit_shows_its_line(plane):
    plane.click(".units button:nth-of-type(2)")
    n, k = plane.evaluate("[state.unit.n, state.unit.k]")
    assert k == 1
    a, b, c = plane.evaluate("lineOf(state.unit)")
    at = [(0.3, -0.7), (0.1, 0.9), (-1.0, 0.2)]
    z = plane.evaluate(f"{json.dumps(at)}.map((x) => forward(state.network, x).values[{n + 1}][1])")
    np.testing.assert_allclose([a * x + b * y + c for x, y in at], z, rtol=1e-9)
    assert text_of(plane, "#unit").startswith("Layer 1, unit 2: z = ")
    line = "zeroLine((n) => field[n].values[state.unit.n + 1][state.unit.k]).flat().map(pointAt)"
    points = np.array(plane.evaluate(line))
    assert len(points) > 10
    np.testing.assert_allclose(points @ [a, b] + c, 0, atol=1e-9)  # z = 0 on all of it.
    plane.click(".units button:nth-of-type(2)")
    assert plane.evaluate("state.unit === null") and text_of(plane, "#unit") == ""
    choose(plane, "hidden", "8, 8")
    choose(plane, "activation", "tanh")
    assert plane.evaluate(DIFFERENCES) == pytest.approx(plane.evaluate(DERIVED), rel=1e-6)
    choose(plane, "hidden", "")
    assert plane.evaluate("document.querySelectorAll('.units button').length") == 0


# The texts of the curves that leave the picture, and those of the legend that meet the next one.
CUT = """(() => {
  const svg = byId("train-curve").querySelector("svg"), { width } = svg.viewBox.baseVal;
  const texts = [...svg.querySelectorAll("text")].map((text) => ({ text, box: text.getBBox() }));
  const cut = texts.filter(({ box }) => box.x < 0 || box.x + box.width > width);
  const legend = texts.filter(({ text }) => text.getAttribute("y") === "9");
  const end = ({ x, width }) => x + width;
  const met = legend.slice(1).filter(({ box }, n) => end(legend[n].box) + 18 > box.x);
  return [legend.length, [...cut, ...met].map(({ text }) => text.textContent)];
})()"""


@needs_browser
def test_the_legend_of_the_curves_is_whole(plane):
    for button in ("step", "step", "again", "step", "step"):
        plane.click(f"#train-{button}")
    for width in (1280, 390):
        plane.resize(width, 900, mobile=width == 390)
        for _language in range(2):
            plane.frame()
            assert plane.evaluate(CUT) == [3, []]
            plane.click("#language")
