"""The networks named AlexNet: sizes, beginnings, pixels, and weights from and to torchvision."""

import os
import re
import shlex
import struct
import subprocess
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import (
    assert_normal,
    num_params,
    params_sha256,
    random_images,
    random_params,
    read_json,
    shapes_of,
    slow,
)
from safetensors.numpy import load_file, save_file

from jaxnets.config.recipes import PAPER, PRESETS
from jaxnets.config.resolve import preset
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import compiler_options_for_init
from jaxnets.models import MODELS
from jaxnets.models import alexnet as networks
from jaxnets.models.alexnet import TORCHVISION, params_from_torchvision, params_to_torchvision
from jaxnets.models.weights import describe_weights, load_weights

# Sizes

# k * k * C * features + features of each convolution; with two groups C is half as large.
CONVOLUTIONS = {
    "alexnet": 23_296 + 307_392 + 663_936 + 884_992 + 590_080,  # 64, 192, 384, 256, 256
    "alexnet_paper": 34_944 + 307_456 + 885_120 + 663_936 + 442_624,  # 96, 256, 384, 384, 256
    "alexnet_paper, groups=1": 34_944 + 614_656 + 885_120 + 1_327_488 + 884_992,
    "alexnet_small": 4_864 + 73_856 + 295_168 + 590_080 + 590_080,  # 64, 128, 256, 256, 256
}
# 6 * 6 * 256 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
LARGE_DENSE = 37_752_832 + 16_781_312 + 4_097_000
LARGE = {
    **{name: MODELS[name] for name in ("alexnet", "alexnet_paper")},
    "alexnet_paper, groups=1": partial(MODELS["alexnet_paper"], groups=1),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_alexnet_has_its_parameters_at_every_size(name):
    count = CONVOLUTIONS[name] + LARGE_DENSE
    for size, shape in ((224, (224, 224, 3)), (64, (64, 64, 3)), (64, (28, 28, 1))):
        assert num_params(LARGE[name](input_size=size), shape) == count
    assert f"{count:,}" in f"{networks.alexnet.__doc__} {networks.alexnet_paper.__doc__}"


@pytest.mark.parametrize(("size", "side"), [(28, 2), (32, 3), (48, 5), (64, 7)])
def test_the_small_alexnet_has_its_number_of_parameters(size, side):
    """Its first dense layer sees as many places as are left; without padding the pools halve."""
    dense = side * side * 256 * 512 + 512 + 512 * 512 + 512 + 512 * 1000 + 1000
    model = MODELS["alexnet_small"](num_classes=1000)
    assert num_params(model, (size, size, 3)) == CONVOLUTIONS["alexnet_small"] + dense
    # Each of the 960 features has scale, bias and two running statistics instead of a bias.
    normed = MODELS["alexnet_small_bn"](num_classes=1000)
    assert num_params(normed, (size, size, 3)) == num_params(model, (size, size, 3)) + 3 * 960
    if size == 32:
        assert f"{CONVOLUTIONS['alexnet_small'] + dense:,}" in str(networks.alexnet_small.__doc__)


def test_the_small_alexnet_takes_grey_images_enlarged_or_not():
    def shape(layer, **sizes):
        return shapes_of(MODELS["alexnet_small"](**sizes), (28, 28, 1))[layer]["kernel"].shape

    assert shape("conv1") == (5, 5, 1, 64)
    assert shape("conv1", normalize="imagenet") == (5, 5, 3, 64)
    assert shape("dense6", input_size=32) == (2304, 512)


# How they begin

# Of 60 million numbers the usual generator would take most of the time here.
QUICK_KEY = jax.random.key(0, impl="rbg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        slow("alexnet_paper", {"init": "paper", "input_size": 64}),
        ("alexnet_small", {"init": "paper"}),
        slow("alexnet_small", {}),
    ],
)
def test_weights_begin_as_he_or_the_paper_say(name, sizes):
    init = jax.jit(MODELS[name](**sizes).init, compiler_options=compiler_options_for_init("cpu"))
    params = init(QUICK_KEY, jnp.zeros((1, 32, 32, 3)))["params"]
    ones = {"conv2", "conv4", "conv5", "dense6", "dense7"}
    assert set(params) == ones | {"conv1", "conv3", "logits"}
    for layer, leaves in params.items():
        assert np.all(np.asarray(leaves["bias"]) == (layer in ones if sizes else 0)), layer
        fan_in = np.prod(leaves["kernel"].shape[:-1])
        assert_normal(leaves["kernel"], 0.01 if sizes else np.sqrt(2 / fan_in))


def test_the_papers_recipe_is_its_section_5():
    for model in ("alexnet", "alexnet_paper"):
        config = preset(model, recipe="paper")
        assert (config.batch_size, config.momentum, config.weight_decay) == (128, 0.9, 5e-4)
        assert (config.learning_rate, config.schedule, config.epochs) == (0.01, "plateau", 90)
        assert (config.input_size, config.init, config.dropout) == (224, "paper", 0.5)
        assert preset(model, recipe="paper", epochs=3).epochs == 3
        assert preset(model).epochs == 2  # MNIST's own, as long as nobody asks.
    assert {name: getattr(config, name) for name in PAPER} == PAPER
    for name in ("alexnet", "alexnet_paper", "alexnet_small"):
        assert {"dropout", "input_size", "init", "normalize"} <= set(PRESETS[name])


# Pixels


def to_torch(images):
    """Images with the channels first."""
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@pytest.mark.oracle
def test_pixels_are_normalized_as_torchvision_does():
    transforms = pytest.importorskip(
        "torchvision.transforms.functional", reason="torchvision is the oracle"
    )
    images = random_images(2, 5, 7, 3)
    _, layer, *_ = MODELS["alexnet"](normalize="imagenet").layers
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    theirs = transforms.normalize(to_torch(images), mean, deviation).numpy()
    np.testing.assert_allclose(layer(jnp.asarray(images)), theirs.transpose(0, 2, 3, 1), atol=1e-6)


def test_the_papers_pixels_are_bytes_minus_their_mean():
    enlarge, layer, *_ = MODELS["alexnet_paper"](normalize="paper", input_size=64).layers
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3))
    out = layer(enlarge(jnp.asarray(pixels / 255, jnp.float32)))
    expected = pixels - 255 * np.array([0.485, 0.456, 0.406])
    np.testing.assert_allclose(out, expected, atol=1e-4)


# Weights from and to torchvision


@pytest.fixture
def theirs():
    """The network of torchvision with random weights."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    models = pytest.importorskip("torchvision.models", reason="torchvision is the oracle")
    torch.manual_seed(0)
    return models.alexnet(weights=None).eval()


def assert_same_logits(logits, theirs, images):
    expected = theirs(to_torch(images)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.oracle
@pytest.mark.parametrize("size", [pytest.param(224, marks=pytest.mark.stress), 64])
def test_torchvision_takes_our_weights_and_computes_the_same(theirs, size):
    import torch

    model = MODELS["alexnet"](input_size=size)
    params = random_params(model, (size, size, 3), seed=1)
    state_dict = {k: torch.from_numpy(v) for k, v in params_to_torchvision(params).items()}
    theirs.load_state_dict(state_dict, strict=True)
    chex.assert_trees_all_equal(params_from_torchvision(theirs.state_dict()), params, strict=True)
    images = random_images(2, size, size, 3)
    assert_same_logits(model.apply({"params": params}, images), theirs, images)


@pytest.mark.oracle
def test_a_file_of_torchvisions_weights_gives_its_logits(theirs, tmp_path, tiny):
    """Also with other classes than there: then all but the last layer is theirs."""
    import torch
    from safetensors.torch import save_file as save_torch

    path = str(tmp_path / "alexnet.safetensors")
    save_torch(theirs.state_dict(), path)
    config = preset("alexnet", init_from=path)
    assert config.normalize == "imagenet"
    model = Experiment.create(config, tiny).model
    fresh = jax.tree.map(
        lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes_of(model, (64, 64, 3))
    )
    params = load_weights(path, fresh)
    chex.assert_trees_all_equal(params["logits"], fresh["logits"], strict=True)
    theirs.classifier[6] = torch.nn.Linear(4096, 3)
    torch.nn.init.constant_(theirs.classifier[6].weight, 0.01)
    torch.nn.init.constant_(theirs.classifier[6].bias, 0.01)
    images = random_images(2, 64, 64, 3)
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    normal = (images - mean) / deviation
    assert_same_logits(model.apply({"params": params}, images), theirs, normal)


def test_weights_go_there_and_back():
    """Odd sizes everywhere; conv2 is in two groups, which halves its inputs."""
    shapes = [(3, 5, 2, 6), (3, 2, 3, 8), (1, 1, 8, 4), (3, 3, 4, 5), (2, 3, 5, 7)]
    shapes += [(3 * 3 * 7, 11), (11, 13), (13, 4)]
    rng = np.random.default_rng(0)
    params = {
        name: {"kernel": rng.random(shape), "bias": rng.random(shape[-1])}
        for name, shape in zip(TORCHVISION, shapes, strict=True)
    }
    there = params_to_torchvision(params)
    assert list(there) == [f"{p}.{x}" for p in TORCHVISION.values() for x in ("weight", "bias")]
    assert there["features.3.weight"].shape == (8, 3, 3, 2)
    assert all(array.flags.c_contiguous for array in there.values())
    chex.assert_trees_all_equal(params_from_torchvision(there), params, strict=True)
    # The inputs are numbered channel, row, column there, and row, column, channel here.
    weight, kernel = there["classifier.1.weight"], params["dense6"]["kernel"]
    assert weight.shape == (11, 63)
    ours = kernel.reshape(3, 3, 7, 11).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(weight.reshape(11, 7, 3, 3), ours)


# --init_from


SMALL = ["--model=alexnet_small", "--input_size=16", "--epochs=1"]


def small_params(classes=3, seed=5):
    model = MODELS["alexnet_small"](num_classes=classes, input_size=16)
    return random_params(model, (16, 16, 3), seed)


@pytest.fixture(scope="module")
def weights():
    """Weights of alexnet_small for 16 pixels and 3 classes, named as torchvision's."""
    return params_to_torchvision(small_params(seed=0))


@pytest.fixture
def file(weights, tmp_path):
    save_file(weights, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def run_from(run_main, tiny_flags):
    """Runs the network that begins with a file's weights."""
    return lambda path, *flags: run_main(*SMALL, *tiny_flags, f"--init_from={path}", *flags)


@pytest.mark.slow
def test_a_last_layer_of_other_classes_is_drawn_anew(weights, file, tiny, tiny_preset):
    whole, fresh = params_from_torchvision(weights), small_params(classes=7)
    loaded = load_weights(str(file), small_params())
    chex.assert_trees_all_equal(loaded, whole, strict=True)
    config = tiny_preset("alexnet_small", input_size=16, init_from=str(file))
    chex.assert_trees_all_equal(
        Experiment.create(config, tiny).init_state().params, whole, strict=True
    )
    said = describe_weights(str(file), loaded)
    assert said == f"weights from {file}, including the last layer of 3 classes"
    loaded = load_weights(str(file), fresh)
    chex.assert_trees_all_equal(loaded, {**whole, "logits": fresh["logits"]}, strict=True)
    said = describe_weights(str(file), loaded)
    assert "3 classes there and 7 here, and was drawn anew" in said

    # Half precision is widened exactly.
    halves = {name: array.astype(np.float16) for name, array in weights.items()}
    save_file(halves, file)
    wide = jax.tree.map(lambda array: array.astype(np.float32), params_from_torchvision(halves))
    chex.assert_trees_all_equal(load_weights(str(file), small_params()), wide, strict=True)


# A tensor, what stands in its place (None: nothing), and what is said of it.
WRONG = [
    ("features.8.bias", None, "no tensor features.8.bias, which torchvision's alexnet has"),
    ("fc.bias", np.ones(3, "f4"), "found a tensor fc.bias, which torchvision's alexnet does not"),
    (
        "features.3.weight",
        np.ones((3, 3, 64, 128), "f4"),
        "has features.3.weight of shape (128, 64",
    ),
    (
        "classifier.1.weight",
        np.ones((512, 2304), "f4"),
        "classifier.1.weight of shape (512, 256)",
    ),
    (
        "classifier.6.weight",
        np.ones((9, 512), "f4"),
        "classifier.6.weight of shape (3, 512)",
    ),
    ("extra", np.ones(4, jnp.float8_e4m3fn), "expected float32 numbers, found F8_E4M3"),
    ("features.0.bias", np.ones(64, "i8"), "features.0.bias: expected float32 numbers, found I64"),
    ("classifier.4.bias", np.full(512, np.nan, "f4"), "4.bias: expected finite float32 numbers"),
]


@pytest.mark.parametrize(("name", "tensor", "said"), WRONG)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    run_from, weights, file, tmp_path, name, tensor, said
):
    changed = {**weights, name: tensor}
    save_file({name: array for name, array in changed.items() if array is not None}, file)
    run_from(file).assert_refused(f"init_from: {file}: ", name, said)
    assert not (tmp_path / "run").exists()


DAMAGED = {
    "empty": lambda data: b"",
    "cut in its header": lambda data: data[:100],
    "cut in its numbers": lambda data: data[:-1],
    "with more at its end": lambda data: data + b"0",
    "with a header longer than itself": lambda data: struct.pack("<Q", len(data)) + data[8:],
    "with a header beyond all bounds": lambda data: b"\xff" * 8 + data[8:],
    "whose header is no JSON": lambda data: data[:8] + b"!" + data[9:],
    "a pickle by another name": lambda data: b"\x80\x04K\x01." * 50,
    "a zip archive, as torch.save writes": lambda data: b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(run_from, file, case):
    file.write_bytes(DAMAGED[case](file.read_bytes()))
    run_from(file).assert_refused(f"init_from: {file} is damaged or not a safetensors file: ")


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "W.PTH"])
def test_a_pickle_is_never_read(run_from, tmp_path, name):
    """This one would make a folder while it is read."""
    code = b"cos\nmkdir\n(V" + str(tmp_path / "pwned").encode() + b"\ntR."
    (tmp_path / name).write_bytes(code)
    said = "pickle", "safetensors.torch import save_file", "weights_only=True"
    run_from(tmp_path / name).assert_refused(*said)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.safetensors", "no such file"),
        ("folder.safetensors", "not a file"),
        ("pipe.safetensors", "not a file"),
        ("w.npz", "expected a .safetensors file"),
        ("", "expected a .safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(run_from, tmp_path, name, reason):
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    run_from(tmp_path / name).assert_refused(f"init_from: {reason}")


@pytest.mark.oracle
def test_the_line_that_converts_a_pickle_does(tmp_path, run_from, weights):
    torch = pytest.importorskip("torch", reason="PyTorch writes the pickle; not installed")
    path = tmp_path / "w.pth"
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, path)
    line = re.search(r"python (-c .*)\n", run_from(path).err)
    assert line
    subprocess.run([sys.executable, *shlex.split(line[1])], check=True)
    chex.assert_trees_all_equal(load_file(tmp_path / "w.safetensors"), weights, strict=True)


@pytest.mark.slow
def test_a_run_from_a_file_resumes_from_that_file_only(
    run_from, file, tmp_path, interrupt_after, weights
):
    whole = run_from(file, f"--workdir={tmp_path / 'whole'}")
    assert whole.status == 0
    assert f"weights from {file}, including the last layer of 3 classes\n" in whole.out
    config = read_json(tmp_path / "whole" / "config.json")
    assert config["init_from"] == str(file) and config["normalize"] == "imagenet"
    assert len(config["init_from_sha256"]) == 64

    interrupt_after(3)
    assert run_from(file).status == 130
    kept = file.read_bytes()
    save_file({name: array * 2 for name, array in weights.items()}, file)
    run_from(file, "--resume").assert_refused("resume: expected", "w.safetensors with SHA-256")
    file.write_bytes(kept)
    interrupt_after(10**9)
    assert run_from(file, "--resume").status == 0
    assert params_sha256(tmp_path / "whole") == params_sha256(tmp_path / "run")
