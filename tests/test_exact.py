"""The exact check: its arithmetic against Python's integers, its verdicts on right and wrong."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_params

import jaxnets
from jaxnets.backprop.rule import Setting
from jaxnets.backprop.rules import RULES
from jaxnets.course.exercises import judge
from jaxnets.gradcheck import field
from jaxnets.gradcheck.exact import EXACT, OPEN, WRONG, Claim, Question, check_exactly
from jaxnets.gradcheck.field import P, Q
from jaxnets.gradcheck.interpret import OPERATIONS
from jaxnets.gradcheck.layer_check import drawn_settings, is_refused, problem_of, with_backward
from jaxnets.gradcheck.quick import precision
from jaxnets.models.batch_norm import BatchNorm, fold
from jaxnets.models.chain import Chain
from jaxnets.models.layers import flatten

MUTANTS = judge.mutants()
EDGES = [0, 1, 2, 2**25 - 1, 2**25, 2**49 - 100, 2**49]


@pytest.mark.parametrize("p", [P, Q])
def test_products_are_those_of_whole_numbers(p):
    random = np.random.default_rng(0)
    edges = np.array(sorted({*(e % p for e in EDGES), p - 1, p - 2, p // 2}))
    a = np.concatenate([random.integers(0, p, 10**6), np.repeat(edges, len(edges))])
    b = np.concatenate([random.integers(0, p, 10**6), np.tile(edges, len(edges))])
    expected = [x * y % p for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert field.product(a, b, p).tolist() == expected


@pytest.mark.parametrize("p", [P, Q])
@pytest.mark.parametrize("below_p", [False, True])
def test_matrix_products_and_sums_are_those_of_whole_numbers(p, below_p):
    """Of any residues, and of the largest nine."""
    random, low = np.random.default_rng(1), p - 9 if below_p else 0
    a, b = random.integers(low, p, (2, 5, 3000)), random.integers(low, p, (3000, 4))
    expected = (a.astype(object) @ b.astype(object)) % p
    assert field.matrix_product(a, b, p).tolist() == expected.tolist()
    sums = field.sum_along(a, (0, 2), p).tolist()
    assert sums == [x % p for x in a.astype(object).sum((0, 2))]


@pytest.mark.parametrize("p", [P, Q])
def test_edges_are_multiplied_in_matrices_too(p):
    edges = np.array(sorted({*(e % p for e in EDGES), p - 1, p - 2, p // 2}))
    expected = [[x * y % p for y in edges.tolist()] for x in edges.tolist()]
    assert field.matrix_product(edges[:, None], edges[None], p).tolist() == expected


@pytest.mark.parametrize("p", [P, Q])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3, 5), (1000,)])
def test_inverses_are_those_of_whole_numbers(p, shape):
    a = np.array(np.random.default_rng(3).integers(0, p, shape))
    a.flat[1:2] = 0
    found = field.inverse(a, p)
    expected = [pow(x, -1, p) if x else 0 for x in a.ravel().tolist()]
    assert found.shape == shape and found.ravel().tolist() == expected


def test_powers_of_omega_turn_sums_into_products_and_roots_are_squares():
    random = np.random.default_rng(2)
    a, b = random.integers(0, Q, (2, 50))
    powers = field.power_of_omega
    assert np.array_equal(powers((a + b) % Q), field.product(powers(a), powers(b)))
    assert powers(a).tolist() == [pow(field.OMEGA, x, P) for x in a.tolist()]
    squares = field.power(a, 2)
    roots = field.root(squares)
    assert np.array_equal(field.power(roots, 2), squares) and field.is_square(roots).all()
    assert field.is_square(a).mean() not in (0.0, 1.0)


def verdicts(rule, draws=None, most=20_000):
    for setting in [*rule.settings, *drawn_settings(rule, draws)]:
        if np.prod(setting.x) <= most:
            verdict = problem_of(rule, setting).decided.verdict
            assert verdict is not None
            yield verdict


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_shown_exactly(name):
    assert {verdict.kind for verdict in verdicts(RULES[name], draws=4, most=2_000)} == {EXACT}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_planted_bug_is_refused_by_the_exact_check_alone(name):
    assert is_refused(MUTANTS[name])


def test_a_right_layer_is_not_refused():
    assert not is_refused(RULES["relu"])


def test_a_factor_that_no_tolerance_sees_is_refused():
    dense = RULES["dense"]

    def backward(cache, dz, **static):
        d_params, dx = dense.backward(cache, dz, **static)
        return d_params, dx.at[1, 2].add(1e-9 * dx[1, 2])

    rule = with_backward(dense, backward)
    (verdict,) = {problem_of(rule, Setting((4, 5), {"kernel": (5, 3)})).decided.verdict}
    assert verdict == (WRONG, "gradient.x[1, 2]")


def test_a_forward_pass_of_another_function_is_refused():
    tanh = RULES["tanh"]

    def forward(x):
        y, cache = tanh.forward(x)
        return y + 1, cache

    verdict = problem_of(tanh._replace(forward=forward), Setting((2, 3))).decided.verdict
    assert verdict == (WRONG, "output[0, 0]")


def claimed(number, gradient, *inputs):
    with precision("float64"):
        question = Question(
            lambda given, _: Claim(number(*given), gradient(*given)), lambda draw: ()
        )
        return check_exactly(question, list(inputs))


def by_autodiff(function):
    """The gradient that JAX derives: the same function in an order of its own."""
    return lambda *inputs: list(jax.grad(function, tuple(range(len(inputs))))(*inputs))


def is_of_arrays(rule):
    """Whether a rule takes nothing but what has a gradient."""
    return set(rule.inputs) <= {"params", "x"}


X = np.random.default_rng(3).standard_normal((3, 4))
W = np.random.default_rng(4).standard_normal((4, 4))


def recurrent(x):
    return jax.lax.scan(lambda h, row: (jnp.tanh(h + row), h), x[0], x)[1].sum()


RIGHT = {
    "attention": (lambda x, w: (jax.nn.softmax(x @ w @ x.T / 2) @ x).sum(), (X, W)),
    "log-sum-exp": (lambda x: jax.nn.logsumexp(x, axis=-1).sum(), (X,)),
    "softplus": (lambda x: (jax.nn.softplus(x) ** 2).sum(), (X,)),
    "swish": (lambda x: (jax.nn.silu(x) * x).sum(), (X,)),
    "exact GELU": (lambda x: jax.nn.gelu(x, approximate=False).sum(), (X,)),
    "norm": (lambda x: (x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1)).sum(), (X,)),
    # Of few numbers: all must have roots for one draw.
    "powers": (lambda x: ((1 + x**2) ** -0.75 + (2 + x**2) ** 1.5).sum(), (X[:1, :2],)),
    "sorted": (lambda x: (jnp.sort(x, -1) * jnp.arange(4)).sum(), (X,)),
    "largest": (lambda x: (jax.lax.top_k(x, 2)[0] ** 2).sum(), (X,)),
    "chosen": (lambda x: (x[:, [0, 2, 2]] ** 2).sum(), (X,)),
    "added": (lambda x: (jnp.zeros((3, 6)).at[:, jnp.array([0, 2, 2, 5])].add(x) ** 2).sum(), (X,)),
    "summed up": (lambda x: (jnp.cumsum(x, 1) ** 2).sum(), (X,)),
    "a loop": (recurrent, (X,)),
    "a square wave": (lambda x: jnp.clip(x, -0.5, 0.5).sum() + jnp.abs(x).prod(), (X,)),
    "a batched product": (lambda x, w: jnp.einsum("bi,ij,bj->b", x, w, x).sum(), (X, W)),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_functions_are_shown(name):
    function, inputs = RIGHT[name]
    assert claimed(function, by_autodiff(function), *inputs) == (EXACT, "")


@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_entry_of_each_is_named(name):
    function, inputs = RIGHT[name]
    right = by_autodiff(function)

    def wrong(*given):
        first, *others = right(*given)
        return [first.at[-1, -1].add(1e-12), *others]

    verdict = claimed(function, wrong, *inputs)
    row, column = (size - 1 for size in inputs[0].shape)
    entry = f"gradient.0[{row}, {column}]"
    assert verdict == (WRONG, entry) or verdict.kind == OPEN and name == "norm"


POSITIVE = np.abs(X) + 0.1
# Right ones whose two sides take other logarithms or roots: their values are not known here.
OTHER_FORMS = {
    "a logarithm of a power": (
        lambda x: (jnp.log(x**2) ** 2).sum(),
        lambda x: [8 * jnp.log(x) / x],
    ),
    "entropy": (
        lambda x: -(jnp.exp(x) * jnp.log(jnp.exp(x) * 1)).sum(),
        lambda x: [-jnp.exp(x) * (x + 1)],
    ),
    "powers of tenths": (
        lambda x: (x**0.3 * x**0.7 * x).sum(),
        lambda x: [2 * x],
    ),
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_a_right_function_in_another_form_is_never_called_wrong(name):
    assert claimed(*OTHER_FORMS[name], POSITIVE).kind in (EXACT, OPEN)


@pytest.mark.parametrize("power", [-1.0, 0.5, 2.0])
def test_a_power_by_a_logarithm_is_the_power_also_within_an_exponential(power):
    verdict = claimed(
        lambda x: jax.nn.logsumexp(jnp.exp(power * jnp.log(x))),
        lambda x: [jax.nn.softmax((x**power).ravel()).reshape(x.shape) * power * x ** (power - 1)],
        POSITIVE,
    )
    assert verdict.kind == EXACT


def test_roots_are_found_where_many_numbers_do_not_lead_to_them():
    """Then an error behind the roots is named, not left open."""

    def normed(x, w, more):
        r = 1 / jnp.sqrt((x**2).sum(-1) + 1)
        return (r @ w + more.sum()) ** 2

    def wrong(x, w, more):
        r = 1 / jnp.sqrt((x**2).sum(-1) + 1)
        sides = 2 * (r @ w + more.sum())
        dx = -sides * (w * r**3)[:, None] * x
        return [dx * (1 + 1e-9), sides * r, jnp.full_like(more, sides)]

    more = np.random.default_rng(5).standard_normal(3000)
    assert claimed(normed, wrong, X, W[0, :3], more) == (WRONG, "gradient.0[0, 0]")


def test_a_power_that_is_nearly_a_fraction_is_another_power():
    verdict = claimed(lambda x: (x**2 * x**0.5).sum(), lambda x: [2.5000001 * x**1.5], POSITIVE)
    assert verdict == (WRONG, "gradient.0[0, 0]")
    verdict = claimed(lambda x: (x**0.75).sum(), lambda x: [0.75 * x**-0.2500001], POSITIVE)
    assert verdict.kind != EXACT


def test_what_a_mask_leaves_out_is_zero():
    mask = np.tril(np.ones((3, 3), bool))

    def attend(x):
        scores = jnp.where(mask, x @ x.T, -jnp.inf)
        return (jax.nn.softmax(scores) @ x).sum()

    def attend_to_some(x):
        weights = jnp.where(mask, jnp.exp(x @ x.T), 0)
        return (weights / weights.sum(-1, keepdims=True) @ x).sum()

    def attend_to_all(x):
        return (jax.nn.softmax(x @ x.T) @ x).sum()

    assert claimed(attend, by_autodiff(attend_to_some), X) == (EXACT, "")
    assert claimed(attend, by_autodiff(attend_to_all), X).kind == WRONG


def test_an_output_of_another_shape_is_named():
    tanh = RULES["tanh"]

    def forward(x):
        y, cache = tanh.forward(x)
        return y[:, :2], cache

    rule = tanh._replace(forward=forward, backward=lambda cache, dy: jnp.zeros((2, 3)))
    verdict = problem_of(rule, Setting((2, 3))).decided.verdict
    assert verdict == (WRONG, "output, whose shape is (2, 2), not (2, 3)")


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if is_of_arrays(rule)])
def test_a_derivation_as_a_function_has_its_own_gradient(name):
    rule = RULES[name]
    setting = rule.settings[0]
    function = jaxnets.as_function(rule)

    def claim(inputs, dy):
        def number(inputs):
            return (function(*(inputs[name] for name in rule.inputs), **setting.static) * dy).sum()

        return Claim(number(inputs), jax.grad(number)(inputs))

    with precision("float64"):
        passes = problem_of(rule, setting).at("float64")
        question = Question(claim, lambda draw: draw.numbers(passes.constants[1]))
        assert check_exactly(question, passes.inputs) == (EXACT, "")


def test_a_folded_batch_norm_is_the_same_function():
    """Behind a convolution, and before a dense layer, which both take it up."""
    model = Chain(
        [
            *[nn.Conv(3, (2, 2)), BatchNorm(epsilon=0.25), nn.relu, flatten],
            *[BatchNorm(epsilon=0.5), nn.Dense(2)],
        ]
    )
    params = random_params(model, (4, 5, 2))
    images = np.random.default_rng(5).standard_normal((2, 4, 5, 2))

    def claim(params, images):
        folded, arrays = fold(model, params)
        assert not any(isinstance(layer, nn.BatchNorm) for layer in folded.layers)
        ours = folded.apply({"params": arrays}, images)
        return Claim(same=(ours, model.apply({"params": params}, images)))

    with precision("float64"):
        verdict = check_exactly(Question(claim, lambda draw: draw.numbers(images)), params)
    assert verdict == (EXACT, "")


def test_long_sums_are_cut():
    random = np.random.default_rng(5)
    a, b = random.integers(0, P, (1, 2**17 + 5)), random.integers(0, P, (2**17 + 5, 1))
    expected = sum(x * y for x, y in zip(a[0].tolist(), b[:, 0].tolist(), strict=True)) % P
    assert field.matrix_product(a, b).tolist() == [[expected]]


def test_what_is_not_interpreted_is_named_and_not_decided():
    digamma = jax.scipy.special.digamma
    assert claimed(lambda x: digamma(x).sum(), lambda x: [x], X) == (OPEN, "digamma")


def test_a_sine_is_any_function_whose_slope_is_the_cosine():
    """What depends on more, as on sin² + cos² = 1, is not decided."""
    assert claimed(lambda x: jnp.sin(x).sum(), lambda x: [jnp.cos(x)], X).kind == EXACT
    ones = claimed(
        lambda x: jnp.sin(x).sum(), lambda x: [jnp.cos(x) ** 3 / (1 - jnp.sin(x) ** 2)], X
    )
    assert ones.kind == OPEN


def test_an_operation_that_is_wrong_is_seen(monkeypatch):
    right = OPERATIONS["mul"]
    monkeypatch.setitem(
        OPERATIONS,
        "mul",
        lambda run, params, a, b: OPERATIONS["neg"](run, {}, right(run, params, a, b)),
    )
    assert next(verdicts(RULES["sigmoid"])).kind == WRONG
