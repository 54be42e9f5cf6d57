"""The scripts in examples/, as a reader runs them."""

import json
import re
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, read_json, slow

from jaxnets import check_layer, load_dataset


@pytest.mark.slow
def test_the_smallest_network_has_the_gradient_of_autodiff_and_learns():
    path = ROOT / "examples" / "minimal.py"
    error, accuracy = runpy.run_path(str(path))["main"](1_000)
    assert error < 1e-12 and accuracy > 0.6
    assert len(path.read_text().splitlines()) <= 150


@pytest.mark.slow
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
    tried = [("bytes", 1e-3), ("[0, 1]", 0.01), ("[0, 1]", 1.0), ("standardized", 0.1)]
    for name, rate in tried:
        (row,) = re.findall(rf"^{re.escape(name)} +(.*)$", page, re.MULTILINE)
        printed = dict(zip(map(float, rates.split()), map(float, row.split()), strict=True))[rate]
        # The page has the mean of three seeds.
        assert script["accuracy"](forms[name], data, rate, seed=0) == pytest.approx(
            printed, abs=0.05
        )


@pytest.mark.slow
def test_weights_of_other_digits_help_with_few_images(tmp_path):
    script = runpy.run_path(str(ROOT / "examples" / "transfer.py"))
    mnist = load_dataset("mnist")
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
    checked = run_command("gradcheck", f"--model={file}", "--draws=3", "--json")
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
    "another output": ("x, params[", "x, 2 * params[", "output.0"),
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
