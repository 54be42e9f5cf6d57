"""Programs for machines that are not there: their collectives, memory, FLOPs and convolutions."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest

import jaxnets
from jaxnets.compile.program import compile_step
from jaxnets.compile.targets import find
from jaxnets.data.arrays import from_arrays
from jaxnets.experiment import Experiment
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import chains_of

# Batch norm adds up the mean, the variance about it, and in the backward pass both gradients.
REDUCES_OF_A_NORM = 3


def needs(*packages):
    """Skips a test where a compiler is not installed, without importing it."""
    try:
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
    except ModuleNotFoundError:
        missing = packages
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


TPU, GPU = needs("libtpu"), needs("jax_plugins.xla_cuda13")


def machine_case(target, model, gradients, precision):
    marks = [pytest.mark.slow, TPU if target.startswith("v") else GPU]
    return pytest.param(target, model, gradients, precision, marks=marks)


def norms(chain):
    """The batch norms of a network, those in its blocks too."""
    inner = [norms(c) for layer in chain.layers for c in chains_of(layer).values()]
    return sum(isinstance(layer, BatchNorm) for layer in chain.layers) + sum(inner)


@pytest.mark.parametrize(
    ("target", "model", "gradients", "precision"),
    [
        machine_case("v5e:2x2", "mlp", "auto", "float32"),
        machine_case("v6e:2x2", "mlp", "manual", "bfloat16"),
        machine_case("v5e:2x2", "cnn", "manual", "bfloat16"),
        machine_case("h100:2", "mlp", "manual", "float32"),
        machine_case("h100:2", "cnn", "auto", "float32"),
        machine_case("h100:2", "cnn", "manual", "bfloat16"),
        machine_case("h100:2", "cnn_bn", "auto", "bfloat16"),
        machine_case("h100:2", "alexnet_small", "manual", "float32"),
    ],
)
def test_step_of_an_accelerator_adds_up_once_and_reuses_its_memory(
    target, model, gradients, precision
):
    images, labels = np.zeros((80, 28, 28), np.uint8), np.arange(80) % 10
    config = jaxnets.preset(model, batch_size=32, gradients=gradients, precision=precision)
    machine = find(target, config)
    experiment = Experiment.create(config, from_arrays((images, labels)), machine.devices)
    step = compile_step(experiment)
    reduces = 1 + REDUCES_OF_A_NORM * norms(experiment.model)
    assert step.collectives == {"all-reduce": reduces} and not step.in_loops
    assert step.donated == step.state
    assert 0 < step.memory.total < (machine.memory or 0)
    for convolution in step.convolutions:
        assert len(convolution.made) == convolution.asked, convolution
        if target.startswith("h100"):
            assert all("cudnn$conv" in form for form in convolution.made)


def test_cpus_convolutions_are_a_kernels_products(tiny_preset, tiny):
    config = tiny_preset("cnn", batch_size=8)
    step = compile_step(Experiment.create(config, tiny, find("cpu:1", config).devices))
    assert [c[:2] for c in step.convolutions] == [("conv1", 0), ("conv2", 0)]
    plain = dataclasses.replace(config, kernels="plain")
    step = compile_step(Experiment.create(plain, tiny, find("cpu:1", plain).devices))
    asked = {c.name: c.asked for c in step.convolutions}
    backward = {"conv1 backward": 1, "conv2 backward": 2}  # The first images need no gradient.
    assert asked == {"conv1 forward": 1, "conv2 forward": 1, **backward}
    assert {c.name: len(c.made) for c in step.convolutions}["conv2 backward"] == 2


@pytest.mark.slow
@TPU
def test_pmap_on_several_hosts_is_refused_in_a_line(run_command, tiny_folder):
    flags = f"--model=mlp --for=v5e:4x4 --data_dir={tiny_folder} --batch_size=32"
    outcome = run_command("compile", *flags.split())
    assert outcome.status == 2 and outcome.err.endswith("(v5e:4x4), got pmap\n")


@pytest.mark.parametrize(("kind", "devices"), [("pmap", 4), ("jit", 2)])
def test_answer_says_what_the_arrays_and_products_take(run_command, tiny_folder, kind, devices):
    flags = f"--model=mlp --hidden=64 --batch_size=32 --parallel={kind} --for=cpu:{devices}"
    flags += f" --data_dir={tiny_folder} --validation_size=40 --json"
    outcome = run_command("compile", *flags.split())
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["all_reduces"], found["all_gathers"]) == (1, 0)
    assert found["donated_arrays"] == found["state_arrays"]
    epoch = found["epoch"]
    assert epoch["collectives_in_loops"] == {"all-reduce": 1} and epoch["all_gathers"] == 0
    # By hand: 12 x 12 grey images, 64 units, 3 classes; two products forward, three backward.
    weights, rows = 144 * 64 + 64 + 64 * 3 + 3, 32 // devices
    products = 2 * rows * (2 * 144 * 64 + 3 * 64 * 3)
    assert products < found["flops_asked"] < 1.2 * products  # The rest are sums and the update.
    state = 4 * weights + 4 + 8  # The step's number and the key.
    batch = rows * (144 + 4 + 4)
    assert found["memory"]["arguments"] == pytest.approx(state + batch, abs=64)
    assert epoch["memory"]["arguments"] > found["memory"]["arguments"] - batch + 160 * 144


@pytest.mark.parametrize("name", ["h100:0", "v9:2x2", "v5e:3x3", "cpu", "h100:two", "none"])
def test_machine_that_does_not_exist_is_answered_with_those_that_do(run_command, name):
    outcome = run_command("compile", *([] if name == "none" else [f"--for={name}"]))
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    for known in ("v5e:GRID", "v6e:GRID", "2x2", "h100:N", "cpu:N", f"got {name}"):
        assert known in outcome.err


@pytest.mark.parametrize(
    ("target", "module", "advice"),
    [
        ("v5e:2x2", "libtpu", "pip install 'jaxnets[compile]'"),
        ("h100:2", "jax_plugins", "pip install --no-deps jax-cuda13-plugin=="),
    ],
)
def test_missing_compiler_is_one_line_with_its_command(
    monkeypatch, run_command, target, module, advice
):
    monkeypatch.setitem(sys.modules, module, None)
    outcome = run_command("compile", "--model=mlp", f"--for={target}")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert advice in outcome.err
