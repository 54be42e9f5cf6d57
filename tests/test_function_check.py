"""jaxnets.check of anybody's gradient: wrong ones are found, right ones are not refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, slow
from jax.custom_batching import custom_vmap

import jaxnets
from jaxnets.base.errors import UserError

SQUARE = np.array([[0.3, -1.2, 0.7], [2.0, 0.1, -0.4], [-0.6, 0.9, 1.5]])
LINE = np.array([0.4, -1.3, 2.2, -0.2])
KEY = jax.random.key(3)


def vjp(forward, backward):
    """A function with a backward pass: (its arguments, d_out) -> their gradients."""
    function = jax.custom_vjp(lambda *args: forward(*args))
    function.defvjp(lambda *args: (forward(*args), args), backward)
    return function


def jvp(forward, tangent):
    """A function with a forward derivative: (its arguments, their tangents) -> the tangent."""
    function = jax.custom_jvp(lambda *args: forward(*args))
    function.defjvp(lambda args, tangents: (forward(*args), tangent(args, tangents)))
    return function


def dense(x, w, b):
    return x @ w + b


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def picked(x):
    return x[np.array([0, 2, 2, 1])]


def dropout(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x / 0.5, 0)


def pool(x):
    return x.reshape(-1, 2).max(axis=1)


def softmax_backward(args, dy, axis=-1, term=1.0):
    y = softmax(*args)
    return (y * (dy - term * (y * dy).sum(axis, keepdims=True)),)


TRACES = itertools.count(1)


def noise(args, dy):
    return (dy * (2.0 + 0.01 * next(TRACES)),)


@custom_vmap
def double(x):
    return 2 * x


@double.def_vmap
def _wrong_batch(size, batched, x):
    return 2 * x.at[0].mul(2), True


def norm_backward(args, dy, second=1.0):
    (x,) = args
    y, r = layer_norm(x), 1 / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    mean, slope = dy.mean(-1, keepdims=True), (dy * y).mean(-1, keepdims=True)
    return (r * (dy - mean - second * y * slope),)


THREE = (SQUARE, SQUARE.T + 0.5, LINE[:3])
TIES = np.array([1.0, 1.0, 0.5, 2.0])
WRONG = {
    "a factor": (vjp(jnp.square, lambda a, dy: (3 * a[0] * dy,)), LINE),
    "the sign": (vjp(jnp.cos, lambda a, dy: (jnp.sin(a[0]) * dy,)), LINE),
    "a millionth": (vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * dy * (1 + 1e-6),)), LINE),
    "dW transposed": (vjp(dense, lambda a, dz: (dz @ a[1].T, dz.T @ a[0], dz.sum(0))), *THREE),
    "dx by W": (vjp(dense, lambda a, dz: (dz @ a[1], a[0].T @ dz, dz.sum(0))), *THREE),
    "a bias of the first row": (
        vjp(dense, lambda a, dz: (dz @ a[1].T, a[0].T @ dz, dz[0])),
        *THREE,
    ),
    "a bias's mean": (vjp(dense, lambda a, dz: (dz @ a[1].T, a[0].T @ dz, dz.mean(0))), *THREE),
    "summed over the wrong axis": (
        vjp(dense, lambda a, dz: (dz @ a[1].T, a[0].T @ dz, dz.sum(1))),
        *THREE,
    ),
    "softmax over the other axis": (vjp(softmax, lambda a, dy: softmax_backward(a, dy, 0)), SQUARE),
    "softmax without its sum": (
        vjp(softmax, lambda a, dy: softmax_backward(a, dy, -1, 0.0)),
        SQUARE,
    ),
    "no cotangent": (vjp(jnp.square, lambda a, dy: (2 * a[0] + 0 * dy,)), LINE),
    "the cotangent's sign": (vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * jnp.abs(dy),)), LINE),
    "a clipped cotangent": (
        vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * jnp.clip(dy, -1, 1),)),
        LINE,
    ),
    "a cotangent divided by its length": (
        vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * dy / jnp.linalg.norm(dy),)),
        LINE,
    ),
    "both winners of a tie": (
        vjp(pool, lambda a, dy: (jnp.repeat(dy, 2) * (a[0] == jnp.repeat(pool(a[0]), 2)),)),
        TIES,
    ),
    "no winner of a tie": (
        vjp(pool, lambda a, dy: (jnp.repeat(dy, 2) * (a[0] >= jnp.repeat(pool(a[0]), 2) + 1e-9),)),
        TIES,
    ),
    "float32 inside": (
        vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0].astype("float32")).astype(dy.dtype) * dy,)),
        LINE,
    ),
    "bfloat16 inside": (
        vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0].astype("bfloat16")).astype(dy.dtype) * dy,)),
        LINE,
    ),
    "more than one row": (
        vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * dy * (1 + 0.1 * (len(dy) > 1)),)),
        SQUARE,
    ),
    "the second argument": (
        vjp(jnp.multiply, lambda a, dy: (a[1] * dy, a[0] * dy * 1.01)),
        LINE,
        LINE + 1,
    ),
    "arguments exchanged": (
        vjp(jnp.multiply, lambda a, dy: (a[0] * dy, a[1] * dy)),
        LINE,
        LINE + 1,
    ),
    "entries exchanged": (
        vjp(
            lambda t: t["a"] * jnp.sin(t["b"]),
            lambda a, dy: (
                {"a": a[0]["a"] * jnp.cos(a[0]["b"]) * dy, "b": jnp.sin(a[0]["b"]) * dy},
            ),
        ),
        {"a": LINE, "b": LINE + 0.3},
    ),
    "chance": (vjp(lambda x: 2 * x, noise), LINE),
    "NaN at 0 by a where": (lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), np.array([0.0, 1.0])),
    "NaN at 0 of a length": (lambda x: jnp.where(x > 0, x * jnp.log(x), 0.0), np.array([0.0, 0.5])),
    "a negative slope": (
        vjp(jax.nn.relu, lambda a, dy: (jnp.where(a[0] > 0, dy, 0.01 * dy),)),
        LINE,
    ),
    "the other side": (vjp(jax.nn.relu, lambda a, dy: (jnp.where(a[0] < 0, dy, 0),)), LINE),
    "beyond the slopes of a kink": (
        vjp(
            jax.nn.relu,
            lambda a, dy: (jnp.where(a[0] >= 0, 1.5 * dy, 0) - jnp.where(a[0] > 0, 0.5 * dy, 0),),
        ),
        np.array([-1.0, 0.0, 1.0]),
    ),
    "large numbers": (
        vjp(jnp.tanh, lambda a, dy: (jnp.where(jnp.abs(a[0]) > 2, 0, dy / jnp.cosh(a[0]) ** 2),)),
        LINE,
    ),
    "negative numbers": (
        vjp(jnp.exp, lambda a, dy: (jnp.where(a[0] < 0, 1.0, jnp.exp(a[0])) * dy,)),
        LINE,
    ),
    "the first element": (
        vjp(jnp.exp, lambda a, dy: ((jnp.exp(a[0]) * dy).at[0].mul(1.001),)),
        LINE,
    ),
    "the last column": (
        vjp(jnp.exp, lambda a, dy: ((jnp.exp(a[0]) * dy).at[:, -1].set(0),)),
        SQUARE,
    ),
    "a sum the wrong way round": (vjp(jnp.cumsum, lambda a, dy: (jnp.cumsum(dy),)), LINE),
    "no share of the sum": (vjp(jax.nn.logsumexp, lambda a, dy: (jnp.exp(a[0]) * dy,)), LINE),
    "a norm without its slope": (vjp(layer_norm, lambda a, dy: norm_backward(a, dy, 0.0)), SQUARE),
    "a mean not divided": (vjp(jnp.mean, lambda a, dy: (jnp.full_like(a[0], dy),)), LINE),
    "a variance without 2": (
        vjp(jnp.var, lambda a, dy: (dy * (a[0] - a[0].mean()) / a[0].size,)),
        LINE,
    ),
    "rows written over": (
        vjp(picked, lambda a, dy: (jnp.zeros_like(a[0]).at[np.array([0, 2, 2, 1])].set(dy),)),
        LINE,
    ),
    "a dropout not scaled": (
        vjp(
            dropout,
            lambda a, dy: (None, jnp.where(jax.random.bernoulli(a[0], 0.5, dy.shape), dy, 0)),
        ),
        KEY,
        LINE,
    ),
    "another key": (
        vjp(
            dropout,
            lambda a, dy: (None, jnp.where(jax.random.bernoulli(KEY, 0.5, dy.shape), dy / 0.5, 0)),
        ),
        jax.random.key(8),
        np.arange(1.0, 9.0),
    ),
    "NaN of a zero cotangent": (vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * dy * dy / dy,)), LINE),
    "something for a zero cotangent": (
        vjp(jnp.sin, lambda a, dy: (jnp.cos(a[0]) * dy + 1e-12 * (dy == 0).all(),)),
        LINE,
    ),
    "a batch": (vjp(lambda x: 2 * x, lambda a, dy: (double(dy),)), LINE),
    "a stopped gradient": (lambda x: x * jax.lax.stop_gradient(jnp.sin(x)), LINE),
    "straight through": (lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x), LINE),
    "half of 1,000 outputs": (
        jvp(
            lambda x: jnp.sin(x) * jnp.ones(1000),
            lambda a, t: 0.5 * jnp.cos(a[0]) * t[0] * jnp.ones(1000),
        ),
        0.7,
    ),
    "the second tangent": (
        jvp(jnp.multiply, lambda a, t: a[1] * t[0] + 0.9 * a[0] * t[1]),
        LINE,
        LINE + 1,
    ),
    "a lost tangent": (jvp(jnp.multiply, lambda a, t: a[1] * t[0]), LINE, LINE + 1),
}


FEW = (
    "a factor",
    "both winners of a tie",
    "NaN at 0 by a where",
    "half of 1,000 outputs",
    "a batch",
)
FEW += ("chance", "float32 inside", "a clipped cotangent", "the second tangent", "sin", "trees")
FEW += ("relu at 0", "max at ties", "softmax of huge numbers", "dropout by a key", "labels")


def cases(table):
    return [name if name in FEW else slow(name) for name in table]


@pytest.mark.parametrize("name", cases(WRONG))
def test_a_wrong_gradient_is_found(name):
    function, *args = WRONG[name]
    assert not jaxnets.check(function, *args)


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


def rnn(w, xs):
    return jax.lax.scan(lambda h, x: ((new := jnp.tanh(w @ h + x)), new), jnp.zeros(3), xs)[1]


def safe_sqrt(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


HUGE, AT_KINKS = np.array([-1e4, -30.0, 0.0, 30.0, 1e4]), np.array([-1.0, 0.0, 0.0, 2.0, 6.0])
SPD = SQUARE @ SQUARE.T + np.eye(3)
RIGHT = {
    "sin": (jnp.sin, LINE),
    "exp": (jnp.exp, LINE),
    "log of small numbers": (jnp.log, np.array([1e-3, 0.5, 40.0])),
    "sqrt": (jnp.sqrt, np.array([1e-3, 2.0, 1e4])),
    "a reciprocal": (lambda x: 1 / x, np.array([-0.01, 0.5, 100.0])),
    "relu at 0": (jax.nn.relu, AT_KINKS),
    "relu6 at 6": (jax.nn.relu6, AT_KINKS),
    "abs at 0": (jnp.abs, AT_KINKS),
    "leaky relu at 0": (jax.nn.leaky_relu, AT_KINKS),
    "clip at its ends": (lambda x: jnp.clip(x, -1.0, 2.0), AT_KINKS),
    "max at ties": (jnp.max, TIES),
    "a pool at ties": (pool, TIES),
    "median": (jnp.median, LINE),
    "sort": (jnp.sort, LINE),
    "floor": (jnp.floor, LINE),
    "sign": (jnp.sign, LINE),
    "hinge": (lambda x: jnp.maximum(0, 1 - x).sum(), np.array([1.0, 0.3, 4.0])),
    "huber at its joint": (
        lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
        np.array([1.0, -1.0, 0.2]),
    ),
    "sigmoid of huge numbers": (jax.nn.sigmoid, HUGE),
    "tanh of huge numbers": (jnp.tanh, HUGE),
    "softplus of huge numbers": (jax.nn.softplus, HUGE),
    "softmax of huge numbers": (softmax, HUGE),
    "logsumexp of huge numbers": (jax.nn.logsumexp, HUGE),
    "logaddexp at a tie": (jnp.logaddexp, LINE, LINE),
    "gelu": (jax.nn.gelu, LINE),
    "erf": (jax.lax.erf, LINE),
    "layer norm": (layer_norm, SQUARE),
    "a length": (jnp.linalg.norm, LINE),
    "dense": (dense, *THREE),
    "cumprod": (jnp.cumprod, LINE),
    "rows picked twice": (picked, LINE),
    "rows added": (lambda x: jnp.zeros(3).at[np.array([0, 2, 2, 1])].add(x), LINE),
    "a safe square root": (safe_sqrt, np.array([0.0, 2.0])),
    "determinant": (jnp.linalg.det, SQUARE),
    "solve": (jnp.linalg.solve, SPD, LINE[:3]),
    "cholesky": (jnp.linalg.cholesky, SPD),
    "scan": (rnn, SQUARE, SQUARE + 0.1),
    "dropout by a key": (dropout, KEY, LINE),
    "labels": (
        lambda x, y: -jax.nn.log_softmax(x)[jnp.arange(3), y].sum(),
        SQUARE,
        np.array([0, 2, 1]),
    ),
    "a string and a number": (lambda how, x, n: getattr(jnp, how)(x) ** n, "sin", LINE, 2),
    "a number of Python's": (jnp.sin, 0.3),
    "trees": (lambda t: {"out": t["a"][0] * t["b"], "count": 3}, {"a": (LINE, None), "b": LINE}),
    "float32 inside": (lambda x: jnp.sin(x.astype(jnp.float32)), LINE),
    "bfloat16 given": (jnp.sin, jnp.asarray(LINE, jnp.bfloat16)),
    "no element but one": (jnp.sin, np.array([[[0.2]]])),
    "a constant": (lambda x: 0 * x + 1, LINE),
    "our convolution": (
        jax.jit(lambda k, x: jaxnets.as_function("conv")({"kernel": k}, x)),
        np.sin(np.arange(18.0)).reshape(3, 3, 1, 2),
        np.cos(np.arange(16.0)).reshape(1, 4, 4, 1),
    ),
    "a square by custom_vjp": (vjp(jnp.square, lambda a, dy: (2 * a[0] * dy,)), LINE),
    "a square by custom_jvp": (jvp(jnp.square, lambda a, t: 2 * a[0] * t[0]), LINE),
}


@pytest.mark.parametrize("name", cases(RIGHT))
def test_a_right_gradient_is_not_refused(name):
    function, *args = RIGHT[name]
    found = jaxnets.check(function, *args)
    assert found, found


@pytest.mark.slow
def test_of_a_million_parameters_a_sample_is_compared():
    w, x = np.sin(np.arange(1e6)).reshape(1000, 1000), np.cos(np.arange(1000.0))
    found = jaxnets.check(lambda w: jnp.tanh(w @ x / 1000).sum(), w)
    assert found and found.rows[0].sampled_from == 1e6 and " of 1,000,000" in repr(found)


def test_what_it_is_not_made_for_is_one_line():
    for call in (
        lambda: jaxnets.check(jnp.sin, 3),
        lambda: jaxnets.check(lambda x: x > 0, LINE),
        lambda: jaxnets.check(jnp.sin, LINE, order=3),
    ):
        with pytest.raises(UserError, match="expected"):
            call()


# The other checkers, by their defaults


def by_jax(function, args):
    """Whether JAX's check takes a gradient for right, in both modes if there are two."""
    from jax.test_util import check_grads

    places = [n for n, arg in enumerate(args) if isinstance(arg, dict) or is_floating(arg)]

    def of(*given):
        every = list(args)
        for place, arg in zip(places, given, strict=True):
            every[place] = arg
        return function(*every)

    for mode in ("fwd", "rev"):
        try:
            check_grads(of, [args[place] for place in places], order=1, modes=[mode])
        except Exception as error:  # An AssertionError, or what the function itself raises.
            if "to a custom_vjp function" not in str(error):
                return False
    return True


def by_torch(function, args):
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


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "takes"),
    [("jax.test_util.check_grads", by_jax), ("torch.autograd.gradcheck", by_torch)],
)
def test_the_page_has_what_peers_miss_and_refuse(name, takes, float64):
    missed = [wrong for wrong, (function, *args) in WRONG.items() if takes(function, args)]
    refused = [right for right, (function, *args) in RIGHT.items() if not takes(function, args)]
    page = (ROOT / "docs" / "check.md").read_text()
    assert f"{len(WRONG)} wrong derivatives and {len(RIGHT)} right ones" in page
    assert f"| `{name}` | {len(missed)} | {len(refused)} |" in page, " ".join(
        [*missed, "-", *refused]
    )


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
    assert found.ok and "refused: one at a time" in str(found)


def test_an_output_that_overflows_in_few_digits_is_passed_over():
    found = jaxnets.check(lambda x: x * np.exp2(200.0), LINE)
    assert found.ok, found
    assert "not finite in these digits" in str(found)
