"""Training in the page: its steps against JAX's autodiff and optax, then in a real browser."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from browser import Browser
from conftest import quick_jit, random_params, slow
from pages import draw, needs_browser, read, run_javascript, text_of, trained

from jaxnets.data.datasets import Split
from jaxnets.losses import LOSSES
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain
from jaxnets.models.layers import flatten
from jaxnets.models.precision import with_precision
from jaxnets.page import build
from jaxnets.predict.portable import folded
from jaxnets.server import page as served

RATE, STEPS, BATCH = 0.05, 10, 7
# The losses before each step of the batches, and the weights after the last one.
PROGRAM = """
const [images, labels, batches, settings] = DATA;
const network = readNetwork(RUN);
const trainer = new Trainer(network, { images: Uint8Array.from(images), labels, count: 30 });
trainer.begin(network, settings);
const losses = batches.map((batch) => trainer.step(batch));
const plain = (array) => Buffer.from(Float64Array.from(array).buffer).toString("base64");
const arrays = {};
network.layers.forEach((layer, n) => Object.keys(layer.shapes ?? {}).forEach((name) => {
  arrays[`${layer.name}.${name}`] = plain(layer[name]);
}));
console.log(JSON.stringify({ losses, arrays, tested: trainer.test(2) }));
"""


@pytest.fixture
def pictures(mnist):
    """Thirty pictures with their labels; two are held out."""
    images = np.rint(255 * np.asarray(mnist.train.images[:32])).astype(np.uint8)
    return Split(images, mnist.train.labels[:32])


def train_in_javascript(network, pictures, batches, momentum=0.0, bug="none", program=PROGRAM):
    settings = dict(rate=RATE, momentum=momentum, batch=BATCH, seed=3, bug=bug)
    data = [pictures.images.ravel().tolist(), pictures.labels.tolist(), batches, settings]
    page = build.page_files(network)
    program = page["trainer.js"][1].decode() + program
    return run_javascript(page, program, data)


def train_in_optax(network, pictures, batches, momentum):
    """The same steps by autodiff of the plain network in 64 bits, and by optax."""
    shown = folded(network)
    model, loss = with_precision(shown.model, "float64"), LOSSES[network.config.loss]
    optimizer = optax.sgd(RATE, momentum)
    images, labels = jnp.asarray(pictures.images / 255), jnp.asarray(pictures.labels)

    def loss_of(params, images, labels):
        logits: Any = model.apply({"params": params}, images)
        return loss(logits, labels).mean()

    @quick_jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss_of)(params, images[batch], labels[batch])
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, value

    params = jax.tree.map(np.float64, shown.params)
    state, losses = optimizer.init(params), []
    for batch in batches:
        params, state, value = step(params, state, np.array(batch))
        losses.append(float(value))
    return params, losses, float(loss_of(params, images[-2:], labels[-2:]))


@pytest.mark.parametrize(
    ("model", "changes", "momentum"),
    [
        ("softmax", {}, 0.0),
        ("mlp_functional", dict(hidden=(12, 9), activation="sigmoid"), 0.9),
        slow("mlp_handwritten", dict(hidden=(15,)), 0.9),
        slow("cnn", dict(hidden=(16,), dropout=0.0), 0.9),
        slow("cnn_tiny", {}, 0.0),  # Its batch norms are part of its convolutions.
    ],
)
def test_ten_steps_are_those_of_autodiff_and_optax(model, changes, momentum, pictures, float64):
    network = trained(model, **changes)
    batches = np.random.default_rng(0).integers(0, 30, (STEPS, BATCH)).tolist()
    found = train_in_javascript(network, pictures, batches, momentum)
    params, losses, tested = train_in_optax(network, pictures, batches, momentum)
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-4)
    assert found["tested"]["loss"] == pytest.approx(tested, rel=1e-4)
    for path, leaf in jax.tree.leaves_with_path(params):
        name = ".".join(key.key for key in path)
        ours = read(found["arrays"][name])
        np.testing.assert_allclose(ours, np.ravel(leaf), rtol=1e-4, atol=1e-7, err_msg=name)


def test_each_bug_changes_the_steps_and_leaves_no_trace(pictures, float64):
    network = trained("cnn", hidden=(8,), dropout=0.0)
    batches = [list(range(BATCH)), list(range(BATCH, 2 * BATCH))]
    bugs = ["none", "mask", "winners", "mean", "sign", "none"]
    again = """
    console.log(JSON.stringify(DATA[4].map((bug) => {
      const network = readNetwork(RUN), [images, labels, batches, settings] = DATA;
      const trainer = new Trainer(network, { images: Uint8Array.from(images), labels, count: 30 });
      trainer.begin(network, { ...settings, bug });
      batches.forEach((batch) => trainer.step(batch));
      return network.layers[0].kernel[4] + network.layers.at(-1).kernel[0];
    })));
    """
    program = f"DATA.push({json.dumps(bugs)});" + again
    found = train_in_javascript(network, pictures, batches, program=program)
    assert found[0] == found[-1] and len(set(found)) == len(bugs) - 1


def test_an_epoch_has_every_picture_once_and_dropout_drops_its_share(pictures):
    program = """
    const [images, labels, , settings] = DATA, network = readNetwork(RUN);
    const trainer = new Trainer(network, { images: Uint8Array.from(images), labels, count: 30 });
    trainer.begin(network, settings);
    const epochs = [0, 1].map(() => Array.from({ length: 5 }, () => trainer.nextBatch()));
    for (let n = 0; n < 5; n++) trainer.step();
    const { seen } = trainer;
    const { y, cache } = trainer.drops.forward({ rate: 0.3 }, new Float64Array(20000).fill(2));
    const { dx } = trainer.drops.backward({}, null, y, cache, new Float64Array(20000).fill(1));
    const still = KINDS.dropout.forward({ rate: 0.3 }, [1, 2]).y;
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const drawn = fresh(network, 5), others = fresh(network, 6), kernel = drawn.layers[1].kernel;
    const spread = Math.sqrt(mean(kernel.map((value) => value ** 2)));
    const same = [fresh(network, 5), others].map((one) => one.layers[1].kernel[7] === kernel[7]);
    const kept = [...new Set(y)], means = [mean(y), mean(dx)];
    console.log(JSON.stringify({ epochs, seen, means, kept, still, spread, same }));
    """
    found = train_in_javascript(trained("softmax"), pictures, [], program=program)
    for epoch in found["epochs"]:
        assert [len(batch) for batch in epoch] == [7, 7, 7, 7, 2]
        assert sorted(sum(epoch, [])) == list(range(30))
    assert found["epochs"][0] != found["epochs"][1]
    assert found["seen"] == 30  # Steps times the batch would be 35.
    assert sorted(found["kept"]) == [0, pytest.approx(2 / 0.7)] and found["still"] == [1, 2]
    assert found["means"] == [pytest.approx(2, abs=0.05), pytest.approx(1, abs=0.025)]
    assert found["spread"] == pytest.approx((2 / 784) ** 0.5, rel=0.03)  # Of 7,840 draws.
    assert found["same"] == [True, False]


@pytest.mark.slow
def test_the_pictures_are_training_images_with_their_labels(mnist):
    of_mnist = dataclasses.replace(trained("softmax"), data_sha256=mnist.checksum)
    pictures = build.practice(of_mnist)
    assert pictures is not None and len(pictures) == build.PRACTICE + build.HELD_OUT
    train = mnist.train
    known = {x.tobytes(): label for x, label in zip(train.images, train.labels, strict=True)}
    pixels = (pictures.images / np.float32(255)).astype(train.images.dtype)
    assert [known[image.tobytes()] for image in pixels] == pictures.labels.tolist()
    assert build.practice(trained("softmax", dataset="/nowhere")) is None
    # A stranger's run may name any folder here: other images than the run's stay out of its page.
    assert build.practice(dataclasses.replace(of_mnist, data_sha256="0" * 64)) is None
    assert build.practice(trained("softmax")) is None
    between = Chain([BatchNorm(), nn.relu, flatten, nn.Dense(10)])  # No layer can take it up.
    network = dataclasses.replace(of_mnist, model=between)
    network = dataclasses.replace(network, params=random_params(between, (28, 28, 1), 0))
    examples = build.practice(network)  # It does not train.
    assert examples is not None and set(examples.labels) == set(range(10))
    assert len(examples) <= 11 and '"count": 0' in build.practice_script(network, examples)


PAGE_FLAGS = ["--model=softmax", "--epochs=1", "--limit=1000", "--validation_size=0"]


@pytest.fixture(scope="module")
def softmax_page(run_python, tmp_path_factory):
    """The page of a little softmax regression, with pictures to train with."""
    folder = tmp_path_factory.mktemp("page")
    outcome = run_python("train.py", *PAGE_FLAGS, f"--workdir={folder / 'run'}")
    assert outcome.status == 0, outcome
    written = build.write_page(str(folder / "run"), str(folder / "page.html"))
    assert written.pictures == 1000 and "1,000 pictures" in written.text()
    return folder / "page.html"


@pytest.mark.slow
@needs_browser
def test_the_page_trains_before_the_eyes(softmax_page, tmp_path):
    with Browser(tmp_path / "chromium") as page:
        page.resize(1280, 900)
        page.open(softmax_page)
        draw(page, "7")
        page.click("#labels label:nth-child(8) input")
        before = page.evaluate("Array.from(state.network.layers[1].kernel)")
        page.evaluate("Trainer.prototype.step = () => { throw new Error('not in the worker'); }")
        quick = "['start', 'start', 'leave', 'start', 'start', 'step']"
        page.evaluate(f"{quick}.forEach((id) => byId('train-' + id).click())")  # Pictures unpack.
        page.wait("trained && trained.steps === 1")
        assert page.evaluate("worker instanceof Worker")
        assert "Step 1," in text_of(page, "#train-now")
        page.click("#train-start")
        page.wait("trained.tested.accuracy >= 0.8")
        assert page.evaluate("state.pass.p[7]") > 0.5  # The drawing follows.
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true})"
        )
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait("!trained.running")  # A hidden page computes nothing,
        page.evaluate("delete document.hidden")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait("trained.running")  # and goes on once it is seen.
        page.click("#train-start")
        page.wait("!trained.running && state.back")
        assert page.evaluate("byId('undo').disabled && !byId('reset').disabled")
        page.evaluate("byId('rate').value = '0.0001'")
        page.click("#step")
        assert "steps so far: 1" in text_of(page, "#moved")
        assert page.evaluate("document.querySelector('#moved .bad') === null")
        page.click("#undo")
        assert page.evaluate("state.steps") == 0
        views = page.evaluate("[...document.querySelectorAll('#train-maps canvas')].length")
        assert views == 2 and page.evaluate("trainedPoints.length") > 2
        page.evaluate("byId('train-bug').value = 'sign'")
        page.evaluate("byId('train-bug').dispatchEvent(new Event('change'))")
        page.wait("trained && trained.steps === 0")  # Another training begins anew.
        page.click("#train-start")
        page.wait("trained.steps > 20 && trained.tested.steps > 0")
        page.wait("!(trained.tested.accuracy > 0.5)")
        assert page.evaluate("byId('train-curve').querySelectorAll('.former').length") == 2
        page.click("#train-leave")
        page.wait("!running && !trained")
        assert page.evaluate("Array.from(state.network.layers[1].kernel)") == before
        page.click("#language")
        shown = text_of(page, "#train")
        assert "undefined" not in shown and "fresh" not in shown
        page.resize(390, 844, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not page.problems()


@needs_browser
def test_a_page_without_pictures_has_no_training(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(build.one_file(build.page_files(trained("softmax"))))
    with Browser(tmp_path / "chromium") as page:
        page.open(path)
        assert page.evaluate("byId('train').hidden") and not page.problems()


@needs_browser
def test_the_page_is_no_wider_than_a_phone(tmp_path, pictures, monkeypatch):
    network = trained("cnn", hidden=(8,), dropout=0.0)
    (tmp_path / "page.html").write_text(build.one_file(build.page_files(network, pictures)))
    monkeypatch.setattr(served, "practice", lambda network: pictures)
    version: Any = SimpleNamespace(trained=network)
    for name, (_, content) in served.served_files(version).items():
        (tmp_path / name).write_bytes(content)
    with Browser(tmp_path / "chromium") as phone:
        phone.resize(390, 844, mobile=True)
        for name in ("page.html", served.INDEX):
            phone.open(tmp_path / name)
            assert not phone.evaluate("byId('train').hidden")
            for _ in range(2):
                assert phone.evaluate("document.documentElement.scrollWidth") == 390
                phone.click("#language")
