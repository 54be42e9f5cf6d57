"""Every hand-derived pair against jax.vjp of the same layer written with stock JAX or Flax.

Hypothesis draws the shapes, the arguments, the kind of numbers and their precision; a pair must
give the stock layer's output and gradients to 1e-10 (float64) or 1e-5 (float32) of each array's
largest number.
"""

import contextlib
import functools

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from jax import lax

from jaxnets.backprop import (
    activations,
    convolution,
    dense,
    dropout,
    losses,
    normalization,
    pooling,
    shape,
)

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
DTYPES = st.sampled_from(sorted(TOLERANCE))
SEEDS = st.integers(0, 2**16)
# Integers tie; a constant ties everywhere; 1e4 would overflow an exponential.
KINDS = st.sampled_from(["normal", "integers", "constant", "huge"])
# What takes the time here is compilation: of many shapes, each run once.
FAST_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
SMALL = st.integers(1, 4)


def search(examples):
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


@contextlib.contextmanager
def precision(dtype):
    """Allows float64 for as long as it is wanted (enable_x64 is not the same in every JAX)."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def draw(seed, kind, dtype, *shape):
    random = np.random.default_rng(seed)
    return {
        "normal": lambda: random.standard_normal(shape),
        "integers": lambda: random.integers(-2, 3, shape),
        "constant": lambda: np.full(shape, random.integers(-2, 3)),
        "huge": lambda: random.choice([-1e4, 0, 1e4], shape),
    }[kind]().astype(dtype)


def assert_same(ours, stock, dtype):
    """Same tree, shapes and dtypes; differences far below the largest number of each array."""
    assert jax.tree.structure(ours) == jax.tree.structure(stock)
    for mine, reference in zip(jax.tree.leaves(ours), jax.tree.leaves(stock), strict=True):
        assert (mine.shape, mine.dtype) == (reference.shape, reference.dtype)
        mine, reference = np.asarray(mine), np.asarray(reference)
        assert np.isfinite(reference).all()
        largest = np.abs(reference).max(initial=0)
        np.testing.assert_allclose(mine, reference, rtol=0, atol=TOLERANCE[dtype] * largest)


def assert_pair_matches(forward, backward, stock, inputs, dtype, seed=0):
    """Compares a pair with jax.vjp of the stock layer, both in one compilation.

    Args:
      forward: (*inputs) -> (out, cache).
      backward: (cache, d_out) -> gradients, one for each of the inputs.
      stock: (*inputs) -> out.
      inputs: NumPy arrays, or trees of them.
      dtype: "float64" or "float32".
      seed: of the numbers in d_out.
    """
    with precision(dtype):

        @functools.partial(jax.jit, compiler_options=FAST_COMPILATION)
        def both(inputs, d_out):
            out, cache = forward(*inputs)
            stock_out, pull_back = jax.vjp(stock, *inputs)
            return (out, backward(cache, d_out)), (stock_out, pull_back(d_out)), cache

        out = jax.eval_shape(stock, *inputs)
        d_out = draw(seed + 1, "normal", dtype, *out.shape)
        ours, reference, cache = both(inputs, d_out)
        assert_same(ours, reference, dtype)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(cache))


@search(20)
@given(SMALL, SMALL, SMALL, st.booleans(), KINDS, DTYPES, SEEDS)
def test_dense_matches_a_matrix_product(batch, inputs, outputs, biased, kind, dtype, seed):
    params = {"kernel": draw(seed, "normal", dtype, inputs, outputs)}
    if biased:
        params["bias"] = draw(seed + 2, "normal", dtype, outputs)
    x = draw(seed + 3, kind, dtype, batch, inputs)
    assert_pair_matches(
        dense.dense_forward,
        dense.dense_backward,
        lambda params, x: nn.Dense(outputs, use_bias=biased).apply({"params": params}, x),
        (params, x),
        dtype,
        seed,
    )


def test_the_first_layer_computes_no_input_gradient():
    x, kernel = jnp.ones((2, 3)), jnp.ones((3, 4))
    _, cache = dense.dense_forward({"kernel": kernel}, x)
    d_params, dx = dense.dense_backward(cache, jnp.ones((2, 4)), input_gradient=False)
    assert dx is None and d_params.keys() == {"kernel"}

    image, static = jnp.ones((2, 5, 5, 3)), {"strides": (1, 1), "padding": "SAME", "groups": 1}
    params = {"kernel": jnp.ones((3, 3, 3, 4)), "bias": jnp.ones(4)}
    z, cache = convolution.conv_forward(params, image, **static)
    d_params, dx = convolution.conv_backward(cache, z, **static, input_gradient=False)
    assert dx is None and d_params.keys() == {"kernel", "bias"}


@search(10)
@given(SMALL, SMALL, SMALL, KINDS, DTYPES, SEEDS)
def test_a_column_of_ones_matches_a_concatenation(batch, inputs, outputs, kind, dtype, seed):
    params = {"kernel": draw(seed, "normal", dtype, inputs + 1, outputs)}
    assert_pair_matches(
        dense.dense_with_ones_forward,
        dense.dense_with_ones_backward,
        lambda params, x: jnp.pad(x, ((0, 0), (0, 1)), constant_values=1) @ params["kernel"],
        (params, draw(seed + 1, kind, dtype, batch, inputs)),
        dtype,
        seed,
    )


ACTIVATIONS = {
    "sigmoid": (activations.sigmoid_forward, activations.sigmoid_backward, jax.nn.sigmoid),
    "relu": (activations.relu_forward, activations.relu_backward, jax.nn.relu),
    "softmax": (activations.softmax_forward, activations.softmax_backward, jax.nn.softmax),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@search(15)
@given(batch=SMALL, width=SMALL, kind=KINDS, dtype=DTYPES, seed=SEEDS)
def test_activations_match_jax_nn(name, batch, width, kind, dtype, seed):
    forward, backward, stock = ACTIVATIONS[name]
    x = draw(seed, kind, dtype, batch, width)
    assert_pair_matches(forward, lambda cache, dy: (backward(cache, dy),), stock, (x,), dtype, seed)


def test_sigmoid_neither_overflows_nor_loses_small_values():
    jax.config.update("jax_debug_infs", True)
    try:
        y, _ = activations.sigmoid_forward(jnp.array([-1e4, -80.0, 0.0, 80.0, 1e4]))
    finally:
        jax.config.update("jax_debug_infs", False)
    np.testing.assert_allclose(y, [0, np.exp(-80.0), 0.5, 1, 1], rtol=1e-6)


def test_relu_has_derivative_zero_at_zero():
    _, cache = activations.relu_forward(jnp.array([-1.0, 0.0, 1.0]))
    assert activations.relu_backward(cache, jnp.ones(3)).tolist() == [0, 0, 1]


def probabilities_and_labels(seed, kind, dtype, batch, classes):
    scores = draw(seed, kind, "float64", batch, classes)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    labels = np.random.default_rng(seed).integers(0, classes, batch)
    return (p / p.sum(axis=1, keepdims=True)).astype(dtype), np.eye(classes, dtype=dtype)[labels]


LOSSES = {
    "cross_entropy": lambda p, y: -jnp.sum(y * jnp.log(p + 1e-12), axis=1),
    "mean_squared_error": lambda p, y: jnp.mean(jnp.square(p - y), axis=1),
    "half_squared_error": lambda p, y: 0.5 * jnp.sum(jnp.square(p - y), axis=1),
}


@pytest.mark.parametrize("name", LOSSES)
@search(12)
@given(batch=SMALL, classes=SMALL, kind=KINDS, dtype=DTYPES, seed=SEEDS)
def test_losses_of_probabilities_match_their_formula(name, batch, classes, kind, dtype, seed):
    p, y = probabilities_and_labels(seed, kind, dtype, batch, classes)
    backward = getattr(losses, f"{name}_backward")
    assert_pair_matches(
        lambda p: getattr(losses, f"{name}_forward")(p, y),
        lambda cache, d_losses: (backward(cache, d_losses),),
        lambda p: LOSSES[name](p, y),
        (p,),
        dtype,
        seed,
    )


@search(18)
@given(SMALL, SMALL, KINDS, DTYPES, SEEDS)
def test_fused_cross_entropy_matches_log_softmax(batch, classes, kind, dtype, seed):
    logits = draw(seed, kind, dtype, batch, classes)
    labels = np.random.default_rng(seed).integers(0, classes, batch)
    assert_pair_matches(
        lambda z: losses.softmax_cross_entropy_forward(z, jnp.asarray(labels)),
        lambda cache, d_losses: (losses.softmax_cross_entropy_backward(cache, d_losses),),
        lambda z: -jax.nn.log_softmax(z)[np.arange(batch), labels],
        (logits,),
        dtype,
        seed,
    )


@search(12)
@given(SMALL, SMALL, st.sampled_from(["normal", "integers", "constant"]), DTYPES, SEEDS)
def test_the_slides_chain_of_softmax_and_cross_entropy_matches(batch, classes, kind, dtype, seed):
    x = draw(seed, kind, dtype, batch, classes)
    _, y = probabilities_and_labels(seed, "normal", dtype, batch, classes)

    def forward(x):
        p, softmax_cache = activations.softmax_forward(x)
        loss, loss_cache = losses.cross_entropy_forward(p, jnp.asarray(y))
        return loss, (softmax_cache, loss_cache)

    def backward(cache, d_losses):
        softmax_cache, loss_cache = cache
        dp = losses.cross_entropy_backward(loss_cache, d_losses)
        return (activations.softmax_backward(softmax_cache, dp),)

    def stock(x):
        return LOSSES["cross_entropy"](jax.nn.softmax(x), y)

    assert_pair_matches(forward, backward, stock, (x,), dtype, seed)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("mask_dtype", [bool, "float32", "int32"])
@search(4)
@given(batch=st.integers(1, 6), dtype=DTYPES, seed=SEEDS)
def test_reduction_counts_only_the_examples(reduction, mask_dtype, batch, dtype, seed):
    mask = np.random.default_rng(seed).integers(0, 2, batch)
    mask[seed % batch] = 1
    stock = {"sum": jnp.sum, "mean": jnp.mean}[reduction]
    assert_pair_matches(
        lambda v: losses.reduce_forward(v, jnp.asarray(mask, mask_dtype), reduction=reduction),
        lambda cache, d_loss: (losses.reduce_backward(cache, d_loss, reduction=reduction),),
        lambda v: stock(v[np.flatnonzero(mask)]),
        (draw(seed, "normal", dtype, batch),),
        dtype,
        seed,
    )


def test_reduction_ignores_what_stands_in_a_padded_row():
    loss, cache = losses.reduce_forward(
        jnp.array([2.0, jnp.nan, 4.0]), jnp.array([1.0, 0.0, 1.0]), reduction="mean"
    )
    assert loss == 3
    d_losses = losses.reduce_backward(cache, jnp.ones(()), reduction="mean")
    assert d_losses.tolist() == [0.5, 0, 0.5]


def test_an_unknown_reduction_says_what_was_wanted_and_what_came():
    one = jnp.ones(1)
    with pytest.raises(ValueError, match="'sum' or 'mean', got 'median'"):
        losses.reduce_forward(one, one, reduction="median")
    with pytest.raises(ValueError, match="'sum' or 'mean', got None"):
        losses.reduce_backward(one, one[0], reduction=None)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="reduction"):
        losses.reduce_forward(one, one)  # type: ignore[call-arg]  # the mistake


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def sliding(draw_from, largest_window=3):
    """Draws an image, and a window, strides and padding under which the window fits in it."""
    image = draw_from(pairs(1, 7))
    window = draw_from(pairs(1, largest_window))
    strides = draw_from(st.one_of(pairs(1, 4), st.just(window)))
    padding = draw_from(st.sampled_from(["SAME", "VALID", "pairs"]))
    if padding == "pairs":
        padding = [draw_from(pairs(0, 4)), draw_from(pairs(0, 4))]
    pads = [(0, 0), (0, 0)] if padding == "VALID" else padding
    if padding != "SAME":
        assume(
            all(low + s + high >= k for (low, high), s, k in zip(pads, image, window, strict=True))
        )
    return image, window, strides, padding


def stock_convolution(kernel, x, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# One or two channels take the path of small windows, nine do not.
CHANNELS = st.sampled_from([1, 2, 9])


@search(30)
@given(
    sliding(), SMALL, CHANNELS, SMALL, st.sampled_from([1, 1, 2, 3]), st.booleans(), DTYPES, SEEDS
)
def test_convolution_matches_lax(window, batch, channels, filters, groups, biased, dtype, seed):
    image, window, strides, padding = window
    static = {"strides": strides, "padding": padding, "groups": groups}
    params = {"kernel": draw(seed, "normal", dtype, *window, channels, filters * groups)}
    if biased:
        params["bias"] = draw(seed + 2, "normal", dtype, filters * groups)

    def stock(params, x):
        z = stock_convolution(params["kernel"], x, **static)
        return z + params["bias"] if biased else z

    assert_pair_matches(
        lambda params, x: convolution.conv_forward(params, x, **static),
        lambda cache, dz: convolution.conv_backward(cache, dz, **static),
        stock,
        (params, draw(seed + 3, "normal", dtype, batch, *image, channels * groups)),
        dtype,
        seed,
    )


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@search(8)
@given(window=sliding(), batch=SMALL, channels=SMALL, dtype=DTYPES, seed=SEEDS)
def test_small_windows_match_on_either_path(backend, window, batch, channels, dtype, seed):
    image, window, strides, padding = window
    static = {"strides": strides, "padding": padding, "groups": 1}
    kernel = draw(seed, "normal", dtype, *window, channels, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: backend)
        assert_pair_matches(
            lambda params, x: convolution.conv_forward(params, x, **static),
            lambda cache, dz: convolution.conv_backward(cache, dz, **static),
            lambda params, x: stock_convolution(params["kernel"], x, **static),
            ({"kernel": kernel}, draw(seed + 3, "normal", dtype, batch, *image, channels)),
            dtype,
            seed,
        )


def test_convolution_matches_the_flax_layer_at_the_size_of_a_network():
    params = {
        "kernel": draw(0, "normal", "float32", 5, 5, 24, 32),
        "bias": draw(1, "normal", "float32", 32),
    }
    static = {"strides": (2, 2), "padding": ((2, 2), (2, 2)), "groups": 2}
    layer = nn.Conv(32, (5, 5), strides=2, padding=2, feature_group_count=2)
    assert_pair_matches(
        lambda params, x: convolution.conv_forward(params, x, **static),
        lambda cache, dz: convolution.conv_backward(cache, dz, **static),
        lambda params, x: layer.apply({"params": params}, x),
        (params, draw(2, "normal", "float32", 4, 15, 15, 48)),
        "float32",
    )


@search(8)
@given(sliding(), CHANNELS, st.sampled_from([1, 2]), DTYPES, SEEDS)
def test_autodiff_through_convolution_takes_the_derived_rule(window, channels, groups, dtype, seed):
    image, window, strides, padding = window
    kernel = draw(seed, "normal", dtype, *window, channels, 2 * groups)
    x = draw(seed + 3, "normal", dtype, 2, *image, channels * groups)
    assert_pair_matches(
        lambda kernel, x: jax.vjp(
            lambda kernel, x: convolution.convolution(x, kernel, strides, padding, groups),
            kernel,
            x,
        ),
        lambda pull_back, dz: pull_back(dz),
        lambda kernel, x: stock_convolution(kernel, x, strides, padding, groups),
        (kernel, x),
        dtype,
        seed,
    )


@search(30)
@given(sliding(4), SMALL, SMALL, st.sampled_from(["normal", "integers", "constant"]), DTYPES, SEEDS)
@example(((2, 2), (2, 2), (2, 2), [(1, 0), (0, 1)]), 1, 1, "normal", "float32", 0)
def test_max_pool_matches_flax_in_every_tie(window, batch, channels, kind, dtype, seed):
    image, window, strides, padding = window
    static = {"window": window, "strides": strides, "padding": padding}
    x = draw(seed, kind, dtype, batch, *image, channels)
    if padding not in ("SAME", "VALID"):
        # A window that lies on padding alone has the maximum -infinity.
        assume(all(max(pad) < k for pad, k in zip(padding, window, strict=True)))
        assume(no_window_misses_the_image(image, window, strides, padding))
    assert_pair_matches(
        lambda x: pooling.max_pool_forward(x, **static),
        lambda cache, d_out: (pooling.max_pool_backward(cache, d_out, **static),),
        lambda x: nn.max_pool(x, window, strides, padding),
        (x,),
        dtype,
        seed,
    )


def no_window_misses_the_image(image, window, strides, padding):
    """Whether even the last window of each axis touches the image."""
    return all(
        (low + size + high - k) // s * s < low + size
        for size, k, s, (low, high) in zip(image, window, strides, padding, strict=True)
    )


@pytest.mark.parametrize(("window", "strides"), [((2, 2), (2, 2)), ((3, 3), (2, 2))])
def test_a_tie_in_a_max_pool_goes_to_the_first_winner(window, strides):
    static = {"window": window, "strides": strides, "padding": "VALID"}
    y, cache = pooling.max_pool_forward(jnp.zeros((1, *window, 1)), **static)
    dx = pooling.max_pool_backward(cache, jnp.ones_like(y), **static)
    assert dx[0, 0, 0, 0] == 1 and dx.sum() == 1


def test_a_max_pool_counts_its_elements_in_as_few_bytes_as_hold_them_and_one_more():
    def index(window):
        pool = functools.partial(pooling.max_pool_forward, window=window, strides=(1, 1))
        _, (winner, _) = jax.eval_shape(pool, jax.ShapeDtypeStruct((1, 17, 17, 1), jnp.float32))
        return winner.dtype

    assert (index((15, 17)), index((16, 16))) == (jnp.uint8, jnp.int32)


def test_a_max_pool_lets_a_nan_through_wherever_it_stands():
    for position in range(4):
        x = jnp.ones(4).at[position].set(jnp.nan).reshape(1, 2, 2, 1)
        assert jnp.isnan(pooling.max_pool_forward(x, window=(2, 2), strides=(2, 2))[0]).all()


@search(8)
@given(sliding(), st.sampled_from(["normal", "integers"]), DTYPES, SEEDS)
def test_autodiff_through_max_pool_takes_the_derived_rule(window, kind, dtype, seed):
    image, window, strides, padding = window
    assume(isinstance(padding, str))
    x = draw(seed, kind, dtype, 2, *image, 3)
    assert_pair_matches(
        lambda x: jax.vjp(lambda x: pooling.max_pool(x, window, strides, padding), x),
        lambda pull_back, d_out: pull_back(d_out),
        lambda x: nn.max_pool(x, window, strides, padding),
        (x,),
        dtype,
        seed,
    )


@pytest.mark.parametrize("strides", [(2, 2), (1, 2)])
def test_the_derived_max_pool_never_reaches_xlas_slow_gradient(strides):
    gradient = jax.grad(lambda x: jnp.sum(pooling.max_pool(x, (2, 2), strides)))
    text = str(jax.make_jaxpr(gradient)(np.zeros((1, 4, 4, 1), "float32")))
    assert "select_and" not in text and "reduce_window" not in text


@search(20)
@given(sliding(4), SMALL, SMALL, DTYPES, SEEDS)
def test_average_pool_matches_flax(window, batch, channels, dtype, seed):
    image, window, strides, padding = window
    static = {"window": window, "strides": strides, "padding": padding}
    assert_pair_matches(
        lambda x: pooling.average_pool_forward(x, **static),
        lambda cache, d_out: (pooling.average_pool_backward(cache, d_out, **static),),
        lambda x: nn.avg_pool(x, window, strides, padding),
        (draw(seed, "normal", dtype, batch, *image, channels),),
        dtype,
        seed,
    )


@search(15)
@given(st.tuples(*[st.integers(1, 7)] * 2), st.tuples(*[st.integers(1, 7)] * 2), DTYPES, SEEDS)
def test_adaptive_average_pool_matches_means_of_slices(image, output_size, dtype, seed):
    def stock(x):
        (height, width), (h, w) = image, output_size
        return jnp.stack(
            [
                x[
                    :,
                    i * height // h : -(-(i + 1) * height // h),
                    j * width // w : -(-(j + 1) * width // w),
                ].mean((1, 2))
                for i in range(h)
                for j in range(w)
            ],
            axis=1,
        ).reshape(2, h, w, 3)

    static = {"output_size": output_size}
    assert_pair_matches(
        lambda x: pooling.adaptive_average_pool_forward(x, **static),
        lambda cache, d_out: (pooling.adaptive_average_pool_backward(cache, d_out, **static),),
        stock,
        (draw(seed, "normal", dtype, 2, *image, 3),),
        dtype,
        seed,
    )


def test_a_window_that_does_not_fit_and_an_unknown_padding_are_errors():
    x = jnp.ones((1, 2, 2, 1))
    with pytest.raises(ValueError, match=r"window of \(3, 3\) does not fit .* \(2, 2\)"):
        pooling.max_pool_forward(x, window=(3, 3), strides=(1, 1))
    with pytest.raises(ValueError, match="'SAME', 'VALID' or pairs of ints, got 'CIRCULAR'"):
        convolution.conv_forward({"kernel": jnp.ones((1, 1, 1, 1))}, x, padding="CIRCULAR")
    with pytest.raises(ValueError, match="pairs of ints, got 2"):
        convolution.conv_forward({"kernel": jnp.ones((1, 1, 1, 1))}, x, padding=2)  # type: ignore


@search(20)
@given(
    st.sampled_from([(1,), (3,), (2, 1, 1), (2, 3, 2)]),
    st.integers(1, 8),
    st.integers(1, 6),
    st.sampled_from(["normal", "integers", "constant", "huge"]),
    st.sampled_from([{}, {"k": 1.0, "alpha": 0.1, "beta": 0.5}]),
    DTYPES,
    SEEDS,
)
def test_local_response_norm_matches_its_formula(
    leading, channels, n, kind, constants, dtype, seed
):
    static = {"n": n, **constants}
    k, alpha, beta = (
        constants.get(name, v) for name, v in [("k", 2), ("alpha", 1e-4), ("beta", 0.75)]
    )

    def stock(x):
        ones = (1,) * (x.ndim - 1)
        pads = ((0, 0),) * (x.ndim - 1) + ((n // 2, (n - 1) // 2),)
        sums = lax.reduce_window(x**2, 0.0, lax.add, (*ones, n), (*ones, 1), pads)
        return x / (k + alpha * sums) ** beta

    assert_pair_matches(
        lambda x: normalization.local_response_norm_forward(x, **static),
        lambda cache, dy: (normalization.local_response_norm_backward(cache, dy, **static),),
        stock,
        (draw(seed, kind, dtype, *leading, channels),),
        dtype,
        seed,
    )


def stock_batch_norm(params, x, epsilon):
    layer = nn.BatchNorm(use_running_average=False, epsilon=epsilon, use_fast_variance=False)
    zeros = jnp.zeros(x.shape[-1], x.dtype)
    variables = {"params": params, "batch_stats": {"mean": zeros, "var": zeros}}
    return layer.apply(variables, x, mutable=["batch_stats"])[0]


# Fewer examples leave a gradient of nothing but rounding: see the next test.
@search(15)
@given(
    st.sampled_from([(5,), (9,), (3, 2, 2), (1, 3, 3)]),
    SMALL,
    st.sampled_from([1e-5, 1e-2]),
    DTYPES,
    SEEDS,
)
def test_batch_norm_matches_flax(leading, channels, epsilon, dtype, seed):
    params = {
        "scale": draw(seed, "normal", dtype, channels),
        "bias": draw(seed + 2, "normal", dtype, channels),
    }
    assert_pair_matches(
        lambda params, x: normalization.batch_norm_forward(params, x, epsilon=epsilon),
        lambda cache, dy: normalization.batch_norm_backward(cache, dy, epsilon=epsilon),
        lambda params, x: stock_batch_norm(params, x, epsilon),
        (params, draw(seed + 3, "normal", dtype, *leading, channels)),
        dtype,
        seed,
    )


def test_batch_norm_of_one_example_is_its_bias_and_sends_no_gradient_back():
    params = {"scale": jnp.full(3, 2.0), "bias": jnp.array([1.0, 2.0, 3.0])}
    y, cache = normalization.batch_norm_forward(params, jnp.full((1, 1, 1, 3), 1e4))
    d_params, dx = normalization.batch_norm_backward(cache, jnp.ones_like(y), epsilon=1e-5)
    assert y.ravel().tolist() == [1, 2, 3]
    assert not dx.any() and not d_params["scale"].any() and (d_params["bias"] == 1).all()


@search(12)
@given(
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.sampled_from([(1,), (4, 5), (2, 3, 3, 2)]),
    DTYPES,
    SEEDS,
)
def test_dropout_matches_flax_given_the_same_key(rate, shape, dtype, seed):
    def stock(x):
        return nn.Dropout(rate, deterministic=False).apply({}, x, rng=jax.random.key(seed))

    assert_pair_matches(
        lambda x: dropout.dropout_forward(jax.random.key(seed), x, rate=rate),
        lambda cache, d_out: (dropout.dropout_backward(cache, d_out, rate=rate),),
        stock,
        (draw(seed, "normal", dtype, *shape),),
        dtype,
        seed,
    )


def test_a_dropout_rate_that_is_no_probability_is_an_error():
    with pytest.raises(ValueError, match="between 0 and 1, got 40"):
        dropout.dropout_forward(jax.random.key(0), jnp.ones(2), rate=40)


@search(4)
@given(st.sampled_from([(1, 1), (1, 2, 3), (3, 2, 2, 2), (2, 5)]), DTYPES, SEEDS)
def test_flatten_matches_a_reshape(shape_of_x, dtype, seed):
    assert_pair_matches(
        shape.flatten_forward,
        lambda cache, d_out: (shape.flatten_backward(cache, d_out),),
        lambda x: lax.reshape(x, (x.shape[0], int(np.prod(x.shape[1:])))),
        (draw(seed, "normal", dtype, *shape_of_x),),
        dtype,
        seed,
    )


IMAGE, ROWS = (2, 4, 4, 2), (3, 5)
POOL = {"window": (3, 3), "strides": (2, 2), "padding": "SAME"}
TILES = {"window": (2, 2), "strides": (2, 2), "padding": "VALID"}
CONV = {"strides": (1, 1), "padding": "SAME", "groups": 1}
PAIRS = {
    "sigmoid": (activations.sigmoid_forward, activations.sigmoid_backward, ROWS, {}),
    "relu": (activations.relu_forward, activations.relu_backward, ROWS, {}),
    "softmax": (activations.softmax_forward, activations.softmax_backward, ROWS, {}),
    "max_pool": (pooling.max_pool_forward, pooling.max_pool_backward, IMAGE, POOL),
    "tiles": (pooling.max_pool_forward, pooling.max_pool_backward, IMAGE, TILES),
    "average_pool": (pooling.average_pool_forward, pooling.average_pool_backward, IMAGE, POOL),
    "adaptive_average_pool": (
        pooling.adaptive_average_pool_forward,
        pooling.adaptive_average_pool_backward,
        IMAGE,
        {"output_size": (3, 3)},
    ),
    "local_response_norm": (
        normalization.local_response_norm_forward,
        normalization.local_response_norm_backward,
        IMAGE,
        {},
    ),
    "flatten": (shape.flatten_forward, shape.flatten_backward, IMAGE, {}),
    "dropout": (
        lambda x, rate: dropout.dropout_forward(jax.random.key(0), x, rate=rate),
        dropout.dropout_backward,
        ROWS,
        {"rate": 0.5},
    ),
    "reduce": (
        lambda x, reduction: losses.reduce_forward(x, jnp.ones(3), reduction=reduction),
        losses.reduce_backward,
        (3,),
        {"reduction": "mean"},
    ),
}
PAIRS |= {
    name: (
        lambda x, name=name: getattr(losses, f"{name}_forward")(x, jnp.eye(3, 5, dtype=x.dtype)),
        getattr(losses, f"{name}_backward"),
        ROWS,
        {},
    )
    for name in LOSSES
}
PAIRS["softmax_cross_entropy"] = (
    lambda x: losses.softmax_cross_entropy_forward(x, jnp.arange(3)),
    losses.softmax_cross_entropy_backward,
    ROWS,
    {},
)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_keeps_the_dtype(name, dtype):
    forward, backward, size, static = PAIRS[name]

    def out_and_dx(x):
        out, cache = forward(x, **static)
        return out, backward(cache, out, **static)

    with precision(dtype):
        x = jax.ShapeDtypeStruct(size, dtype)
        out, dx = jax.eval_shape(out_and_dx, x)
        assert out.dtype == dx.dtype == x.dtype and dx.shape == x.shape


PAIRS_WITH_PARAMETERS = {
    "dense": (dense.dense_forward, dense.dense_backward, ROWS, (5, 4), {}),
    "convolution": (
        convolution.conv_forward,
        convolution.conv_backward,
        (2, 4, 4, 9),
        (3, 3, 9, 4),
        CONV,
    ),
    "convolution of small windows": (
        convolution.conv_forward,
        convolution.conv_backward,
        IMAGE,
        (3, 3, 2, 4),
        CONV,
    ),
    "batch norm": (
        normalization.batch_norm_forward,
        normalization.batch_norm_backward,
        IMAGE,
        (2,),
        {"epsilon": 1e-5},
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", PAIRS_WITH_PARAMETERS)
def test_every_pair_with_parameters_keeps_the_dtype(name, dtype):
    forward, backward, size, weights, static = PAIRS_WITH_PARAMETERS[name]
    first = "scale" if name == "batch norm" else "kernel"

    @jax.jit
    def out_and_gradients(params, x):
        out, cache = forward(params, x, **static)
        return out, backward(cache, out, **static)

    with precision(dtype):
        params = {first: jnp.ones(weights, dtype), "bias": jnp.ones(weights[-1], dtype)}
        x = jnp.ones(size, dtype)
        out, gradients = out_and_gradients(params, x)
        assert out.dtype == x.dtype
        assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, (params, x))
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {x.dtype}
