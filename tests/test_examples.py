"""The scripts in examples/, as a reader runs them."""

import dataclasses
import functools
import json
import re
import runpy
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, read_json, slow

from benchmarks import cifar94 as benchmark
from jaxnets import check_layer, load_dataset
from jaxnets.config.resolve import preset
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.errors import relative_error
from jaxnets.networks.own import from_file


@pytest.mark.slow
def test_the_smallest_network_has_the_gradient_of_autodiff_and_learns():
    path = ROOT / "examples" / "minimal.py"
    error, accuracy = runpy.run_path(str(path))["main"](1_000)
    assert error < 1e-12 and accuracy > 0.6
    assert len(path.read_text().splitlines()) <= 150


@pytest.mark.stress
def test_deeper_plain_networks_train_worse_as_the_page_says():
    script = runpy.run_path(str(ROOT / "examples" / "deeper.py"))
    page = (ROOT / "docs" / "backprop" / "residual.md").read_text("utf-8")
    printed = re.findall(r"^( ?\d+) ([a-z, ]+?) +([\d.e+]+) +(\S+)$", page, re.MULTILINE)
    assert len(printed) == 12
    layers, weights_of = script["LAYERS"], script["he_weights"]
    images, labels = script["load_images"]()
    losses = {}
    for depth, name, ratio, loss in printed:
        few = layers[name], weights_of(int(depth)), images[:128], labels[:128]
        assert script["gradient_ratio"](*few) == pytest.approx(float(ratio), rel=0.06)
        losses[int(depth), name] = float(loss)
    # Three rows that the page compares, each at its best rate. Rounding alone moves the loss of
    # twenty plain layers from 0.36 to 0.59: only the order is the same on every machine.
    bounds = {
        (4, "plain", 0.1): (0.0, 0.2),
        (20, "plain", 0.03): (0.28, 1.0),
        (20, "shortcuts, batch norm", 0.03): (0.0, 0.25),
    }
    for (depth, name, rate), (low, high) in bounds.items():
        data = layers[name], weights_of(depth), images, labels
        assert low < script["final_loss"](*data, rates=[rate]) < high
        assert low < losses[depth, name] < high


@pytest.mark.slow
def test_the_size_of_the_pixels_moves_the_rate():
    script = runpy.run_path(str(ROOT / "examples" / "preprocessing.py"))
    data = load_dataset("mnist").limited(10_000)
    forms = script["pixel_forms"](data.train.images)
    page = (ROOT / "docs" / "backprop" / "optimizers.md").read_text("utf-8")
    (rates,) = re.findall(r"^pixels +(.*)$", page, re.MULTILINE)
    tried = [("bytes", 1e-5), ("[0, 1]", 0.01), ("[0, 1]", 1.0), ("standardized", 0.1)]
    reached = {}
    for name, rate in tried:
        (row,) = re.findall(rf"^{re.escape(name)} {{2,}}(.*)$", page, re.MULTILINE)
        printed = dict(zip(map(float, rates.split()), map(float, row.split()), strict=True))[rate]
        reached[name, rate] = script["accuracy"](forms[name], data, rate, seed=0)
        # The page has the mean of three seeds.
        assert reached[name, rate] == pytest.approx(printed, abs=0.05)
    # The page's factor. Only the bias, which has no pixels, moves less.
    scaled = script["accuracy"](forms["bytes"], data, 1 / 65025, seed=0)
    assert scaled == pytest.approx(reached["[0, 1]", 1.0], abs=0.02)


@pytest.mark.stress
def test_weights_of_other_digits_help_with_few_images(tmp_path):
    script = runpy.run_path(str(ROOT / "examples" / "transfer.py"))
    mnist = load_dataset("mnist")
    mnist = dataclasses.replace(mnist, train=mnist.train[:3_000], validation=mnist.validation[:600])
    few = script["digits"](mnist, 6, 9, 100)
    assert len(few.train) == 100 and few.class_names == tuple("6789")
    assert set(few.validation.labels) == set(range(4))
    run = script["first_run"](mnist, tmp_path / "run")
    assert script["accuracy"](few, 0, run) > script["accuracy"](few, 0)


NETWORK, LAYER, ATTENTION = (
    ROOT / "examples" / f"own_{what}.py" for what in ("network", "layer", "attention")
)


@pytest.mark.slow
@pytest.mark.parametrize("file", [NETWORK, LAYER], ids=["network", "layer"])
def test_an_own_example_trains_by_hand_as_by_autodiff(train_tiny, tmp_path, file):
    flags = "--epochs=8", "--gradients=both", f"--workdir={tmp_path / 'run'}"
    assert train_tiny(str(file), *flags).status == 0  # 1 where they disagree.
    assert read_json(tmp_path / "run" / "result.json")["test_accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "layers"),
    [(LAYER, {"PReLU"}), (ATTENTION, {"Positions", "SelfAttention"})],
    ids=["layer", "attention"],
)
def test_an_own_layer_is_judged_right_in_a_network_too(run_command, file, layers):
    checked = run_command("gradcheck", f"--model={file}", "--draws=1", "--json")
    rows = json.loads(checked.out)["rows"]
    assert checked.status == 0 and layers < {row["name"] for row in rows}
    assert len(file.read_text().splitlines()) <= 200


WRONG = {
    "a slope for each example": (
        "d_slope.sum(examples)",
        "d_slope",
        "slope, whose shape is (4, 5)",
    ),
    "no x": ("0, dy * x", "0, dy", "gradient.params.slope"),
    "the wrong side": ("x > 0, dy, slope", "x < 0, dy, slope", "gradient.x"),
    "another output": ("x, params[", "x, 2 * params[", "output[0, 1]"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "worst"),
    [how if name == "no x" else slow(*how) for name, how in WRONG.items()],
    ids=WRONG,
)
def test_a_wrong_derivation_of_the_layer_is_named(tmp_path, right, wrong, worst):
    text = LAYER.read_text()
    assert text.count(right) == 1
    verdicts = []
    for name, code in (("right", text), ("wrong", text.replace(right, wrong))):
        (tmp_path / f"{name}.py").write_text(code)
        verdicts.append(runpy.run_path(str(tmp_path / f"{name}.py"))["main"]())
    assert verdicts[0].ok and not verdicts[1].ok
    assert worst in verdicts[1].worst


@pytest.fixture(scope="module")
def attention():
    """The names of the example of attention."""
    return runpy.run_path(str(ATTENTION))


def drawn(*shapes):
    """An array of normal numbers for each shape."""
    random = np.random.default_rng(0)
    return [jnp.asarray(random.standard_normal(shape)) for shape in shapes]


def assert_equal(ours, theirs):
    """Float64 to 1e-12, in trees of the same names."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), ours, theirs)


# Tokens and features of a head: one token, more of either, and values of another width.
SHAPES = [(1, 4, 4), (5, 3, 3), (3, 7, 7), (6, 4, 2)]


@pytest.mark.oracle
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_pytorchs_forward_and_backward(attention, float64, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    tokens, width, of_values = shape
    lead = (2, 3, tokens)
    q, k, v, d_out = drawn(*[(*lead, width)] * 2, *[(*lead, of_values)] * 2)
    out, cache = attention["attention_forward"](q, k, v)
    theirs = [torch.tensor(np.asarray(a), requires_grad=True) for a in (q, k, v)]
    their_out = torch.nn.functional.scaled_dot_product_attention(*theirs)
    their_out.backward(torch.tensor(np.asarray(d_out)))
    assert_equal(out, their_out.detach().numpy())
    gradients = attention["attention_backward"](cache, d_out)
    assert_equal(list(gradients), [a.grad.numpy() for a in theirs])


@pytest.mark.slow
@pytest.mark.parametrize("heads", [2, slow(1), slow(4)])
def test_the_layer_of_attention_is_flaxs_forward_and_backward(attention, float64, heads):
    width = 8
    names = ("query", "key", "value", "out")
    x, dy, *matrices = drawn(*[(3, 5, width)] * 2, *[(width, width)] * 4)
    params = dict(zip(names, matrices, strict=True))

    def flaxs(params, x):
        by_head = {n: params[n].reshape(width, heads, -1) for n in names[:3]}
        by_head["out"] = params["out"].reshape(heads, -1, width)
        layer = nn.MultiHeadDotProductAttention(heads, use_bias=False)
        kernels = {name: {"kernel": kernel} for name, kernel in by_head.items()}
        return layer.apply({"params": kernels}, x)

    out, cache = attention["self_attention_forward"](params, x, heads=heads)
    their_out, backward = jax.vjp(flaxs, params, x)
    assert_equal(out, their_out)
    gradients = attention["self_attention_backward"](cache, dy, heads=heads)
    assert_equal(gradients, backward(dy))


WRONG_ATTENTION = {
    "not transposed": ("_transposed(scaled) @ q", "scaled @ q", 'd_params["key"]'),
    "no 1 / √d": ("scaled = ds / math.sqrt(q.shape[-1])", "scaled = ds", 'd_params["query"]'),
    "no sum of a row": ("(dp - (dp * p).sum(-1, keepdims=True))", "dp", 'd_params["query"]'),
    "the sum of a column": ("(dp * p).sum(-1,", "(dp * p).sum(-2,", 'd_params["query"]'),
    "two paths to x": (' + dv @ params["value"].T', "", "dx"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong", "named"), WRONG_ATTENTION.values(), ids=WRONG_ATTENTION)
def test_a_wrong_derivation_of_attention_is_named(tmp_path, right, wrong, named):
    text = ATTENTION.read_text()
    assert text.count(right) == 1
    (tmp_path / "wrong.py").write_text(text.replace(right, wrong))
    own = runpy.run_path(str(tmp_path / "wrong.py"))
    verdict = check_layer(own["SelfAttention"](2), [(2, 3, 6)], draws=0)
    assert not verdict.ok and any(named in cause for cause in verdict.causes)


@pytest.fixture(scope="module")
def cifar94():
    return runpy.run_path(str(ROOT / "examples" / "cifar94.py"))


def test_the_whitening_filters_whiten_patches_of_their_components(cifar94):
    """Patches that have just these principal components and deviations, and the mean pixel."""
    axes = np.einsum("pij,cd->pcijd", cifar94["PATTERNS"], cifar94["COLOURS"]).reshape(12, 12)
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    np.testing.assert_allclose(axes @ axes.T, np.eye(12), atol=1e-12)  # Orthogonal.
    scaling = np.tile(cifar94["DEVIATIONS"], 4)
    covariance = scaling[:, None] * (axes.T * cifar94["COMPONENTS"].ravel() ** 2 @ axes) * scaling
    filters = np.asarray(cifar94["whitening"](None, (2, 2, 3, 24)), np.float64).reshape(12, 24)
    seen = filters.T @ covariance @ filters
    np.testing.assert_allclose(seen[:12, :12], np.eye(12), atol=1e-4)
    np.testing.assert_allclose(seen[:12, 12:], -np.eye(12), atol=1e-4)
    bias = cifar94["whitening_bias"](None, (24,))
    mean = np.tile(cifar94["MEANS"], 4) @ filters
    np.testing.assert_allclose(mean + bias, 0, atol=1e-4)


def test_two_epochs_show_each_image_and_its_mirror_and_move_it_two_pixels(cifar94):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.float32) / 255
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    augment = jax.jit(jax.vmap(cifar94["augment"], (0, 0, None)))
    found = []
    for epoch in range(4):
        keys = jax.random.split(jax.random.key(epoch), len(images))
        for image, seen in zip(padded, augment(keys, images, epoch), strict=True):
            moved = {
                (flips, down, right): window[:, ::-1] if flips else window
                for down in range(5)
                for right in range(5)
                for flips, window in enumerate(
                    [image[down : down + 8, right : right + 8]]
                    + [image[down : down + 8, 4 - right : 12 - right]]
                )
            }
            (how,) = [how for how, one in moved.items() if np.array_equal(one, seen)]
            found.append(how)
    flips = np.array(found)[:, 0].reshape(4, len(images))
    assert (flips[0] + flips[1] == 1).all() and (flips[0] == flips[2]).all()
    assert 10 <= flips[0].sum() <= 30
    assert {how[1:] for how in found} >= {(0, 0), (4, 4), (0, 4), (4, 0)}


def newton_schulz(g, steps=3):
    """Jordan 2024, in NumPy float64."""
    x = g / np.linalg.norm(g)
    x = x.T if len(x) > len(x.T) else x
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(g) > len(g.T) else x


@pytest.mark.oracle
def test_the_optimizer_is_muon_and_pytorchs_sgd(cifar94):
    """The published recipe: a summed loss, rates that fall to 0, filters of one norm."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    rng, batch, epochs, steps = np.random.default_rng(0), cifar94["BATCH"], cifar94["EPOCHS"], 80
    shapes = {
        "whiten": {"kernel": (2, 2, 3, 24), "bias": (24,)},
        "conv2": {"kernel": (3, 3, 4, 8)},
        "norm1": {name: (8,) for name in ("scale", "bias", "mean", "var")},
        "logits": {"kernel": (16, 10)},
    }
    draw = functools.partial(jax.tree.map, lambda shape: rng.normal(size=shape))
    draw = functools.partial(draw, is_leaf=lambda x: isinstance(x, tuple))
    params: Any = jax.tree.map(jnp.float32, draw(shapes))
    rule = cifar94["optimizer"](optax.linear_schedule(0.19, 0.0, steps))
    state = rule.init(params)

    scale, decay = cifar94["HEAD_SCALE"], cifar94["DECAY"] * batch
    tensors = {
        "whiten": torch.tensor(np.array(params["whiten"]["bias"])),
        "norm1": torch.tensor(np.array(params["norm1"]["bias"])),
        "logits": torch.tensor(np.array(params["logits"]["kernel"]) / scale),
    }
    rates = {"whiten": 0.053, "norm1": 0.053, "logits": 0.67}
    ends = {"whiten": steps * cifar94["WHITEN_EPOCHS"] / epochs, "norm1": steps, "logits": steps}
    groups = [
        {"params": [tensors[n]], "lr": rates[n], "weight_decay": decay / rates[n]} for n in rates
    ]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    kernel, trace = np.array(params["conv2"]["kernel"], np.float64).reshape(-1, 8), 0
    update = jax.jit(rule.update)
    for step in range(40):
        gradients = jax.tree.map(jnp.float32, draw(shapes))
        updates, state = update(gradients, state, params)
        for group, name in zip(sgd.param_groups, rates, strict=True):
            group["lr"] = rates[name] * max(1 - step / ends[name], 0)
            leaf = "kernel" if name == "logits" else "bias"
            # Theirs is of the sum over the batch, and of logits that are a multiple of the head's.
            factor = batch * (scale if name == "logits" else 1)
            tensors[name].grad = torch.tensor(factor * np.array(gradients[name][leaf]))
        sgd.step()
        g = np.array(gradients["conv2"]["kernel"], np.float64).reshape(-1, 8)
        trace = 0.65 * trace + g
        # optax corrects the momentum's bias: theirs lacks that in the first steps.
        corrected = 0.65 * trace / (1 - 0.65 ** (step + 2)) + g / (1 - 0.65 ** (step + 1))
        rate = 0.19 * (1 - step / steps)
        kernel = kernel * 8**0.5 / np.linalg.norm(kernel) - rate * newton_schulz(corrected)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["conv2"]["kernel"].reshape(-1, 8), kernel, atol=2e-4)
    np.testing.assert_allclose(params["whiten"]["bias"], tensors["whiten"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(params["norm1"]["bias"], tensors["norm1"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(params["logits"]["kernel"] / scale, tensors["logits"], rtol=1e-3)
    assert not any(np.abs(updates["norm1"][name]).max() for name in ("scale", "mean", "var"))
    assert not np.abs(updates["whiten"]["kernel"]).max()


@pytest.fixture(scope="module")
def cifar94_gradients():
    """The example's gradients of four images, and how to take them with other kernels."""
    own = from_file(str(ROOT / "examples" / "cifar94.py")).for_data((32, 32, 3), 10)
    # Floats of little contrast: among equal bytes, and where GELU is all but 0, numbers tie.
    images = np.random.default_rng(0).normal(0.5, 0.04, (4, 32, 32, 3)).astype(np.float32)
    split = Split(images, np.arange(4, dtype=np.int32))
    data = Dataset("pictures", 10, split, split[:0], split, checksum="")

    def take(by, **changes):
        config = preset(own, batch_size=4, devices=1, **changes)
        experiment = Experiment.create(config, data)
        state = experiment.init_state()
        return state.params, experiment.gradients(state, split, by=by)

    return split, take


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
def test_the_gradients_of_cifar94_by_hand_are_autodiffs(cifar94_gradients):
    _, take = cifar94_gradients
    _, stock = take("auto", kernels="plain")
    for by in ("manual", "auto"):
        assert relative_error(take(by)[1], stock)[0] <= 2e-4


@pytest.mark.oracle
@pytest.mark.usefixtures("float64")
def test_pytorchs_network_has_the_gradients_of_cifar94(cifar94_gradients):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    split, take = cifar94_gradients
    params, gradients = take("manual", precision="float64")
    network = benchmark.pytorch_network().double()
    names = ["whiten", *sorted(name for name in params if name.startswith("conv")), "logits"]
    layers = [layer for layer in network if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    for name, layer in zip(names, layers, strict=True):
        kernel = torch.tensor(np.array(params[name]["kernel"]))
        layer.weight.data = kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    layers[0].bias.data = torch.tensor(np.array(params["whiten"]["bias"]))
    x = torch.tensor(split.images).permute(0, 3, 1, 2).double()
    y = torch.tensor(split.labels).long()
    torch.nn.functional.cross_entropy(network(x), y).backward()  # Smoothing is the data's.
    ours = {name: gradients[name]["kernel"] for name in names[1:]}
    grads = [layer.weight.grad for layer in layers[1:]]
    theirs = [g.permute(2, 3, 1, 0) if g.ndim == 4 else g.T for g in grads]
    theirs = dict(zip(ours, (g.numpy() for g in theirs), strict=True))
    assert relative_error(ours, theirs)[0] <= 1e-10
    bias = layers[0].bias.grad.numpy()
    assert relative_error(gradients["whiten"]["bias"], bias)[0] <= 1e-10


@pytest.mark.slow
def test_the_benchmark_of_cifar94_counts_each_step():
    for way in ("manual", "sgemm"):
        assert all(seconds > 0 for seconds in benchmark.seconds_of(way, size=8, steps=2))
