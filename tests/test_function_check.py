"""jaxnets.check of anybody's gradient: wrong ones are found, right ones are not refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, slow, stress
from derivatives import (
    LINE,
    NOT_IN_TORCH,
    RIGHT,
    SQUARE,
    THREE,
    TIES,
    WRONG,
    dense,
    newton_while,
    pool,
    vjp,
    with_forward,
)
from jax.custom_batching import custom_vmap

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.gradcheck.rounding import roundings_of

PAGE = (ROOT / "docs" / "check.md").read_text()
# Wrong derivatives that are taken for right; the page says why.
MISSED = ("a billionth", "a cotangent clipped at 1e9", "five in a batch")
# One or two for each row of the table, and for each thing that a row does. The others are found by
# the row "reverse mode", or ask it again. The whole lists measure a checker: with `-m stress`.
QUICK = (
    "a factor",
    "both winners of a tie",
    "NaN at 0 by a where",
    "half of 1,000 outputs",
    "a batch",
)
QUICK += ("chance", "float32 inside", "a clipped cotangent", "the second tangent", "sin", "trees")
QUICK += ("relu at 0", "max at ties", "softmax of huge numbers", "dropout by a key", "labels")
QUICK += ("a forward rule without its bias", "another primal_out", "wrong in float16")
QUICK += ("a cotangent flushed below 1e-5", "wrong without jit", "a weight that is not batched")
QUICK += ("a batched value", "a sum of softmax", "two numbers standardized", "sort of three equal")
QUICK += ("a fast sine", "every place of a sort at a tie", "exact gelu")
QUICK += ("a while loop's forward mode",)
SLOW = {
    *MISSED,
    # Wrong by little, in one place, for one argument, on one side of a kink.
    *("a millionth", "the first element", "one entry of 300", "the second argument"),
    *("entries exchanged", "two outputs' cotangents exchanged", "more than one row"),
    *("beyond the slopes of a kink", "all winners of three", "a median's neighbour"),
    *("rows written over", "nothing through time", "the branch that is taken"),
    # Found by other rows than "reverse mode".
    *("a forward rule wrong at one entry", "a forward rule's outputs exchanged"),
    *("a cotangent clipped at 1e4", "a cotangent's norm clipped at 5", "no cotangent"),
    *("something for a zero cotangent", "NaN of a zero cotangent", "a length at 0"),
    *("a cotangent that is not batched", "wrong under jit", "wrong in bfloat16"),
    *("wrong in float32", "bfloat16 inside", "a stopped gradient"),
    # Right ones: kinks, and points near them.
    *("clip at its ends", "huber at its joint", "relu6 at 6", "a safe square root", "sinc at 0"),
    *("a median filter of equal pixels", "top_k of three equal", "cummax at ties"),
    # Rounding, curvature, huge and small numbers.
    *("a layer norm of equal numbers", "a batch of two normalized", "a difference of squares"),
    *("a variance far from 0", "sqrt", "a reciprocal", "gammaln", "erfinv", "a constant"),
    *("small and large outputs", "logsumexp of huge numbers", "singular values", "cholesky"),
    # What JAX traces in other ways, and arguments of all kinds.
    *("scan", "a loop", "a branch", "rematerialized", "an implicit root", "a spectrum"),
    *("an argument that is not differentiated", "our convolution", "a number of Python's"),
    *("bfloat16 given", "float16 given", "a named tuple and an empty array"),
    *("a mask and small integers", "a string and a number"),
}


def cases(table):
    """The names of a list, each with its mark."""
    marks = {name: slow(name) for name in SLOW} | dict(zip(QUICK, QUICK, strict=True))
    return [marks.get(name) or stress(name) for name in table]


@pytest.mark.parametrize("name", cases(WRONG))
def test_a_wrong_gradient_is_found(name):
    function, *args = WRONG[name]
    assert jaxnets.check(function, *args).ok == (name in MISSED)


@pytest.mark.slow
def test_another_value_of_a_rule_is_named():
    forgets = with_forward(lambda x: x**2 + 3, lambda x: x**2)
    for plain in (None, lambda x: x**2 + 3):
        found = jaxnets.check(forgets, np.array([3.0]), plain=plain)
        assert "value in reverse mode" in failed(found)
        assert "output[0]: 9, expected 12" in repr(found)
    square = jax.custom_jvp(lambda x: x**2 + 3)
    square.defjvp(lambda p, t: (p[0] ** 2, 2 * p[0] * t[0]))
    found = jaxnets.check(square, LINE, plain=lambda x: x**2 + 3)
    assert failed(found) == {
        "value in reverse mode",
        "value in forward mode",
        "reverse mode, by autodiff",
    }


def failed(found):
    return {row.name for row in found.rows if not row.ok}


@pytest.mark.parametrize("at", [1.0, 2.0])
def test_terms_that_cancel_within_an_operation_round(at):
    """The logarithm of Γ is 0 there, and rounds as its terms do; wrong gradients are found."""
    gammaln, digamma = jax.scipy.special.gammaln, jax.scipy.special.digamma
    assert jaxnets.check(gammaln, np.array([at])).ok
    wrong = vjp(gammaln, lambda a, dy: (dy * digamma(a[0]) * (1 + 1e-6),))
    assert not jaxnets.check(wrong, np.array([at])).ok


def test_a_wrong_winner_is_found_by_a_plain_formulation():
    def last(args, dy):
        pairs = args[0].reshape(-1, 2)
        second = pairs[:, 1] >= pairs[:, 0]
        return (jnp.stack([jnp.where(second, 0, dy), jnp.where(second, dy, 0)], 1).ravel(),)

    assert jaxnets.check(vjp(pool, last), TIES)  # Each winner of a tie is one.
    found = jaxnets.check(vjp(pool, last), TIES, plain=pool)
    assert not found and "args[0][0]: 0, expected 0.5" in repr(found)


def test_a_wrong_second_derivative_is_found():
    @jax.custom_jvp
    def slope(x):
        return jnp.cos(x)

    slope.defjvp(lambda x, t: (slope(*x), 2 * t[0]))
    function = vjp(jnp.sin, lambda a, dy: (slope(a[0]) * dy,))
    assert jaxnets.check(function, LINE)
    assert not jaxnets.check(function, LINE, order=2)


@pytest.mark.parametrize("name", cases(RIGHT))
def test_a_right_gradient_is_not_refused(name):
    function, *args = RIGHT[name]
    # Newton's steps reach a root only in the limit: the gradient is not that of the steps.
    found = jaxnets.check(function, *args, exact=name != "an implicit root")
    assert found, found


def test_a_factor_that_no_difference_sees_is_refused_without_a_tolerance():
    almost = vjp(lambda x: x**2, lambda args, dy: (2 * (1 + 1e-9) * args[0] * dy,))
    assert jaxnets.check(almost, SQUARE)
    found = jaxnets.check(almost, SQUARE, exact=True)
    assert failed(found) == {"without a tolerance"}
    assert "gradient.args[0][0, 0]" in repr(found)


def test_two_forms_of_one_function_are_shown_to_be_the_same():
    def by_hand(x):
        powers = jnp.exp(x)
        return powers / powers.sum(-1, keepdims=True)

    def almost(x):
        return (1 + 1e-12) * by_hand(x)

    found = jaxnets.check(jax.nn.softmax, SQUARE, plain=by_hand, exact=True)
    assert found and "without a tolerance" in repr(found)
    found = jaxnets.check(jax.nn.softmax, SQUARE, plain=almost, exact=True)
    assert failed(found) == {"without a tolerance"}
    assert "plain.output[0, 0]" in repr(found)


@pytest.mark.parametrize("power", [lambda x: x**2, lambda x: x * 3 * x / 3], ids=["x²", "x x"])
def test_the_root_of_a_square_is_the_absolute_value(power):
    def root(x):
        return jnp.sqrt(power(x))

    found = jaxnets.check(root, SQUARE, plain=jnp.abs, exact=True)
    assert found and "not shown" not in repr(found)
    found = jaxnets.check(root, SQUARE, plain=lambda x: (1 + 1e-12) * jnp.abs(x), exact=True)
    assert failed(found) == {"without a tolerance"}


@pytest.mark.parametrize(
    ("function", "x", "why"),
    [
        (jax.scipy.special.digamma, SQUARE[:1], "not shown: digamma"),
        (lambda x: jnp.maximum(x, 0.0), np.zeros(2), "not shown: a kink at this point"),
        (lambda x: 2 * x, np.zeros(100_000), "not tried: 200,000 numbers"),
    ],
)
def test_what_is_not_shown_without_a_tolerance_says_why(function, x, why):
    found = jaxnets.check(function, x, exact=True)
    assert found and why in repr(found)


@pytest.mark.slow
def test_of_many_parameters_a_sample_is_compared():
    w, x = np.sin(np.arange(9e4)).reshape(300, 300), np.cos(np.arange(300.0))
    found = jaxnets.check(lambda w: jnp.tanh(w @ x / 300).sum(), w)
    assert found and found.rows[0].sampled_from == 9e4 and " of 90,000" in repr(found)


CAUSES = {
    "a third": (
        lambda a, dy: (dy @ a[1].T, a[0].T @ dy / 3, dy.sum(0)),
        "args[1]: each number is 0.3333 times the right one",
        "args[1]",
    ),
    "the sign": (
        lambda a, dy: (-dy @ a[1].T, a[0].T @ dy, dy.sum(0)),
        "args[0]: each number is -1 times the right one",
        "args[0]",
    ),
    "a transpose": (
        lambda a, dy: (dy @ a[1], a[0].T @ dy, dy.sum(0)),
        "args[0]: a transpose is missing: dy @ args[1].T",
        "args[0]",
    ),
    "another transpose": (
        lambda a, dy: (dy @ a[1].T, a[0] @ dy, dy.sum(0)),
        "args[1]: a transpose is missing: args[0].T @ dy",
        "args[1]",
    ),
    "a mean": (
        lambda a, dy: (dy @ a[1].T, a[0].T @ dy, dy.mean(0)),
        "args[2]: each number is 0.3333 times the right one "
        "(3 is the size of axis 0: a mean in place of a sum?)",
        "args[2]",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_wrong_gradient_has_its_argument_and_its_cause(name):
    backward, cause, where = CAUSES[name]
    found = jaxnets.check(vjp(dense, backward), *THREE)
    assert len(found.causes) == 1 and found.causes[0].startswith(cause), found
    (row,) = (row for row in found.rows if row.name == "reverse mode")
    assert row.worst.startswith("output[") and f" along {where}[" in row.worst


MISSING = {
    "a term is missing: 3 * dy * args[0] * args[0]": (
        lambda x: x**2 + x**3,
        lambda a, dy: (2 * a[0] * dy,),
    ),
    "a factor is missing: 2 * args[0]": (lambda x: x**2, lambda a, dy: (dy,)),
    "a factor is missing: (1 - f(x))": (
        jax.nn.sigmoid,
        lambda a, dy: (jax.nn.sigmoid(a[0]) * dy,),
    ),
    "1 of 9 numbers are wrong": (lambda x: 2 * x, lambda a, dy: (2 * dy.at[1, 2].set(0),)),
    "right for each output, wrong for a dense cotangent": (
        lambda x: x,
        lambda a, dy: (jnp.clip(dy, -1, 1),),
    ),
}


@pytest.mark.parametrize("cause", MISSING)
def test_what_a_gradient_lacks_is_named(cause):
    found = jaxnets.check(vjp(*MISSING[cause]), SQUARE)
    assert found.causes[0].startswith(f"args[0]: {cause}"), found


TRIPLED = vjp(jnp.square, lambda a, dy: (3 * a[0] * dy,))


def test_a_failed_assert_shows_the_verdict(capsys):
    """On stderr, which pytest shows too: a plain assert says nothing itself."""
    with pytest.raises(AssertionError, match="^$"):
        exec("assert jaxnets.check(TRIPLED, 2.0)", globals())
    assert "output along args[0]: 6, expected 4" in capsys.readouterr().err


def test_what_jax_refuses_is_not_tried():
    found = jaxnets.check(vjp(jnp.square, lambda a, dy: (2 * a[0] * dy,)), LINE)
    row = found.rows[1]
    assert (row.name, row.compared, row.note[:10]) == ("forward mode", 0, "not tried:")
    assert found.ok and " ok " not in row.text()
    found = jaxnets.check(newton_while, np.abs(LINE))
    assert found.ok and found.rows[0].note.startswith("not tried: Reverse-mode")
    wrong = jax.custom_jvp(newton_while)
    wrong.defjvp(lambda p, t: (newton_while(*p), t[0] / newton_while(*p)))
    assert not jaxnets.check(wrong, np.abs(LINE)).ok


@pytest.mark.parametrize("raised", [NotImplementedError, TypeError, ValueError, RuntimeError])
def test_a_precision_that_an_operation_lacks_is_not_supported_here(raised):
    def picky(x):
        if x.dtype == jnp.bfloat16:
            raise raised("no such digits")
        return jnp.sin(x)

    found = jaxnets.check(picky, LINE)
    assert found.ok and found.rows[-1].note == "not supported here: no such digits"


def test_an_error_of_a_flat_function_is_a_number_to_read():
    found = jaxnets.check(vjp(lambda x: 0 * x, lambda a, dy: (dy,)), LINE)
    assert not found.ok and max(row.error for row in found.rows[:1]) < 10
    assert "e+30" not in repr(found)


def product(x, w):
    return x * w


WRITE = {
    "check(jnp.sin, LINE, tol=1e-3)": "leave out tol=",
    "check(product, LINE, LINE, argnums=0)": "check(lambda x: f(x, w), x)",
    "check(jnp.sum, LINE, axis=0)": "check(lambda x: sum(x, axis=...), x)",
    "check(product, (LINE, LINE))": "each argument by itself, as in check(f, x, w)",
    "check(jnp.sin, [0.1, 0.2])": "write np.array for numbers",
    "check(jnp.sin, (LINE,))": "each argument by itself, as in check(f, x, w)",
    "check(np.sin, LINE)": "write it with jax.numpy, such as jnp.sin for np.sin",
    "check(lambda x: x if x[0] > 0 else -x, LINE)": "write jnp.where for if",
    "check(lambda x: 'text', LINE)": "expected arrays from it, got a str",
    "check(LINE, jnp.sin)": "expected a function and then its arguments, got ndarray",
    "check(jnp.sin, LINE, plain=1)": "expected a function and then its arguments, got int",
    "check(jnp.abs, LINE + 1j)": "write check(lambda a, b: abs(a + 1j * b), z.real, z.imag)",
    "check(jnp.fft.fft, LINE)": "write check(lambda x: (fft(x).real, fft(x).imag), x)",
    "check(jnp.sin, 3)": "such as np.array([1.0, 2.0])",
    "check(lambda x: x > 0, LINE)": "expected an output of floating numbers",
    "check(jnp.sin, LINE, order=3)": "expected 1 or 2, got 3",
}


@pytest.mark.parametrize(("call", "says"), WRITE.items(), ids=WRITE)
def test_a_wrong_call_is_one_line_that_says_what_to_write(call, says):
    with pytest.raises(UserError) as raised:
        eval(call, globals() | {"check": jaxnets.check})
    assert says in str(raised.value) and "\n" not in str(raised.value)


# The rounding of a function


ROUNDED = {
    "plain": lambda x: (x + 1e8) - 1e8,
    "jit": jax.jit(lambda x: (x + 1e8) - 1e8),
    "scan": lambda x: jax.lax.scan(lambda c, a: (c, (a + c) - c), x[0] * 0 + 1e8, x)[1],
    "loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, y: (y + 1e8) - 1e8, x),
    "cond": lambda x: jax.lax.cond(x[0] > 0, lambda x: (x + 1e8) - 1e8, jnp.sin, x),
    "while": lambda x: jax.lax.while_loop(
        lambda state: state[0] < 3, lambda state: (state[0] + 1, (state[1] + 1e8) - 1e8), (0, x)
    )[1],
    "remat": jax.checkpoint(lambda x: (x + 1e8) - 1e8),
    "custom_jvp": lambda x: jax.nn.relu6((x + 1e8) - 1e8 + 3) - 3,
}


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_is_what_numpy_rounds(name, float64):
    function = ROUNDED[name]
    x = LINE.astype(np.float32)
    rounded = np.abs((x + np.float32(1e8)) - np.float32(1e8) - x).max()  # Up to half of 8.
    *_others, change = roundings_of(function, "float32", [x.astype(np.float64)])
    assert rounded <= change.max() <= 8
    *_others, wide = roundings_of(function, "float64", [x.astype(np.float64)])
    assert (wide == change * 2.0**-29).all()


@pytest.mark.parametrize("add", [jnp.sum, lambda x: x @ jnp.ones(x.size)], ids=["sum", "dot"])
def test_partial_sums_are_rounded_too(add, float64):
    ours = np.random.default_rng(0).random(10_000)
    x = np.concatenate([ours, -ours]).astype(np.float32)  # The sum is 0, which needs no rounding.
    one_by_one = np.abs(np.cumsum(x, dtype=np.float32)[-1])
    (change,) = roundings_of(add, "float32", [x.astype(np.float64)])
    assert 2.0**-24 < change <= one_by_one  # Several partial sums at a time round by less.
    (exact,) = roundings_of(add, "float64", [x.astype(np.float64)])
    assert exact == change * 2.0**-29


def test_what_is_exact_is_not_rounded(float64):
    floor = jax.jit(lambda x: jnp.floor(x * 4) / 4)
    for function in (lambda x: 2 * x - x, floor, jnp.sort, jnp.max, jax.nn.relu):
        (change,) = roundings_of(function, "bfloat16", [np.array([0.5, 3.0, -1.25])])
        assert not change.any()


@pytest.mark.slow
def test_a_gradient_of_rounding_is_not_wrong_but_one_of_few_digits_is():
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal(6)
        assert jaxnets.check(lambda x: jax.nn.softmax(x).sum(), x).ok
        assert jaxnets.check(lambda x: (x - x.mean()).sum(), x).ok
    # 20 % are far more than the rounding of a sine in bfloat16.
    assert failed(jaxnets.check(*WRONG["wrong in bfloat16"])) == {"bfloat16"}


# The other checkers, by their defaults


def by_jax(function, *args):
    """Whether JAX's check takes a gradient for right, in both modes if there are two."""
    from jax.test_util import check_grads

    places = [n for n, arg in enumerate(args) if any(map(is_floating, jax.tree.leaves(arg)))]

    def of(*given):
        every = list(args)
        for place, arg in zip(places, given, strict=True):
            every[place] = arg
        return function(*every)

    for mode in ("fwd", "rev"):
        try:
            check_grads(of, [args[place] for place in places], order=1, modes=[mode])
        except Exception as error:  # An AssertionError, or what the function itself raises.
            refused_by_jax = (
                "to a custom_vjp function",
                "Reverse-mode differentiation does not work",
            )
            if not any(words in str(error) for words in refused_by_jax):
                return False
    return True


def by_torch(function, *args):
    """Whether PyTorch's check takes a gradient for right; both passes are JAX's."""
    torch = pytest.importorskip("torch", reason="an oracle")
    leaves, tree = jax.tree.flatten(args)
    places = [n for n, leaf in enumerate(leaves) if is_floating(leaf)]

    def of(*given):
        every = list(leaves)
        for place, array in zip(places, given, strict=True):
            every[place] = array
        outputs = jax.tree.leaves(function(*jax.tree.unflatten(tree, every)))
        return [out for out in outputs if is_floating(out)]

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *given):
            ctx.arrays = [jnp.asarray(one.detach().numpy()) for one in given]
            return tuple(torch.tensor(np.asarray(out, np.float64)) for out in of(*ctx.arrays))

        @staticmethod
        def backward(ctx, *d_out):
            outputs, pull_back = jax.vjp(of, *ctx.arrays)
            pairs = zip(d_out, outputs, strict=True)
            found = pull_back([jnp.asarray(d.numpy(), out.dtype) for d, out in pairs])
            return tuple(torch.tensor(np.asarray(one)) for one in found)

    given = [np.asarray(leaves[place], np.float64) for place in places]
    try:
        inputs = [torch.tensor(one, requires_grad=True) for one in given]
        return torch.autograd.gradcheck(Function.apply, inputs)
    except Exception:  # GradcheckError, or what the function itself raises.
        return False


def is_floating(leaf):
    number = isinstance(leaf, float | np.ndarray | jax.Array)
    return number and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def counted(takes, table, left_out=()):
    """The names of a list that a checker takes for right, and those that it refuses."""
    taken = {name: takes(*table[name]) for name in table if name not in left_out}
    return [[name for name, took in taken.items() if took is kind] for kind in (True, False)]


# These count what other programs do: no change of ours moves it but one of the lists.
@pytest.mark.oracle
@pytest.mark.stress
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "takes", "left_out"),
    [
        ("jax.test_util.check_grads", by_jax, ()),
        ("torch.autograd.gradcheck", by_torch, NOT_IN_TORCH),
    ],
)
def test_the_page_has_what_each_checker_misses_and_refuses(name, takes, left_out, float64):
    missed, found = counted(takes, WRONG, left_out)
    right, refused = counted(takes, RIGHT, left_out)
    print(f"{name}: missed {missed}; refused {refused}")
    wrong, right = len(missed + found), len(right + refused)
    assert f"| `{name}` | {len(missed)} of {wrong} | {len(refused)} of {right} |" in PAGE


def test_the_page_has_what_it_misses_and_refuses():
    assert len(WRONG) == len(RIGHT) == 100  # Each is tried above.
    assert {*QUICK, *SLOW} <= {*WRONG, *RIGHT} and not {*QUICK} & SLOW
    assert f"| `jaxnets.check` | {len(MISSED)} of 100 | 0 of 100 |" in PAGE


def test_a_function_of_another_number_of_outputs_than_its_plain_form_is_wrong():
    found = jaxnets.check(lambda x: x[:2] ** 2, LINE, plain=lambda x: x**2)
    assert not found.ok
    assert "2 outputs, 4 of the plain formulation" in str(found)


def test_a_function_that_refuses_vmap_is_right_and_the_table_says_so():
    square = custom_vmap(lambda x: x**2)

    @square.def_vmap
    def refuse(axis_size, in_batched, x):
        raise ValueError("one at a time")

    found = jaxnets.check(vjp(square, lambda args, dy: (2 * args[0] * dy,)), LINE)
    assert found.ok and "not tried: one at a time" in str(found)


def test_an_output_that_overflows_in_few_digits_is_passed_over():
    found = jaxnets.check(lambda x: x * np.exp2(200.0), LINE)
    assert found.ok, found
    assert "not finite in these digits" in str(found)
