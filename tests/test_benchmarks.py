"""`python -m benchmarks`: the peers compute one network; the page's ratios are those it shows."""

import dataclasses
import doctest
import importlib
import json
import re

import jax
import numpy as np
import pytest
from conftest import ROOT, assert_close, shapes_of, slow
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks import growth
from benchmarks.__main__ import main
from benchmarks.peers import networks, page, run
from benchmarks.peers.networks import (
    draw_params,
    flops_per_image,
    layers_of,
    load_images,
    network_of,
)
from benchmarks.peers.ways import GROWING, NETWORKS, TRAINING, named
from jaxnets.models import MODELS

# As in test_keras.py: Keras on PyTorch, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")

LIBRARIES = {
    "torch": "pytorch:PyTorch",
    "sklearn": "scikit:ScikitLearn",
    "keras": "keras_fit:Keras",
}
LIBRARIES |= {"flax": "plain_flax:Flax", "numpy": "plain_numpy:NumPy", "jax": "ours:Jaxnets"}
LIBRARIES |= {"onnxruntime": "onnx_session:OnnxRuntime"}


def create(library, network, params, request):
    """A peer's network, if its library is installed; Keras runs on PyTorch here."""
    if library == "keras":
        request.getfixturevalue("keras")
    pytest.importorskip(library)
    module, _, name = LIBRARIES[library].partition(":")
    return getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)(network, params)


def problem(model, count):
    """A network without dropout, any weights, images and labels; a batch is all of them."""
    network = dataclasses.replace(network_of(model, batch_size=count), dropout=0.0)
    params, rng = draw_params(network), np.random.default_rng(1)
    for layer in params.values():
        for name, array in layer.items():
            if name != "kernel":
                array += rng.normal(0, 0.1, array.shape).astype(np.float32)
    return network, params, *load_images(network, count)


def sizes_of(network):
    """The arguments of the network's own chain."""
    hidden = () if network.model in ("softmax", "alexnet", "resnet20") else ("hidden",)
    large = dict(input_size=224) if network.model == "alexnet" else {}
    return large | {name: getattr(network, name) for name in ("num_classes", *hidden)}


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("library", "model"),
    [
        ("numpy", "mlp"),
        ("torch", "cnn"),
        # Those with which the steps below are compared, and what takes no step there.
        slow("numpy", "softmax"),
        *(slow("torch", model) for model in ("mlp", "alexnet", "resnet20")),
        *(slow(library, "alexnet") for library in ("keras", "flax")),
        slow("sklearn", "mlp"),
        slow("onnxruntime", "cnn"),
    ],
)
def test_a_peer_has_the_logits_of_the_networks_own_chain(library, model, request):
    network, params, images, _ = problem(model, 2 if model == "alexnet" else 16)
    chain = MODELS[model](**sizes_of(network))
    expected = np.asarray(chain.apply({"params": unflatten_dict(params, sep="/")}, images))
    peer = create(library, network, params, request)
    assert_close(log_softmax(peer.logits(images)), log_softmax(expected), 1e-5)


def keep_from_kinks(params):
    """Changes batch norms so that rounding switches no ReLU; each that it does changes the step.

    Half of the units within a block are off. Before each ReLU |x| was 0.03 or more.
    """
    for name, layer in params.items():
        if "scale" in layer:
            layer["scale"] /= 8
            layer["bias"] += 1
            if name.endswith("chain/norm1"):
                layer["bias"][::2] -= 2


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("library", "model"),
    [
        ("numpy", "softmax"),
        slow("sklearn", "softmax"),
        *(slow(library, "mlp") for library in ("torch", "keras", "flax", "jax")),
        *(slow(library, "cnn") for library in ("keras", "flax", "jax")),
        *(slow(library, "resnet20") for library in ("keras", "flax", "jax")),
    ],
)
def test_a_step_leads_a_peer_to_the_same_logits(library, model, request):
    """NumPy's and PyTorch's gradients are no autodiff of JAX's; the others must agree with them.

    PyTorch's running variances follow the unbiased variance of a batch, the others' the biased one.
    In this step that is 4e-7 of the largest logit, and all else in resnet20 1.5e-7.
    """
    network, params, images, labels = problem(model, 32)
    if model == "resnet20":
        keep_from_kinks(params)
    other = "numpy" if network.is_dense and library != "numpy" else "torch"
    expected = create(other, network, params, request)
    peer = create(library, network, params, request)
    before = log_softmax(peer.logits(images))
    for one in (peer, expected):
        one.epoch(images, labels)
    after = log_softmax(peer.logits(images))
    assert np.abs(after - before).max() > 1e-3
    tolerance = 1e-5 if model == "resnet20" else 1e-4
    assert_close(after, log_softmax(expected.logits(images)), tolerance)


@pytest.mark.parametrize("model", NETWORKS)
def test_the_table_of_layers_is_that_of_the_network(model):
    network = network_of(model)
    chain = MODELS[model](**sizes_of(network))
    shapes: dict = flatten_dict(shapes_of(chain, network.image_shape))
    kernels = {"/".join(path[:-1]): x.shape for path, x in shapes.items() if path[-1] == "kernel"}
    assert {name: shape for name, shape, _ in layers_of(network)} == kernels


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "alexnet", "resnet20"])
def test_the_products_are_those_that_xla_counts(model):
    network = network_of(model)
    chain = MODELS[model](**sizes_of(network))
    image = jax.ShapeDtypeStruct((1, *network.image_shape), np.float32)
    params = shapes_of(chain, network.image_shape)
    lowered = jax.jit(lambda p, x: chain.apply({"params": p}, x)).lower(params, image)
    counted = (lowered.cost_analysis() or {})["flops"]
    # XLA counts biases, ReLUs and pools too, and leaves out what falls on the padding.
    assert flops_per_image(network, training=False) == pytest.approx(counted, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["channels", "side"])
def test_the_products_of_growth_are_those_that_xla_counts(axis):
    point = growth.USUAL | {"batch": 1, axis: 64}
    chain = growth.network(point["channels"])
    image = jax.ShapeDtypeStruct((1, point["side"], point["side"], 3), np.float32)
    params = shapes_of(chain, image.shape[1:])
    lowered = jax.jit(lambda p, x: chain.apply({"params": p}, x)).lower(params, image)
    counted = (lowered.cost_analysis() or {})["flops"]
    assert growth.flop(**point) / 3 == pytest.approx(counted, rel=0.1)


def test_the_slope_of_a_power_is_its_exponent():
    assert growth.slope((1, 2, 4), [3, 12, 48]) == pytest.approx(2)


@pytest.mark.parametrize("module", [networks, page])
def test_the_examples_in_the_docstrings_hold(module):
    failed, tried = doctest.testmod(module)
    assert tried and not failed


def numbers(**changes):
    """A tiny benchmark's numbers: two rounds, made up."""
    rng = np.random.default_rng(0)
    measurements = []

    def add(part, way, **more):
        for number in range(2):
            seconds = dict(wall=list(rng.uniform(1, 3, 3)), cpu=list(rng.uniform(1, 3, 3)))
            one = {"part": part, "way": way, "round": number, "peak_mb": rng.uniform(200, 900)}
            measurements.append({**one, **seconds, **more})

    rates = dict(sgemm_gflops=[199.0, 203.4], sgemm_gflops_cpu=[99.0, 104.0], copy_gb=[11.0])
    add("machine", "machine", **rates)
    for way in ("jaxnets", "PyTorch", "NumPy"):
        for network, images in (("softmax", 60000), ("cnn", 12800)):
            if way != "NumPy" or network != "cnn":
                add("rate", way, network=network, images=images)
        add("inference", way, network="cnn", images=9984)
        add("latency", way, network="cnn", images=1, slow=[4.0])
        for cold in (True, False):
            add("startup", way, network="cnn", cold=cold)
        for value in (32, 128):
            add("growth", way, network="cnn", axis="batch", value=value, images=12800)
    for target in (0.99, 0.995):
        own = [{"wall": 7.5 / (1 - target) / 100, "cpu": 11.0, "accuracy": target + 0.001}]
        add("accuracy", "jaxnets", cold=False, target=target, epochs=own)
    slow_one = [{"wall": 31.0 * n, "cpu": 50.0 * n, "accuracy": 0.985 + n / 500} for n in (1, 2, 3)]
    add("accuracy", "PyTorch's example", epochs=slow_one)
    add("accuracy", "Keras' example on JAX", epochs=slow_one[:1])
    quicker = [{"wall": 20.0, "cpu": 21.0, "accuracy": 0.992}]
    add("accuracy", "Flax, the same network", epochs=quicker)
    measurements.append(
        {"part": "rate", "network": "cnn", "way": "Flax", "round": 0, "error": "no | memory"}
    )
    found = {"measurements": measurements, "quick": False, "date": "2026-01-01", "load": 0.1}
    found |= {"machine": {"processor": "a processor", "cores": 2, "system": "Linux"}}
    return {**found, "versions": {"jax": "1.2"}, "left_out": {"Flax": ["flax"]}, **changes}


def tables(text):
    """The tables of a page: the heading's cells, and each row's."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def test_every_ratio_is_that_of_the_numbers_beside_it():
    text, _ = page.draw(numbers(), "page")
    checked = 0
    for head, rows in tables(text):
        for column, name in enumerate(head):
            if not name.startswith("/ "):
                continue
            source = max(i for i in range(column) if not head[i].startswith(("from", "/", "95")))
            shown = [row for row in rows if row[column] != "–"]
            values = {row[0]: float(row[source].replace(",", "")) for row in shown}
            theirs = [
                value
                for way, value in values.items()
                if not way.startswith("jaxnets") and ("peer" in name or "example" in way)
            ]
            for row in shown:
                quotient = values[row[0]] / (max if "best" in name else min)(theirs)
                off = 0.0051 if quotient >= 0.1 else 0.05 * quotient
                assert float(row[column]) == pytest.approx(quotient, abs=off)
                checked += 1
    assert checked > 30


def test_the_front_compares_with_the_best_of_the_others():
    text, _figures = page.front(numbers(), "page", "notes/all.md")
    ((_head, rows),) = tables(text)
    assert len(rows) > 2
    found = {row[0].partition(",")[0]: row[1:] for row in rows}
    for what, (ours, best, times) in found.items():
        theirs, _, peer = best.partition(", ")
        quotient = float(ours.replace(",", "")) / float(theirs.replace(",", ""))
        quotient = quotient if what.startswith("training") else 1 / quotient
        assert float(times) == pytest.approx(quotient, rel=0.05) and "jaxnets" not in peer
    drawn, _ = page.draw(numbers(), "page")
    rates = next(tables(drawn.partition("### cnn")[2]))[1]
    best = max(float(row[1].replace(",", "")) for row in rates if row[0] != "jaxnets")
    theirs = found["training `cnn`"][1].partition(", ")[0]
    assert float(theirs.replace(",", "")) == pytest.approx(best, rel=0.05)


def test_what_is_measured_again_replaces_the_old():
    old, new = numbers(), numbers(date="2026-02-02")
    new["measurements"] = [
        {**one, "wall": [1.0]}
        for one in new["measurements"]
        if one["part"] == "rate" and one["network"] == "cnn"
    ]
    found = page.merged(old, new)
    cnn = [x for x in found["measurements"] if (x["part"], x.get("network")) == ("rate", "cnn")]
    assert all(one["wall"] == [1.0] for one in cnn)
    assert len(found["measurements"]) == len(old["measurements"])
    assert found["date"] == "2026-02-02"


def test_the_page_is_drawn_again_from_its_numbers(run_in_process, tmp_path):
    output, to, rest = (tmp_path / name for name in ("numbers.json", "page.md", "notes/all.md"))
    output.write_text(json.dumps(numbers()))
    flags = f"--output={output}", f"--page={to}", f"--tables={rest}"
    outcome = run_in_process(main, "benchmarks", "--draw", *flags)
    assert (outcome.status, outcome.out.strip()) == (0, str(to))
    for path in (to, rest):
        linked = re.findall(r"\]\((\S+\.(?:svg|md))\)", path.read_text())
        assert linked and all((path.parent / name).exists() for name in linked)


def test_numbers_of_another_machine_are_not_mixed_with_these(run_in_process, tmp_path):
    output = tmp_path / "numbers.json"
    output.write_text(json.dumps(numbers()))
    outcome = run_in_process(main, "benchmarks", "--part=machine", f"--output={output}")
    outcome.assert_refused(str(output), "another machine or other versions")
    assert json.loads(output.read_text()) == numbers()


def test_each_number_is_kept_as_soon_as_it_is_there(run_in_process, tmp_path, monkeypatch):
    output, asked = tmp_path / "numbers.json", []

    def measure(parts, networks, rounds, quick, limit):
        asked.append((parts, networks, rounds, quick))
        for number in range(2):
            if number:
                assert len(json.loads(output.read_text())["measurements"]) == number
            yield {"part": "startup", "way": "Flax", "cold": True, "round": number, "error": "no"}

    monkeypatch.setattr(run, "run", measure)
    flags = "--part=startup", "--network=cnn", "--rounds=2", f"--output={output}"
    places = f"--page={tmp_path / 'page.md'}", f"--tables={tmp_path / 'all.md'}"
    outcome = run_in_process(main, "benchmarks", *flags, *places)
    assert (outcome.status, asked) == (0, [(["startup"], ["cnn"], 2, False)])
    assert len(json.loads(output.read_text())["measurements"]) == 2
    assert "- startup, Flax: no" in (tmp_path / "all.md").read_text()


def job(code, **labels):
    labels = {"part": "rate", "way": "a way", **labels}
    return run.Job(labels, ["-c", code], {"MARK": "here"})


def test_a_job_runs_in_a_process_of_its_own(tmp_path):
    code = "import json, os; print('noise'); print(json.dumps({'wall': [os.environ['MARK']]}))"
    ended = run.start(job(code), tmp_path, limit=600)
    assert ended.status == 0 and ended.wall > 0 and ended.cpu > 0 and ended.peak_mb > 1
    found = run.result_of(job(code), ended, tmp_path)
    assert (found["way"], found["wall"]) == ("a way", ["here"])


def test_a_job_that_fails_or_hangs_is_a_measurement(tmp_path):
    ended = run.start(job("import nothing_of_this_name"), tmp_path, limit=600)
    assert "nothing_of_this_name" in run.result_of(job(""), ended, tmp_path)["error"]
    endless = job("import threading; threading.Event().wait()")
    ended = run.start(endless, tmp_path, limit=0.2)
    assert run.result_of(endless, ended, tmp_path)["error"] == "no end within 0 s"


def test_epochs_are_timed_when_their_lines_come(tmp_path):
    code = "import json\nfor n in 1, 2: print(json.dumps({'accuracy': n / 2}), flush=True)"
    epochs = run.result_of(
        job(code, part="accuracy"), run.start(job(code), tmp_path, 600), tmp_path
    )["epochs"]
    assert [epoch["accuracy"] for epoch in epochs] == [0.5, 1.0]
    assert 0 < epochs[0]["wall"] <= epochs[1]["wall"]
    assert page.reached({"epochs": epochs}, 0.9) == epochs[1]


def test_a_round_has_each_installed_way_and_no_other(monkeypatch, tmp_path):
    made = run.jobs(run.PARTS, ["cnn"], tmp_path, quick=True)
    ways = {one.labels["way"] for one in made if one.labels["part"] == "rate"}
    assert ways == {way.name for way in TRAINING if "cnn" in way.networks and not way.missing}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "flax" else name)
    made = run.jobs(run.PARTS, ["cnn"], tmp_path, quick=True)
    ways = {one.labels["way"] for one in made if one.labels["part"] == "rate"}
    assert named(TRAINING, "Flax").missing == ["flax"] and "Flax" not in ways and "PyTorch" in ways
    assert all(not way.missing or way.name == "Flax" for way in GROWING)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "inference", "latency"])
def test_a_measurement_counts_its_images_and_times_each_repetition(kind, run_python):
    request = dict(kind=kind, network="softmax", place="plain_numpy:NumPy", options={})
    request |= dict(count=250, repeats=3)
    outcome = run_python("-m", "benchmarks.peers.measure", json.dumps(request))
    found = json.loads(outcome.out)
    images, repeats = dict(training=(200, 3), inference=(128, 3), latency=(1, 1))[kind]
    assert (found["images"], len(found["wall"])) == (images, repeats)
    assert all(x >= 0 for x in (*found["wall"], *found["cpu"]))


@pytest.mark.slow
@pytest.mark.oracle
def test_the_same_network_is_trained_until_it_is_good_enough(run_python):
    pytest.importorskip("torch")
    flags = "--images=1280", "--epochs=3", "--target=0.3"
    outcome = run_python("-m", "benchmarks.peers.until", "PyTorch", *flags)
    epochs = [json.loads(line) for line in outcome.out.splitlines()]
    assert [one["epoch"] for one in epochs] == list(range(1, len(epochs) + 1))
    assert epochs[-1]["accuracy"] >= 0.3
    assert all(one["accuracy"] < 0.3 for one in epochs[:-1])


def test_no_peer_but_ours_loads_the_training_of_jaxnets():
    """A peer that imported it would get its allocator's settings, and its start-up time."""
    for path in (ROOT / "benchmarks" / "peers").glob("*.py"):
        if path.stem in ("ours", "onnx_session", "page", "run"):
            continue
        found = set(re.findall(r"^(?:from|import) (jaxnets[\w.]*)", path.read_text(), re.MULTILINE))
        known = {"config.resolve", "data.datasets", "data.load"}
        assert found <= {f"jaxnets.{name}" for name in known}, path
