"""Each method of a Network in each state that a Network can be in: it works, or says what it needs.

The states and the methods are listed; every pair is called.
"""

import copy
import signal
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.notebook.callbacks import Callback
from jaxnets.notebook.network import Network
from jaxnets.training.loop import NonFiniteLossError

QUICK: dict[str, Any] = dict(epochs=2, devices=1, batch_size=16)
COUNT, SIDE = 60, 12
LABELS = np.arange(COUNT) % 3

NO_TEST = "fit.x, y. holds no test images back; give them: net.evaluate.x_test, y_test."
NO_ARRAYS = r"arrays are in no file; expected net.fit.x, y. or jaxnets.load.DIR, data=.x, y.."
UNTRAINED = "the network is not trained; net.fit.. trains it"
NOT_SAVED_TRAINED = "no checkpoint of a trained network, only that of step 0, before training"
NO_EPOCH = "expected the history of an epoch or more"
OTHER_DATA = "x and y: expected those of the first fit, because the network is trained"


def images():
    """Images [60, 12, 12] uint8 of three classes, easy to tell apart."""
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (3, SIDE, SIDE))
    return ((prototypes[LABELS] + rng.integers(0, 256, (COUNT, SIDE, SIDE))) // 2).astype(np.uint8)


def fitted(network, *arrays, **settings):
    network.fit(*arrays, verbose=0, **settings)
    return network


def of_folder(root):
    """A network trained on a folder of pictures."""
    for number, (image, label) in enumerate(zip(images(), LABELS, strict=True)):
        folder = root / "pictures" / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return fitted(Network("softmax", str(root / "pictures"), **QUICK))


class Interrupts(Callback):
    """Ctrl-C after the first step."""

    def on_train_batch_end(self, batch, logs):
        signal.raise_signal(signal.SIGINT)


def interrupted(root):
    network = Network("softmax", (images(), LABELS), **QUICK)
    with pytest.raises(KeyboardInterrupt):
        network.fit(verbose=0, callbacks=Interrupts())
    assert int(network.state.step) and not network.history
    return network


def diverged(root):
    wild: dict[str, Any] = dict(
        optimizer="sgd", learning_rate=1e4, weight_decay=1.0
    )  # Each step: times -1e4.
    network = Network("softmax", (images(), LABELS), **QUICK, **wild)
    with pytest.raises(NonFiniteLossError, match="try a learning_rate below"):
        network.fit(verbose=0, epochs=9)
    return network


def stopped_early(root):
    slow: dict[str, Any] = QUICK | dict(early_stopping=1, learning_rate=1e-12, epochs=9)
    network = fitted(Network("softmax", (images(), LABELS), **slow))
    assert len(network.history) < 9
    return network


def new(root):
    return Network("softmax", (images(), LABELS), **QUICK)


OF_UNTRAINED = {"page": UNTRAINED, "report": UNTRAINED, "plot": NO_EPOCH}
OF_UNTRAINED |= {"load": NOT_SAVED_TRAINED}

# How each state is reached, and the methods that refuse in it, with what they say.
STATES = {
    "new": (new, OF_UNTRAINED),
    "fitted on arrays": (
        lambda root: fitted(Network("softmax"), images(), LABELS, **QUICK),
        {"evaluate": NO_TEST},
    ),
    "fitted on arrays, validated": (
        lambda root: fitted(
            Network("softmax"), images(), LABELS, validation_split=0.2, **QUICK
        ),
        {"evaluate": NO_TEST},
    ),
    "fitted twice, on batches": (
        lambda root: fitted(
            fitted(Network("softmax"), zip([images()], [LABELS], strict=True), **QUICK), epochs=1
        ),
        {"evaluate": NO_TEST},
    ),
    "fitted on a table": (
        lambda root: fitted(Network("softmax"), images()[:, 0, :5], LABELS, **QUICK),
        {"evaluate": NO_TEST, "page": "expected a run on pictures or on rows of 2 numbers, got one "
         "on rows of 5", "fit of x, y": OTHER_DATA},
    ),
    "fitted on a name": (
        lambda root: fitted(Network("softmax", "mnist", limit=64, validation_size=32, **QUICK)),
        {"fit of x, y": OTHER_DATA},
    ),
    "fitted on points": (
        lambda root: fitted(Network("softmax", "moons", limit=64, **QUICK)),
        {"fit of x, y": OTHER_DATA},
    ),
    "fitted on a folder": (of_folder, {"fit of x, y": OTHER_DATA}),
    "loaded": (
        lambda root: jaxnets.load(of_folder(root).save(root / "run")),
        {"fit of x, y": OTHER_DATA},
    ),
    "loaded, without its arrays": (
        lambda root: jaxnets.load(fitted(new(root)).save(root / "run")),
        dict.fromkeys(
            ("data", "experiment", "state", "evaluate", "evaluate of x, y", "gradients", "save",
             "load", "gradcheck", "fit"), NO_ARRAYS,
        ),
    ),
    "stopped early": (stopped_early, {}),
    "interrupted": (interrupted, {"plot": NO_EPOCH}),
    "diverged": (diverged, OF_UNTRAINED),
}  # fmt: skip


def some(network):
    """Four images or rows that fit a network, and labels for them."""
    shape = network.predictor.image_shape
    drawn = np.random.default_rng(0).random((4, *shape), np.float32)
    return drawn, network.classes_[[0, 1, 1, 0]]


# Every public method and property; the tests below fail if one is missing.
METHODS = {
    "repr": lambda net, path: repr(net),
    "config": lambda net, path: net.config,
    "history": lambda net, path: net.history,
    "stop_training": lambda net, path: net.stop_training,
    "class_names": lambda net, path: net.class_names,
    "classes_": lambda net, path: net.classes_,
    "data": lambda net, path: net.data,
    "experiment": lambda net, path: net.experiment,
    "state": lambda net, path: net.state,
    "predictor": lambda net, path: net.predictor,
    "summary": lambda net, path: net.summary(),
    "predict": lambda net, path: net.predict(some(net)[0]),
    "predict_proba": lambda net, path: net.predict_proba(some(net)[0]),
    "call": lambda net, path: net(some(net)[0]),
    "score": lambda net, path: net.score(*some(net)),
    "evaluate": lambda net, path: net.evaluate(),
    "evaluate of x, y": lambda net, path: net.evaluate(*some(net)),
    "gradients": lambda net, path: net.gradients(*some(net)),
    "gradcheck": lambda net, path: net.gradcheck(),
    "save": lambda net, path: net.save(path / "saved"),
    "load": lambda net, path: jaxnets.load(net.save(path / "again")).predict(some(net)[0]),
    "page": lambda net, path: net.page(path / "page.html"),
    "report": lambda net, path: net.report(path / "report.html"),
    "plot": lambda net, path: jaxnets.plot(net.history),
    "copy": lambda net, path: (copy.copy(net), copy.deepcopy(net)),
    "fit": lambda net, path: copy.copy(net).fit(epochs=1, verbose=0),
    "fit of x, y": lambda net, path: copy.copy(net).fit(images(), LABELS, epochs=1, verbose=0),
}
SLOW = ("gradcheck", "report", "fit", "fit of x, y")  # Each takes a second or more.
QUICKLY_MADE = ("new", "fitted on arrays, validated", "loaded", "interrupted")


@pytest.fixture(
    scope="module",
    params=[pytest.param(s, marks=[pytest.mark.slow] * (s not in QUICKLY_MADE)) for s in STATES],
)
def state(request, tmp_path_factory):
    """A network in a state, and the methods that refuse in it."""
    make, refusals = STATES[request.param]
    return make(tmp_path_factory.mktemp("state")), refusals


@pytest.mark.filterwarnings("ignore:the network is not trained:UserWarning")
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.slow] * (m in SLOW)) for m in METHODS]
)
def test_each_method_works_or_says_what_it_needs(state, method, tmp_path):
    network, refusals = state
    if method not in refusals:
        METHODS[method](network, tmp_path)
        return
    with pytest.raises(UserError, match=refusals[method]) as refused:
        METHODS[method](network, tmp_path)
    assert "\n" not in str(refused.value)


def test_every_public_method_is_in_the_table():
    public = {name for name in dir(Network) if not name.startswith("_")}
    assert public <= set(METHODS), public - set(METHODS)


def test_a_report_without_test_images_judges_by_the_validation_images(tmp_path, capsys):
    network = fitted(Network("softmax"), images(), LABELS, validation_split=0.2, **QUICK)
    network.report(tmp_path / "report.html")
    assert "no test images were given" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    right = round(12 * network.history["val_accuracy"][-1])
    assert f"{right} of 12 validation images are right" in text
    assert "One image through the layers" in text and "test images are right" not in text


def test_a_report_without_any_held_out_images_shows_what_there_is(tmp_path, capsys):
    network = fitted(Network("softmax"), images(), LABELS, **QUICK)
    network.report(tmp_path / "report.html")
    assert "no test and no validation images were given" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    assert 'id="learning"' in text and 'id="gradients"' in text and 'id="classes"' not in text


@pytest.mark.parametrize("what", ["page", "report"])
def test_only_a_file_of_its_own_is_replaced(what, tmp_path):
    network, file = fitted(new(tmp_path)), tmp_path / f"{what}.html"
    write = getattr(network, what)
    file.write_text("<!doctype html><title>my notes</title>")
    with pytest.raises(UserError, match=r"was not written by jaxnets; --output=FILE takes another"):
        write(file)
    assert "my notes" in file.read_text()
    file.write_text("")  # Nothing is lost.
    write(file)
    before = file.read_text()
    write(file)
    assert len(before) > 1000 and file.read_text()
