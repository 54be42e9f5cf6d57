"""Every pair and kernel against autodiff in settings that Hypothesis draws.

They stand beside the settings that each pair declares: shapes and arguments may go wrong in more
ways than a list holds. The draws are the same in every run.
"""

import itertools
from typing import Any

import flax.linen as nn
import hypothesis.strategies as st
import pytest
from conftest import quick_jit, slow
from hypothesis import assume, given, settings

from jaxnets.backprop.probability_losses import LOG_OFFSET
from jaxnets.backprop.rule import Setting
from jaxnets.backprop.rules import RULES
from jaxnets.gradcheck.compare import TOLERANCES, disagreement, precision
from jaxnets.gradcheck.layer_check import problem_of
from jaxnets.kernels import KERNELS
from jaxnets.kernels.conv_pool import WINDOW
from jaxnets.kernels.layers import WIDE
from jaxnets.models.chain import Chain
from jaxnets.models.residual import Residual

LAYERS = RULES | {kernel.name: kernel.rule for kernel in KERNELS}
SMALL, BATCH = st.integers(1, 4), st.sampled_from([1, 2, 3, 7, 8, 9, 16, 33])
WIDTH = st.one_of(st.integers(1, 9), st.integers(10, 40))


def pairs(low, high):
    """Two numbers, often equal: then axes can be swapped without a wrong shape."""
    numbers = st.integers(low, high)
    return st.one_of(st.tuples(numbers, numbers), numbers.map(lambda number: (number, number)))


def images(draw, largest=7, channels=WIDTH):
    return draw(BATCH), *draw(pairs(1, largest)), draw(channels)


@st.composite
def sliding(draw, largest_window=3):
    """An image's size, and a window, strides and padding under which the window fits in it."""
    image, window = draw(pairs(1, 7)), draw(pairs(1, largest_window))
    strides = draw(st.one_of(pairs(1, 4), st.just(window)))
    padding = draw(st.sampled_from(["SAME", "VALID"]) | st.tuples(pairs(0, 4), pairs(0, 4)))
    if padding != "SAME":
        pads = ((0, 0), (0, 0)) if padding == "VALID" else padding
        sizes = zip(pads, image, window, strict=True)
        assume(all(low + size + high >= k for (low, high), size, k in sizes))
    return image, window, strides, padding


@st.composite
def convolutions(draw):
    image, window, strides, padding = draw(sliding(5))
    groups = draw(st.sampled_from([1, 1, 2, 3, 4]))
    # One or two channels take the path of small windows, nine do not.
    channels, filters = draw(st.sampled_from([1, 2, 3, 9])), draw(st.integers(1, 7)) * groups
    params: Any = {"kernel": (*window, channels, filters)}
    if draw(st.booleans()):
        params["bias"] = (filters,)
    static = {"strides": strides, "padding": padding, "groups": groups}
    return Setting((draw(BATCH), *image, channels * groups), params, static=static)


@st.composite
def max_pools(draw):
    image, window, strides, padding = draw(sliding(4))
    if not isinstance(padding, str):
        # A window that lies on padding alone has the maximum -infinity.
        for size, k, s, (low, high) in zip(image, window, strides, padding, strict=True):
            assume(max(low, high) < k and (low + size + high - k) // s * s < low + size)
    static = {"window": window, "strides": strides, "padding": padding}
    numbers = draw(st.sampled_from(["normal", "integers", "equal"]))
    return Setting((draw(BATCH), *image, draw(SMALL)), numbers=numbers, static=static)


@st.composite
def average_pools(draw):
    image, window, strides, _ = draw(sliding(4).filter(lambda drawn: drawn[3] == "VALID"))
    static = {"window": window, "strides": strides}
    return Setting((draw(BATCH), *image, draw(SMALL)), static=static)


@st.composite
def joined_pools(draw):
    image, channels, filters = draw(pairs(2, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    padding = draw(st.sampled_from(["SAME", "VALID"]) | st.tuples(pairs(0, 3), pairs(0, 3)))
    if padding != "SAME":
        pads = ((0, 0), (0, 0)) if padding == "VALID" else padding
        assume(all(low + size + high >= 4 for (low, high), size in zip(pads, image, strict=True)))
    params: Any = {"kernel": (*WINDOW, channels, filters)}
    if draw(st.booleans()):
        params["bias"] = (filters,)
    numbers = draw(st.sampled_from(["normal", "integers", "equal"]))
    x = (draw(BATCH), *image, channels)
    return Setting(x, params, numbers=numbers, static={"padding": padding})


@st.composite
def averages(draw):
    return Setting(images(draw, 9), static={"output_size": draw(pairs(1, 5))})


@st.composite
def response_norms(draw):
    static = {
        "k": draw(st.floats(0.5, 4)),
        "n": draw(st.integers(1, 9)),
        "alpha": draw(st.floats(1e-4, 1)),
        "beta": draw(st.floats(0.1, 2.5)),
    }
    numbers = draw(st.sampled_from(["normal", "integers", "equal"]))
    return Setting((draw(BATCH), *draw(pairs(1, 4)), draw(WIDTH)), numbers=numbers, static=static)


@st.composite
def dense_layers(draw, *, ones=False):
    batch, inputs, width = draw(BATCH), draw(WIDTH), draw(WIDTH | st.just(WIDE))
    if draw(st.booleans()):
        batch = inputs = width  # A square of everything.
    params: Any = {"kernel": (inputs + ones, width)}
    if not ones and draw(st.booleans()):
        params["bias"] = (width,)
    return Setting((batch, inputs), params)


@st.composite
def dropouts(draw):
    rate = draw(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05, 0.6, 0.9, 0.95, 0.99, 1.0])))
    return Setting(images(draw, 4), static={"rate": rate})


@st.composite
def batch_norms(draw):
    batch, sizes = draw(BATCH), draw(st.lists(st.integers(1, 6), max_size=2))
    channels, padding = draw(WIDTH), draw(st.integers(0, batch - 1))
    # One number alone has no variance: then rounding is all that is left of its gradient.
    assume((batch - padding) * max(1, *sizes, 1) >= 3)
    params = {name: (channels,) for name in ("bias", "mean", "scale", "var")}
    static = {"epsilon": draw(st.sampled_from([1e-5, 1e-3, 0.1])), "axis_name": None}
    return Setting((batch, *sizes, channels), params, static=static, padding=padding)


@st.composite
def layer_norms(draw):
    sizes, width = draw(st.lists(st.integers(1, 5), max_size=2)), draw(st.integers(3, 40))
    batch = draw(BATCH | st.just(width))
    params = {
        name: (width,) for name in draw(st.sampled_from(["bias", "scale", "bias scale"])).split()
    }
    static = {"epsilon": draw(st.sampled_from([1e-6, 1e-3, 0.1]))}
    return Setting((batch, *sizes, width), params, static=static)


@st.composite
def leaky_relus(draw):
    slope = draw(st.floats(1e-3, 2))
    return draw(arrays())._replace(static={"slope": slope})


@st.composite
def residual_dense_layers(draw):
    batch, width = draw(BATCH), draw(WIDTH)
    return Setting((batch, width), {"kernel": (width, width), "bias": (width,)})


def residual(width, depth, has_shortcut):
    """A dense block, another one in it, ..., as parameters' shapes and chains."""
    chain, shapes = [], {}
    for _ in range(depth):
        inner = [Residual(chain)] if chain else []
        chain = [nn.Dense(2), nn.tanh, nn.Dense(width, use_bias=False), *inner]
        nested = {"residual1": {"chain": shapes}} if inner else {}
        rows = {"dense1": {"kernel": (width, 2), "bias": (2,)}, "dense2": {"kernel": (2, width)}}
        shapes = rows | nested
    static, params = {"chain": Chain(chain)}, {"chain": shapes}
    if has_shortcut:
        static["shortcut"] = Chain([nn.sigmoid, nn.Dense(width, use_bias=False)])
        params["shortcut"] = {"dense1": {"kernel": (width, width)}}
    return params, static


# Flax numbers its layers at random, which no strategy may.
SIZES = itertools.product((1, 3), (1, 2, 3), (False, True))
RESIDUALS = [(size[0], *residual(*size)) for size in SIZES]


@st.composite
def residuals(draw):
    width, params, static = draw(st.sampled_from(RESIDUALS))
    return Setting((draw(BATCH), width), params, static=static)


@st.composite
def arrays(draw, numbers=("normal", "integers", "huge")):
    return Setting(images(draw, 4), numbers=draw(st.sampled_from(numbers)))


@st.composite
def rows(draw, labels=("",), numbers=("normal", "equal", "huge"), scales=(1.0,)):
    size = draw(WIDTH)
    x = draw(st.sampled_from([(size, size), (draw(BATCH), size)]))
    kind, label = draw(st.sampled_from(numbers)), draw(st.sampled_from(labels))
    return Setting(x, labels=label, numbers=kind, scale=draw(st.sampled_from(scales)))


LABELS = ("classes", "one_hot", "probabilities")
SHARES = {"labels": ("one_hot",), "numbers": ("shares",)}
DRAWN = {
    "dense": dense_layers(),
    "dense_with_ones": dense_layers(ones=True),
    "flatten": arrays(),
    "sigmoid": arrays(),
    "relu": arrays(),
    "leaky_relu": leaky_relus(),
    "tanh": arrays(),
    "gelu": arrays(),
    "softmax": rows() | arrays(("normal",)),
    "conv": convolutions(),
    "max_pool": max_pools(),
    "average_pool": average_pools(),
    "global_average_pool": arrays(("normal",)),
    "adaptive_average_pool": averages(),
    "local_response_norm": response_norms(),
    "dropout": dropouts(),
    "batch_norm": batch_norms(),
    "layer_norm": layer_norms(),
    "residual": residuals(),
    "residual_dense": residual_dense_layers(),
    "cross_entropy": rows(**SHARES, scales=(1.0, LOG_OFFSET)),
    # Where a probability underflows, the two steps lose their digits.
    "softmax_then_cross_entropy": rows(LABELS, ("normal", "equal")),
    "softmax_cross_entropy": rows(LABELS),
    "squared_error": rows(**SHARES),
    "half_squared_error": rows(**SHARES),
    "mse": rows(LABELS, ("normal", "equal")),
    "half_mse": rows(LABELS, ("normal", "equal")),
    "conv_pool": joined_pools(),
    "fast_conv": convolutions(),
    "wide_dense": dense_layers(),
    "overlapping_max_pool": max_pools(),
    "relu_behind_norm": arrays(),
}


def test_every_rule_has_settings_to_draw():
    assert DRAWN.keys() == LAYERS.keys()


# Their settings are little more than a shape.
PLAIN = ("flatten", "sigmoid", "relu", "tanh", "gelu", "global_average_pool", "relu_behind_norm")


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        *((name, 3) for name in DRAWN),
        *(slow(name, 25 if name in PLAIN else 100) for name in DRAWN),
    ],
)
def test_a_pair_agrees_in_drawn_settings(name, examples):
    @settings(max_examples=examples, derandomize=True, deadline=None, database=None)
    @given(DRAWN[name])
    def search(setting):
        with precision("float64"):
            passes = problem_of(LAYERS[name], setting).at("float64")
            both = quick_jit(lambda *arrays: (passes.manual(*arrays), passes.automatic(*arrays)))
            error = disagreement(*both(passes.inputs, passes.constants))
        assert error.value <= TOLERANCES["float64"], error

    search()
