"""--engine=onnxruntime: predict, the server and Network answer as by JAX; what is refused."""

import dataclasses
import importlib.util
import json
from typing import Any

import jax
import numpy as np
import pytest
from conftest import random_images, slow
from exports import trained
from PIL import Image
from served import Served, SoftmaxRun, inference, random_bytes

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.predict import predict
from jaxnets.predict.predict import load_predictor, to_predictor
from jaxnets.server import models
from jaxnets.training.pixels import to_float

INFER = "/v2/models/a/infer"


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx", reason="it writes the network for ONNX Runtime; not installed")
    return pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = SoftmaxRun(tmp_path_factory.mktemp("engine") / "a")
    yield run
    run.folder.close()


@pytest.mark.oracle
@pytest.mark.parametrize(
    "model",
    ["mlp_functional", "cnn", *map(slow, ("cnn_bn", "resnet20", "alexnet_small"))],
)
def test_the_engines_give_one_networks_logits(onnxruntime, model):
    """For bytes and floats, for a full batch and a padded one; alexnet_small's is cropped."""
    network = trained(model)
    ours, theirs = (to_predictor(network, engine=engine) for engine in ("jax", "onnxruntime"))
    for count in (1, 3):
        floats = random_images(count, *network.image_shape)
        for images in (floats, np.rint(255 * floats).astype(np.uint8)):
            expected = ours.logits(images)
            found = theirs.logits(images)
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
            for form in (images, list(images)):
                np.testing.assert_allclose(theirs(form), ours(images), rtol=0, atol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_onnx_runtime_computes_in_float32(onnxruntime, float64, precision):
    network = trained("cnn", precision=precision)
    exact = trained("cnn", precision="float64").model
    images = random_images(2, 28, 28, 1)
    wanted = exact.apply({"params": jax.tree.map(np.float64, network.params)}, images)
    for given in (images, images.astype(np.float64)):
        found = to_predictor(network, engine="onnxruntime").logits(given)
        np.testing.assert_allclose(found, np.asarray(wanted), rtol=0, atol=1e-5)


@pytest.mark.oracle
@pytest.mark.slow
def test_a_network_on_a_table_predicts_by_either_engine_while_it_trains(onnxruntime, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(3, 100, (120, 5))
    names = np.array(["low", "high"])[(rows[:, 0] > 3).astype(int)]
    net = jaxnets.Network("mlp_functional", (rows, names), epochs=1)
    before = np.zeros((7, 2))
    for _ in range(2):  # The second time, each engine must follow the training.
        net.fit(epochs=1, verbose=0)
        found = net.predict(rows[:7], engine="onnxruntime")
        np.testing.assert_allclose(found, net.predict(rows[:7]), rtol=0, atol=1e-5)
        assert np.abs(found - before).max() > 1e-4
        before = found
    net.save(tmp_path / "run")
    loaded = jaxnets.load(tmp_path / "run").predict(rows[:7], engine="onnxruntime")
    np.testing.assert_allclose(loaded, before, rtol=0, atol=1e-6)
    by_folder = load_predictor(str(tmp_path / "run"), engine="onnxruntime")(rows[:7])
    np.testing.assert_array_equal(by_folder, loaded)


@pytest.mark.oracle
def test_the_command_prints_the_same(onnxruntime, run, run_command, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, random_bytes(3), strict=True):
        Image.fromarray(image[..., 0]).save(path)
    command = ("predict", run.path, *paths, "--prepare=picture", "--json", "--top=10")
    outcomes = [run_command(*command, f"--engine={name}") for name in ("jax", "onnxruntime")]
    assert [one.status for one in outcomes] == [0, 0]
    ours, theirs = ([picture["predictions"] for picture in json.loads(o.out)] for o in outcomes)
    assert [[one["label"] for one in row] for row in theirs] == [
        [one["label"] for one in row] for row in ours
    ]
    values = [[[one["probability"] for one in row] for row in rows] for rows in (theirs, ours)]
    np.testing.assert_allclose(*values, rtol=0, atol=1e-5)


@pytest.mark.oracle
def test_the_server_answers_by_onnx_runtime_and_follows_the_run(onnxruntime, tmp_path, monkeypatch):
    """NumPy has the answers, too; JAX could not compute them."""
    monkeypatch.setattr(models, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(models, "compile_network", lambda *_: None)
    monkeypatch.setattr(predict, "compile_network", None)
    run = SoftmaxRun(tmp_path / "a")
    with run.folder, Served([run.path], tmp_path / "log", engine="onnxruntime") as server:
        images, name = random_bytes(5), "1"
        for step in (1, 2):
            if step == 2:
                run.save(2, seed=5)
                while name == "1":
                    name = server.post(INFER, inference(images))["model_version"]
            found = server.post(INFER, inference(images))["outputs"][0]["data"]
            wanted = run.probabilities(to_float(images)).ravel()
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_the_extra_is_named_where_it_is_missing(run, run_command, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *_: name != missing or None if name.startswith("onnx") else find(name),
    )
    for command in (("predict", run.path, "x.png"), ("serve", run.path, "--port=0")):
        outcome = run_command(*command, "--engine=onnxruntime")
        outcome.assert_refused(
            f"{missing} is not installed", "install the extra: pip install 'jaxnets[export]'"
        )


def test_an_unknown_engine_is_refused(run, run_command):
    outcome = run_command("predict", run.path, "x.png", "--engine=torch")
    outcome.assert_refused("engine", "jax", "onnxruntime", "torch")
    with pytest.raises(UserError, match=r'unknown engine "onnx" \(known: jax, onnxruntime\)'):
        load_predictor(str(run.path), engine="onnx")


@pytest.mark.oracle
def test_a_network_that_onnx_cannot_hold_is_refused_in_one_line(onnxruntime):
    network = trained("cnn")
    first: Any = network.model.layers[0]
    layers = [first.clone(kernel_dilation=2), *network.model.layers[1:]]
    strange = dataclasses.replace(network, model=network.model.clone(layers=layers))
    with pytest.raises(UserError, match="onnx and the page cannot hold conv1: .*StableHLO"):
        to_predictor(strange, engine="onnxruntime")
