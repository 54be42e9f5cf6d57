"""A hundred wrong derivatives and a hundred right ones, on which checkers are compared.

They were written before the checker was changed for them. Each is a function and its arguments.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

import jaxnets

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


def with_forward(forward, other, backward=None):
    """A function whose forward rule returns another value than the function itself."""
    function = jax.custom_vjp(lambda *args: forward(*args))
    function.defvjp(
        lambda *args: (other(*args), args),
        backward or (lambda args, dy: jax.vjp(forward, *args)[1](dy)),
    )
    return function


def changed(forward, change):
    """A function whose backward pass is autodiff's of a changed cotangent."""
    return vjp(forward, lambda args, dy: jax.vjp(forward, *args)[1](change(dy)))


def in_dtype(wrong, forward=jnp.sin):
    """A function that is wrong by 20 % where its argument has this dtype."""

    def backward(args, dy):
        (dx,) = jax.vjp(forward, *args)[1](dy)
        return (dx * jnp.asarray(1.2, dx.dtype) if args[0].dtype == wrong else dx,)

    return vjp(forward, backward)


def traced(array):
    return isinstance(array, jax.core.Tracer)


@custom_vmap
def times(x, w):
    return x * w


@times.def_vmap
def _times_batch(size, batched, x, w):
    return (x * w if all(batched) else x * w * 1.5), True


@custom_vmap
def tripled(x):
    return 3 * x


@tripled.def_vmap
def _five_are_too_many(size, batched, x):
    return 3 * x * (1.0 if size < 5 else 1.1), True


@custom_vmap
def sine(x):
    return jnp.sin(x)


@sine.def_vmap
def _cosine(size, batched, x):
    return jnp.cos(x), True


def conv(x, k):
    return jnp.convolve(x, k, mode="same")


def power(x):
    return jnp.abs(jnp.fft.rfft(x)) ** 2


def attention(q, k):
    return jax.nn.softmax(q @ k.T / jnp.sqrt(3.0), axis=-1)


def wrong_attention(args, dy):
    q, k = args
    a = attention(q, k)
    dz = a * (dy - (a * dy).sum(-1, keepdims=True))
    return dz @ k, dz.T @ q  # Without 1 / sqrt(3).


def batch_norm(x):
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)


def masked_softmax(x):
    mask = np.array([[True, True, False], [False, False, False], [True, True, True]])
    return jnp.where(mask, softmax(x + jnp.where(mask, 0.0, -jnp.inf)), 0.0)


def newton_root(a):
    """The square root of a; its derivative is 1 / (2 root)."""
    return jax.lax.fori_loop(0, 40, lambda i, x: (x + a / x) / 2, 0 * a + 1.0)


def newton_while(a):
    state = 0, 0 * a + 1
    return jax.lax.while_loop(
        lambda s: s[0] < 40, lambda s: (s[0] + 1, (s[1] + a / s[1]) / 2), state
    )[1]


def scanned(w, xs):
    return jax.lax.scan(lambda h, x: ((new := jnp.tanh(w @ h + x)), new), jnp.zeros(3), xs)[1]


def last_step_only(args, dy):
    w, xs = args
    hs = jnp.concatenate([jnp.zeros((1, 3)), scanned(w, xs)[:-1]])
    dz = dy * (1 - scanned(w, xs) ** 2)
    return dz.T @ hs, dz  # Nothing flows back through h.


square_in_a_loop = vjp(jnp.square, lambda a, dy: (3 * a[0] * dy,))


def pooled(x):
    return x.reshape(-1, 3).max(axis=1)


def patches(x, size=3):
    padded = jnp.pad(x, size // 2, mode="edge")
    return jnp.stack([padded[n : n + x.size] for n in range(size)])


def median_filter(x):
    return jnp.median(patches(x), axis=0)


def smoothed_loss(x, y):
    return -(jnp.log(softmax(x)) * (0.9 * jax.nn.one_hot(y, 3) + 0.1 / 3)).sum()


def reflected(x):
    return jnp.pad(x, 2, mode="reflect")


def branch(flag, x):
    return jax.lax.cond(flag, lambda x: square_in_a_loop(x), lambda x: jnp.sin(x), x)


class Pair(NamedTuple):
    """A tree of two arrays."""

    weight: jax.Array | np.ndarray
    bias: jax.Array | np.ndarray


LABELS = np.array([0, 2, 1])
EQUAL = np.array([1.0, 1.0, 1.0])
LONG = np.sin(np.arange(300.0) + 0.5)
POSITIVE = np.abs(LINE) + 0.2
SPD = SQUARE @ SQUARE.T + np.eye(3)
WRONG |= {
    # Another value in the forward rule.
    "a forward rule without its bias": (
        with_forward(lambda x: x**2 + 3, lambda x: x**2),
        LINE,
    ),
    "a forward rule's value scaled": (with_forward(jnp.sin, lambda x: 1.1 * jnp.sin(x)), LINE),
    "a forward rule in float32": (
        with_forward(jnp.sin, lambda x: jnp.sin(x.astype("float32")).astype(x.dtype)),
        LINE,
    ),
    "a forward rule wrong at one entry": (
        with_forward(jnp.exp, lambda x: jnp.exp(x).at[-1].add(1e-3)),
        LINE,
    ),
    "a forward rule's outputs exchanged": (
        with_forward(lambda x: (jnp.sin(x), jnp.cos(x)), lambda x: (jnp.cos(x), jnp.sin(x))),
        LINE,
    ),
    "another primal_out": (
        (lambda f: f.defjvp(lambda p, t: (p[0] ** 2, 2 * p[0] * t[0])) and f)(
            jax.custom_jvp(lambda x: x**2 + 3)
        ),
        LINE,
    ),
    # Wrong for some cotangents.
    "a cotangent clipped at 10": (changed(jnp.sin, lambda dy: jnp.clip(dy, -10, 10)), LINE),
    "a cotangent clipped at 1e4": (changed(jnp.sin, lambda dy: jnp.clip(dy, -1e4, 1e4)), LINE),
    "a cotangent flushed below 1e-3": (
        changed(jnp.sin, lambda dy: jnp.where(jnp.abs(dy) < 1e-3, 0, dy)),
        LINE,
    ),
    "a cotangent flushed below 1e-5": (
        changed(jnp.sin, lambda dy: jnp.where(jnp.abs(dy) < 1e-5, 0, dy)),
        LINE,
    ),
    "a cotangent's norm clipped at 5": (
        changed(jnp.sin, lambda dy: dy / jnp.maximum(1, jnp.linalg.norm(dy) / 5)),
        LINE,
    ),
    "a cotangent clipped at 1e9": (changed(jnp.sin, lambda dy: jnp.clip(dy, -1e9, 1e9)), LINE),
    # Wrong in one way to call it.
    "wrong without jit": (changed(jnp.sin, lambda dy: dy if traced(dy) else 1.1 * dy), LINE),
    "wrong under jit": (changed(jnp.sin, lambda dy: 1.1 * dy if traced(dy) else dy), LINE),
    "a weight that is not batched": (
        vjp(jnp.multiply, lambda a, dy: (times(dy, a[1]), times(dy, a[0]))),
        LINE,
        LINE + 1,
    ),
    "a cotangent that is not batched": (
        vjp(jnp.square, lambda a, dy: (2 * times(a[0], dy),)),
        LINE,
    ),
    "five in a batch": (vjp(lambda x: 3 * x, lambda a, dy: (tripled(dy),)), LINE),
    "a batched value": (
        with_forward(sine, sine, lambda a, dy: (jnp.cos(a[0]) * dy,)),
        LINE,
    ),
    # Wrong in one precision.
    "wrong in float16": (in_dtype("float16"), np.asarray(LINE, np.float16)),
    "wrong in bfloat16": (in_dtype("bfloat16"), LINE),
    "wrong in float32": (in_dtype("float32"), LINE),
    "a billionth": (changed(jnp.sin, lambda dy: dy * (1 + 1e-9)), LINE),
    # Trees, several arguments and outputs.
    "the second of a list": (
        vjp(lambda t: t[0] * t[1], lambda a, dy: ([a[0][1] * dy, 0 * dy],)),
        [LINE, LINE + 1],
    ),
    "a named tuple's fields exchanged": (
        vjp(
            lambda p: p.weight**2 + p.bias,
            lambda a, dy: (Pair(dy, 2 * a[0].weight * dy),),
        ),
        Pair(LINE, LINE + 1),
    ),
    "a second output's cotangent lost": (
        vjp(lambda x: (jnp.sin(x), x**2), lambda a, dy: (jnp.cos(a[0]) * dy[0],)),
        LINE,
    ),
    "two outputs' cotangents exchanged": (
        vjp(
            lambda x: (jnp.sin(x), x**2),
            lambda a, dy: (jnp.cos(a[0]) * dy[1] + 2 * a[0] * dy[0],),
        ),
        LINE,
    ),
    "None for the third argument": (
        vjp(lambda x, w, b: x * w + b, lambda a, dy: (a[1] * dy, a[0] * dy, None)),
        LINE,
        LINE + 1,
        LINE - 1,
    ),
    "a power one too low": (
        vjp(lambda x, n: x**n, lambda a, dy: (a[1] * a[0] ** (a[1] - 2) * dy, None)),
        LINE,
        np.int32(3),
    ),
    # Loops and branches.
    "nothing through time": (vjp(scanned, last_step_only), SQUARE, SQUARE + 0.1),
    "a wrong rule in a scan": (
        lambda x: jax.lax.scan(lambda h, y: (h + square_in_a_loop(y), h), 0 * x[0], x)[0],
        LINE,
    ),
    "a root's sign": (
        vjp(newton_while, lambda a, dy: (-dy / (2 * newton_while(a[0])),)),
        POSITIVE,
    ),
    "the branch that is taken": (branch, True, LINE),
    "an adjoint solve not transposed": (
        vjp(
            jnp.linalg.solve,
            lambda args, dy: (
                -jnp.outer(jnp.linalg.solve(args[0], dy), jnp.linalg.solve(*args)),
                jnp.linalg.solve(args[0], dy),
            ),
        ),
        SQUARE,
        LINE[:3],
    ),
    # Order statistics and kinks.
    "a sort not undone": (vjp(jnp.sort, lambda a, dy: (dy,)), LINE),
    "all winners of three": (
        vjp(pooled, lambda a, dy: (jnp.repeat(dy, 3) * (a[0] == jnp.repeat(pooled(a[0]), 3)),)),
        np.append(EQUAL, [0.3, 2.0, 1.0]),
    ),
    "a median's neighbour": (
        vjp(jnp.median, lambda a, dy: (dy * (a[0] == jnp.sort(a[0])[1]),)),
        np.array([0.4, -1.3, 2.2, -0.2, 0.9]),
    ),
    "every place of a sort at a tie": (
        vjp(jnp.sort, lambda a, dy: (jnp.full_like(dy, dy[0]),)),
        EQUAL,
    ),
    "a relu6 above 6": (vjp(jax.nn.relu6, lambda a, dy: (dy * (a[0] > 0),)), 4 * LINE),
    "a length at 0": (jnp.linalg.norm, np.zeros(3)),
    # Transforms and linear algebra.
    "a convolution not flipped": (
        vjp(conv, lambda a, dy: (conv(dy, a[1]), jax.vjp(conv, *a)[1](dy)[1])),
        LINE,
        np.array([1.0, 2.0, 0.5]),
    ),
    "the border of a convolution": (
        vjp(
            conv,
            lambda a, dy: ((d := jax.vjp(conv, *a)[1](dy))[0].at[0].mul(0.5), d[1]),
        ),
        LINE,
        np.array([1.0, 2.0, 0.5]),
    ),
    "a spectrum without 2": (changed(power, lambda dy: dy / 2), LINE),
    "a determinant not transposed": (
        vjp(
            jnp.linalg.det,
            lambda a, dy: (dy * jnp.linalg.det(a[0]) * jnp.linalg.inv(a[0]),),
        ),
        SQUARE,
    ),
    "an inverse's sign": (
        vjp(
            jnp.linalg.inv,
            lambda a, dy: ((y := jnp.linalg.inv(a[0])).T @ dy @ y.T,),
        ),
        SQUARE,
    ),
    # Special functions.
    "a logarithm for digamma": (
        vjp(jax.scipy.special.gammaln, lambda a, dy: (dy * jnp.log(a[0]),)),
        POSITIVE + 1,
    ),
    "erf by 2 / pi": (
        vjp(jax.lax.erf, lambda a, dy: (dy * 2 / jnp.pi * jnp.exp(-(a[0] ** 2)),)),
        LINE,
    ),
    # Borders, entries, batches and losses.
    "reflected pixels lost": (vjp(reflected, lambda a, dy: (dy[2:-2],)), LINE),
    "one entry of 300": (
        vjp(jnp.sin, lambda a, dy: ((jnp.cos(a[0]) * dy).at[77].mul(1.0001),)),
        LONG,
    ),
    "a batch norm without its mean": (
        vjp(batch_norm, lambda a, dy: (dy / jnp.sqrt(a[0].var(0) + 1e-5),)),
        SQUARE,
    ),
    "smoothing forgotten": (
        vjp(
            smoothed_loss,
            lambda a, dy: (dy * (softmax(a[0]) - jax.nn.one_hot(a[1], 3)), None),
        ),
        SQUARE,
        LABELS,
    ),
    "attention not scaled": (vjp(attention, wrong_attention), SQUARE, SQUARE.T + 0.5),
    "NaN of a masked row": (masked_softmax, SQUARE),
}
# What PyTorch's check has no place for: jit, vmap, few digits, forward mode by itself, and a rule
# whose forward pass is not the function.
NOT_IN_TORCH = (
    "a forward rule without its bias",
    "a forward rule's value scaled",
    "a forward rule in float32",
    "a forward rule wrong at one entry",
    "a forward rule's outputs exchanged",
    "another primal_out",
    "wrong without jit",
    "wrong under jit",
    "a batch",
    "a weight that is not batched",
    "a cotangent that is not batched",
    "five in a batch",
    "a batched value",
    "wrong in float16",
    "wrong in bfloat16",
    "wrong in float32",
    "a while loop's forward mode",
)


def rnn(w, xs):
    return jax.lax.scan(lambda h, x: ((new := jnp.tanh(w @ h + x)), new), jnp.zeros(3), xs)[1]


def safe_sqrt(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


HUGE, AT_KINKS = np.array([-1e4, -30.0, 0.0, 30.0, 1e4]), np.array([-1.0, 0.0, 0.0, 2.0, 6.0])
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


@jax.checkpoint
def rematerialized(x):
    return jnp.sin(jnp.exp(jnp.cos(x)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_exponent(n, x):
    return x**n


by_exponent.defvjp(lambda n, x: (x**n, x), lambda n, x, dy: (n * x ** (n - 1) * dy,))


def implicit_root(a):
    return jax.lax.custom_root(
        lambda x: x * x - a,
        jnp.ones_like(a),
        lambda f, x: newton_root(a),
        lambda g, y: y / g(jnp.ones_like(y)),
    )


def eigenvalues(x):
    return jnp.linalg.eigvalsh(x + x.T)


def max_pool_2d(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2), (1, 1), "VALID")


def euler(y):
    return jax.lax.fori_loop(0, 20, lambda i, y: y + 0.1 * jnp.sin(y), y)


def gaussian(key, mean, scale):
    return mean + jnp.exp(scale) * jax.random.normal(key, mean.shape)


def safe_softmax(x):
    mask = np.array([[True, True, False], [True, False, True], [True, True, True]])
    return softmax(jnp.where(mask, x, -1e30))


RIGHT |= {
    # Gradients that are only rounding, and functions that few digits condition badly.
    "a sum of softmax": (lambda x: jax.nn.softmax(x).sum(), LINE),
    "a batch of two normalized": (batch_norm, SQUARE[:2]),
    "two numbers standardized": (jax.nn.standardize, LINE[:2]),
    "a layer norm of equal numbers": (layer_norm, np.ones((2, 3))),
    "a fast sine": (lambda x: jnp.sin(1000 * x), LINE),
    "a mean taken off": (lambda x: (x - x.mean()).sum(), LINE),
    "a variance far from 0": (jnp.var, LINE + 30),
    "a difference of squares": (lambda x: (x + 1) ** 2 - x**2 - 2 * x, LINE),
    # Ties.
    "sort of three equal": (jnp.sort, EQUAL),
    "sort of equal pairs": (jnp.sort, np.array([2.0, 1.0, 2.0, 1.0])),
    "median of three equal": (jnp.median, np.array([1.0, 1.0, 1.0, 0.0, 2.0])),
    "top_k of three equal": (
        lambda x: jax.lax.top_k(x, 2)[0],
        np.array([1.0, 1.0, 1.0, 0.0]),
    ),
    "a median filter of equal pixels": (median_filter, np.ones(6)),
    "max of five equal": (jnp.max, np.ones(5)),
    "a pool of equal pixels": (max_pool_2d, np.ones((3, 3))),
    "cummax at ties": (jax.lax.cummax, TIES),
    "a quantile": (lambda x: jnp.quantile(x, 0.3), LINE),
    "relu squared at 0": (lambda x: jax.nn.relu(x) ** 2, AT_KINKS),
    # Special functions.
    "ndtr": (jax.scipy.special.ndtr, LINE),
    "a normal's cdf": (jax.scipy.stats.norm.cdf, LINE),
    "exact gelu": (lambda x: jax.nn.gelu(x, approximate=False), LINE),
    "gammaln": (jax.scipy.special.gammaln, POSITIVE),
    "digamma": (jax.scipy.special.digamma, POSITIVE),
    "i0e": (jax.scipy.special.i0e, LINE),
    "erfinv": (jax.scipy.special.erfinv, LINE / 3),
    "sinc at 0": (jnp.sinc, np.array([0.0, 0.3, 2.0])),
    "xlogy at 0": (jax.scipy.special.xlogy, np.array([0.0, 0.5]), np.array([2.0, 3.0])),
    "arctan2": (jnp.arctan2, LINE, LINE + 1),
    # Transforms and linear algebra.
    "a spectrum": (power, LINE),
    "a filter by fft": (lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * np.array([1, 2j, 1])), LINE),
    "eigenvalues": (eigenvalues, SQUARE),
    "singular values": (lambda x: jnp.linalg.svd(x, compute_uv=False), SQUARE),
    "a QR decomposition": (jnp.linalg.qr, SQUARE),
    "slogdet": (lambda x: jnp.linalg.slogdet(x)[1], SQUARE),
    "an exponential of a matrix": (jax.scipy.linalg.expm, SQUARE / 2),
    # Loops, branches and rules.
    "a loop": (euler, LINE),
    "a branch": (lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), LINE),
    "an associative scan": (lambda x: jax.lax.associative_scan(jnp.multiply, x), LINE),
    "a while loop's forward mode": (newton_while, POSITIVE),
    "rematerialized": (rematerialized, LINE),
    "an argument that is not differentiated": (functools.partial(by_exponent, 3), LINE),
    "an implicit root": (implicit_root, POSITIVE),
    "a gradient": (jax.grad(lambda x: jnp.sin(x).prod()), LINE),
    # Arguments of all kinds.
    "float16 given": (jnp.tanh, np.asarray(LINE, np.float16)),
    "a named tuple and an empty array": (
        lambda p, none: p.weight * p.bias + none.sum(),
        Pair(LINE, LINE + 1),
        np.zeros(0),
    ),
    "a mask and small integers": (
        lambda x, mask, n: jnp.where(mask, x * n, -x),
        LINE,
        np.array([True, False, True, False]),
        np.arange(4, dtype=np.uint8),
    ),
    "a draw by its mean and scale": (gaussian, KEY, LINE, LINE / 2),
    "rows by their indices": (
        lambda x, n: jnp.take_along_axis(x, n, axis=1).sum(0),
        SQUARE,
        np.array([[0, 2], [1, 1], [2, 0]]),
    ),
    "sums of segments": (
        lambda x: jax.ops.segment_sum(x, np.array([0, 0, 1, 1]), 2),
        LINE,
    ),
    "a masked softmax": (safe_softmax, SQUARE),
    "small and large outputs": (lambda x: (1e-12 * jnp.sin(x), 1e12 * jnp.cos(x)), LINE),
}
