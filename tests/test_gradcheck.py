"""The gradient check: whole networks pass it, mistakes do not, kinks are noticed, the command."""

import functools
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit, slow, stress

from jaxnets.backprop.rule import Domain, LayerRule, Setting
from jaxnets.backprop.rules import KINDS, RULES
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.course.exercises import judge
from jaxnets.gradcheck import causes, compare, quick, table
from jaxnets.gradcheck import networks as network_checks
from jaxnets.gradcheck.compare import (
    DIFFERENCES,
    TOLERANCES,
    CheckResult,
    Passes,
    Problem,
    RelativeError,
    check_problems,
)
from jaxnets.gradcheck.layer_check import with_backward
from jaxnets.kernels import KERNELS
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain, walk
from jaxnets.models.layers import AveragePool, MaxPool, flatten, global_average_pool
from jaxnets.models.residual import Residual
from jaxnets.networks.own import from_object

NETWORKS = network_checks.networks()


SLOW = ("cnn", "cnn_tiny", "mlp", "mlp_sequential", "mlp_functional", "mlp_handwritten")
LARGE = [name for name in NETWORKS if name.startswith(("alexnet", "cnn_bn", "resnet20"))]


@pytest.mark.parametrize(
    "name", [slow(name) if name in SLOW else name for name in NETWORKS if name not in LARGE]
)
def test_a_network_is_shown_exactly_and_agrees_in_few_digits(name):
    row = network_checks.check_network(name, NETWORKS[name])
    assert row.ok and row.shown == row.asked == 1, row
    assert list(row.errors) == ["float32", "bfloat16"] and row.errors["float32"].value <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [False, True])
def test_a_large_network_is_shown_exactly_with_narrower_layers(break_rule, kernels):
    case = NETWORKS["alexnet"]
    small = network_checks.narrowed(case._replace(image=(14, 15, 1), batch=2))
    widths = [
        layer.features for _, layer in walk(small.model()) if isinstance(layer, nn.Dense | nn.Conv)
    ]
    assert widths == [4, 12, 24, 16, 16, 256, 256, 10] and small.narrower == 16
    check = network_checks.check_network_with_kernels if kernels else network_checks.check_network
    assert (row := check("alexnet", case)).ok and row.shown == 1 and row.narrower == 16, row
    right = KINDS[nn.Conv].backward

    def backward(cache, dz, **static):
        d_params, dx = right(cache, dz, **static)
        return {**d_params, "bias": scaled(d_params["bias"])}, dx

    break_rule(nn.Conv, backward=backward)
    row = check("alexnet", case)
    assert not row.ok and row.worst.endswith("conv1.bias[0]"), row


def test_an_image_is_not_halved_to_a_size_that_a_network_refuses():
    """Half of 6 x 6 pixels is 3 x 4 here: then the chain gives two rows, the shortcut one."""
    halving = Residual([nn.Conv(1, (3, 3), (2, 2))], [AveragePool(2, 2)])
    network = small_network([halving, flatten])
    assert network_checks.small_image(network) == IMAGE
    assert network_checks.check_network("halving", network).shown == 1


@pytest.mark.parametrize("layers", [[], [flatten, BatchNorm()]])
def test_a_network_whose_only_width_is_that_of_its_logits_is_not_narrowed(layers):
    """A table with so many columns that its parameters are many."""
    own = from_object(Chain([*layers, nn.Dense(10, name="logits")]))
    table = network_checks.NetworkCase(preset(own.for_data((60_000,), 10)), (60_000,))
    assert table.size() > network_checks.MANY_PARAMS
    assert network_checks.narrowed(table).narrower == 1


def test_a_network_without_a_dense_layer_has_no_width(monkeypatch):
    monkeypatch.setitem(KINDS, ten_sums, LayerRule(lambda x: (x, None), lambda _cache, dy: dy))
    own = from_object(Chain([flatten, ten_sums]))
    network = network_checks.NetworkCase(preset(own.for_data(IMAGE, 10)), IMAGE)
    assert network_checks.narrowed(network) == network and network.products() == 0


def ten_sums(x):
    """Ten logits without parameters."""
    return x[:, :30].reshape(-1, 10, 3).sum(-1)


def doubled(x):
    return 2 * x


def counting(key, shape, dtype=jnp.float32):
    """An initializer for one shape only, as users write them."""
    return jnp.ones((1024, 1024), dtype).reshape(shape)


def test_a_network_with_an_own_layer_keeps_its_widths(monkeypatch):
    second = nn.Dense(1024, kernel_init=counting)  # It would refuse a narrower layer's shape.
    wide = [flatten, nn.Dense(1024), nn.relu, second, nn.relu]
    assert network_checks.narrowed(small_network(wide)).narrower == 2
    own = LayerRule(lambda x: (2 * x, None), lambda _cache, dy: 2 * dy)
    monkeypatch.setitem(KINDS, doubled, own)
    assert network_checks.narrowed(small_network([*wide, doubled])).narrower == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("alexnet", "float64", 1e-10),
        stress("alexnet_paper", "float32", 1e-5),
        ("alexnet_small_bn", "float64", 1e-10),  # alexnet_small with norms.
        ("resnet20", "float64", 1e-10),
    ],
)
def test_a_large_network_agrees_with_autodiff(name, dtype, tolerance):
    problem = network_checks.network_problem(NETWORKS[name])._replace(brief=True)  # No differences.
    (program,) = compare.compiled([(problem, dtype)])
    assert compare.errors_of(program)[0].value <= tolerance


@pytest.mark.slow
def test_a_wrong_pair_in_a_network_is_reported(break_rule, run_command):
    break_rule(nn.relu, backward=lambda cache, dy: jnp.maximum(dy, 0))
    outcome = run_command("gradcheck", "--model=mlp_functional", "--json")
    assert outcome.status == 1
    row, *_ = json.loads(outcome.out)["rows"]
    assert not row["ok"] and "hidden" in row["worst"]
    assert list(row["errors"]) == ["float64", "float32", "bfloat16"]
    assert min(error["error"] for error in row["errors"].values()) > 1e-2


IMAGE = (6, 6, 1)
NORM_BEHIND_BIAS = {
    "dense": [flatten, nn.Dense(16), BatchNorm(), nn.relu],
    "conv": [nn.Conv(4, (3, 3)), BatchNorm(), nn.relu, MaxPool(2), flatten],
}
MORE_NORMS = {
    # The first norm's bias has no gradient, its scale's is 3e-5 of the largest.
    "norm behind norm": [flatten, nn.Dense(8), BatchNorm(), BatchNorm(), nn.tanh],
    # A softmax of one channel is 1, so that the norm divides by the root of its epsilon.
    "norm of equal numbers": [
        *[nn.Conv(1, (3, 3)), nn.softmax, nn.Conv(3, (3, 3), padding="VALID"), BatchNorm()],
        *[nn.relu, flatten],
    ],
}


def small_network(layers):
    """A network of these layers and a dense one, on images of 6 x 6 pixels."""
    own = from_object(Chain([*layers, nn.Dense(10, name="logits")]))
    return network_checks.NetworkCase(preset(own.for_data(IMAGE, 10)), IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NORM_BEHIND_BIAS, *MORE_NORMS])
def test_a_bias_without_a_gradient_before_a_norm_agrees(name):
    network = small_network({**NORM_BEHIND_BIAS, **MORE_NORMS}[name])
    row = network_checks.check_network(name, network)
    assert row.ok, row


POOLED = [
    *[AveragePool(3, 3), nn.Dropout(0.3), nn.Conv(3, (1, 4), (2, 1), "VALID"), BatchNorm()],
    global_average_pool,
]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1.0, 1 + 1e-3])
def test_a_norm_may_subtract_much_more_than_it_leaves(break_rule, times):
    """A pooled image's pixels are nearly equal: their mean rounds by more than their rest."""
    right = KINDS[nn.Conv].backward

    def backward(cache, dz, **static):
        d_params, dx = right(cache, dz, **static)
        factor = times if dz.dtype == jnp.float32 else 1.0  # Nothing exact can see it.
        return {**d_params, "kernel": factor * d_params["kernel"]}, dx

    break_rule(nn.Conv, backward=backward)
    own = from_object(Chain([*POOLED, nn.Dense(10, name="logits")]))
    network = network_checks.NetworkCase(preset(own.for_data((28, 28, 1), 10)))
    row = network_checks.check_network("pooled", network)
    assert row.shown == 1 and row.ok == (times == 1), row
    assert row.ok or row.worst == "gradient.conv1.kernel"


def test_dropout_keeps_the_same_numbers_in_every_precision():
    problem = network_checks.network_problem(small_network([flatten, nn.Dropout(0.3)]))
    losses = {}
    for dtype in ("float64", "float32"):
        with quick.precision(dtype):
            passes = problem.at(dtype)
            losses[dtype] = [
                float(quick_jit(gradient)(passes.inputs, passes.constants)["output"])
                for gradient in (passes.manual, passes.automatic)
            ]
    assert losses["float32"] == pytest.approx(losses["float64"], rel=1e-6)


def test_planted_mistakes_are_counted_and_one_that_passes_fails_the_check(capsys):
    planted = {"wrong": judge.mutant("relu_mask_from_gradient"), "relu": RULES["relu"]}
    assert not table.print_checks(iter([]), planted=planted)
    *_, counted, missed = capsys.readouterr().out.splitlines()
    assert counted == "1 of 2 planted mistakes refused, each by the exact check"
    assert missed == "relu: planted, and not refused"


def scaled(kernel):
    return kernel * (1 + 1e-9)


def with_a_wrong_element(kernel):
    return kernel.at[(0,) * kernel.ndim].add(1e-9 * jnp.abs(kernel).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", slow("conv")])
@pytest.mark.parametrize("wrong", [slow(scaled), with_a_wrong_element])
def test_an_error_of_a_billionth_before_a_norm_is_found(break_rule, name, wrong):
    kind = {"dense": nn.Dense, "conv": nn.Conv}[name]
    right = KINDS[kind].backward

    def backward(cache, dz, **static):
        d_params, dx = right(cache, dz, **static)
        if dz.shape[-1] == 10:  # The logits' own layer stays right.
            return d_params, dx
        return {**d_params, "kernel": wrong(d_params["kernel"])}, dx

    break_rule(kind, backward=backward)
    problem = network_checks.network_problem(small_network(NORM_BEHIND_BIAS[name]))
    row = check_problems(name, [problem], {"float64": TOLERANCES["float64"]})
    assert not row.ok and row.worst == f"gradient.{name}1.kernel"
    assert row.errors["float64"].value == pytest.approx(1e-9, rel=0.01)


def problem(function, x, manual=None, automatic=None):
    """The problem of x -> sum of function(x), whose gradients are autodiff's or those given."""
    autodiff = jax.grad(lambda x: function(x).sum())

    def number(inputs, constants):
        return function(inputs["x"]).sum()

    def outcome(slope, inputs, constants):
        return {"output": number(inputs, constants), "gradient": {"x": slope(inputs["x"])}}

    ours, theirs = (functools.partial(outcome, slope or autodiff) for slope in (manual, automatic))
    passes = Passes({}, (), ours, theirs, number)
    return Problem("x", lambda dtype: passes._replace(inputs={"x": jnp.asarray(x, dtype)}))


KINKY = np.array([1.0, -2.0, 4e-7, 3e-7, -2e-7])


@pytest.mark.parametrize(("name", "x"), [("near", KINKY), ("on", np.zeros(5))])
def test_a_kink_is_no_mistake_and_hides_none(name, x):
    row = check_problems(name, [problem(jax.nn.relu, x)], TOLERANCES)
    assert row.ok and row.compared >= 3, row
    assert (row.passed_over > 0) == (name == "on")  # Every direction crosses all five.
    wrong = problem(jax.nn.relu, x, manual=lambda x: jnp.full_like(x, 1.5))
    errors = check_problems(name, [wrong], TOLERANCES).errors
    assert all(errors[column].value > 0.1 for column in ("float64", DIFFERENCES))


def test_a_strong_curvature_is_no_mistake_and_hides_none():
    """The quotient of sin(400 x) is off by 400^2 h^2 / 6 = 2.7e-6 of its slope."""

    def wave(x):
        return jnp.sin(400 * x)

    def wrong(x):
        return (1 + 3e-6) * 400 * jnp.cos(400 * x)

    x, columns = np.array([0.0, 0.3, 1.0]), {"float64": 1.0, DIFFERENCES: TOLERANCES[DIFFERENCES]}
    assert check_problems("wave", [problem(wave, x)], columns).ok
    found = check_problems("wave", [problem(wave, x, manual=wrong)], columns)
    assert not found.ok and found.errors[DIFFERENCES].value == pytest.approx(3e-6, rel=0.2)


def test_differences_find_what_autodiff_would_share():
    """If both gradients are wrong in the same way, only the forward pass can tell."""
    wrong = problem(jnp.sin, np.array([0.3, -1.0]), manual=jnp.tan, automatic=jnp.tan)
    row = check_problems("sine", [wrong], TOLERANCES)
    assert row.errors["float64"].value == 0 and row.errors[DIFFERENCES].value > 1e-2


def test_nan_wrong_shapes_and_wrong_names_are_infinite_errors():
    x = np.array([0.5, 2.0])
    nan = check_problems("nan", [problem(jnp.sin, x, manual=lambda x: x * jnp.nan)], TOLERANCES)
    assert {error.value for error in nan.errors.values()} == {np.inf}
    error = compare.disagreement({"x": np.ones((2, 1))}, {"x": np.ones(2)})
    assert error == RelativeError(np.inf, "x, whose shape is (2, 1), not (2,)")
    error = compare.disagreement({"y": np.ones(2)}, {"x": np.ones(2)})
    assert error == RelativeError(np.inf, "x, got y")
    # An error is relative to the array's largest element; where all are 0, it is absolute.
    for theirs, relative in (([0.0, 0.0], 0.5), ([0.0, -4.0], 0.125)):
        ours = {"x": np.array(theirs) + np.array([0.5, 0.0])}
        assert compare.disagreement(ours, {"x": np.array(theirs)}) == RelativeError(relative, "x")


def test_draws_reach_both_ends_of_every_range_and_repeat():
    sizes = {"batch": (1, 2, 3, 64), "width": range(1, 100)}
    domain = Domain(lambda batch, width: Setting((batch, width)), sizes)
    drawn = domain.draw(4, seed=0)
    assert drawn == domain.draw(4, seed=0) != domain.draw(4, seed=1)
    batches, widths = zip(*(setting.x for setting in drawn), strict=True)
    assert sorted(batches) == [1, 2, 3, 64] and min(widths) < 26 and max(widths) > 74
    assert domain.draw(0, seed=0) == []


def test_a_failure_names_the_drawn_setting(monkeypatch, run_command):
    """So that the same flags draw it again."""

    def backward(cache, dy):
        return RULES["flatten"].backward(cache, dy) * (2 if len(dy) > 30 else 1)

    wrong = dict(flatten=with_backward(RULES["flatten"], backward))
    monkeypatch.setattr(judge, "mutant", wrong.get)
    assert run_command("gradcheck", "--mutant=flatten", "--draws=0").status == 0
    outcome = run_command("gradcheck", "--mutant=flatten", "--draws=4", "--seed=1")
    assert outcome.status == 1
    expected = r"flatten: float64 \S+, expected at most 1e-10, in gradient.x of \d+x\S+ .*"
    assert re.search(expected + r"\(draw \d of --draws=4 --seed=1\)", outcome.out)
    refused = run_command("gradcheck", "--mine=x.py", "--draws=4")
    assert refused.status == 2 and "draws and seed" in refused.err


@pytest.mark.slow
def test_table_and_status_say_what_agrees_and_what_does_not(run_command):
    outcome = run_command("gradcheck", "--model=softmax")
    assert outcome.status == 0 and outcome.err == ""
    header, row, summary = outcome.out.splitlines()
    columns = ["exact", "float64", "float32", "bfloat16", DIFFERENCES]
    assert header.split()[:7] == ["relative", "error", *columns]
    assert row.startswith("softmax, cross_entropy") and "8x28x28x1" in row and " ok " in row
    assert " exact " in row
    assert summary.startswith("1 of 1 agree; exact in 1 of 1 settings; ")

    outcome = run_command("gradcheck", "--mutant=sigmoid_of_y")
    assert outcome.status == 1 and "FAILED" in outcome.out and "0 of 1 agree" in outcome.out


@pytest.mark.slow
def test_json_says_why_a_mutant_fails(run_command):
    outcome = run_command("gradcheck", "--mutant=ones_row_without_gradient", "--json")
    found = json.loads(outcome.out)
    (row,) = found["rows"]
    assert outcome.status == 1 and found["ok"] is False
    assert row["name"] == "ones_row_without_gradient"
    assert "9x9 kernel 10x9" in row["tried"]
    assert row["errors"]["float64"] == {
        "error": None,
        "leaf": "gradient.params.kernel, whose shape is (9, 9), not (10, 9)",
        "setting": "9x9 kernel 10x9",
        "tolerance": 1e-10,
    }


def test_what_is_checked(monkeypatch, run_command):
    row = CheckResult("any", [], dict.fromkeys(TOLERANCES, RelativeError()), TOLERANCES, 0, 0, 0.0)
    checked = []
    monkeypatch.setattr(table, "check_rule", lambda name, *_: checked.append(name) or row)
    monkeypatch.setattr(table, "check_network", lambda name, _: checked.append(name) or row)
    monkeypatch.setattr(table, "check_kernel", lambda one, *_: checked.append(one.name) or row)
    monkeypatch.setattr(table, "check_network_with_kernels", lambda *_: row)
    forms = {"check_replaced_layers", "check_hessian_vector_product"}
    for form in forms:
        monkeypatch.setattr(table, form, lambda form=form: checked.append(form) or row)
    monkeypatch.setattr(table, "is_refused", lambda rule: True)

    def names(*flags):
        checked.clear()
        assert run_command("gradcheck", *flags).status == 0
        return set(checked)

    assert {network.config.model for network in NETWORKS.values()} == set(PRESETS)
    for name, size in ("alexnet", 64), ("alexnet 224", 224):
        assert NETWORKS[name].config.input_size == size
    assert NETWORKS["alexnet 224"].image == (224, 224, 3)
    kernels = {kernel.name for kernel in KERNELS}
    assert names("--model=all") == {*RULES, *kernels, *forms, *NETWORKS}
    slow = {name for name in NETWORKS if name.startswith(("alexnet", "resnet"))}
    slow -= {"alexnet", "alexnet_small"}
    assert names() == {*RULES, *kernels, *forms, *NETWORKS} - slow
    assert names("--model=cnn") == {"cnn"}
    assert names("--model=alexnet") == {"alexnet", "alexnet 224"}
    assert names("--model=alexnet_small") == {"alexnet_small"}


def test_the_package_is_a_command_whose_help_needs_no_jax(run_python):
    code = (
        "import runpy, sys\ntry: runpy.run_module('jaxnets', run_name='__main__')\n"
        "finally: print(sys.modules.keys() & {'jax', 'flax'})"
    )
    for arguments, text in ([], "exactly and by autodiff"), (["gradcheck", "--help"], "--mutant"):
        outcome = run_python("-W", "error", "-c", code, *arguments)
        assert outcome.status == 0 and text in outcome.out, outcome.err
        assert outcome.out.endswith("\nset()\n")


RIGHT = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    ("yours", "says"),
    [
        (RIGHT.T, "transposed"),
        (RIGHT[:1], "expected the shape (2, 3), got (1, 3)"),
        (RIGHT + [0, 0, np.inf], "not finite"),
        (RIGHT.astype(np.float16) + 1e-6, "rounded"),
        (RIGHT * 100, "percent"),
        (RIGHT * -2, "-2 times"),
        (RIGHT[::-1], "places"),
        (RIGHT + [[0, 0, 0], [0, 1, 0]], "1 of 6"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_array_is_described(yours, says):
    assert says in causes.looks("d_x", yours, RIGHT)
