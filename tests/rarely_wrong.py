"""Mistakes in the layers' passes and in the kernels, each wrong for few shapes and arguments.

Most were written before the layers' domains were, and from the layers' formulas: borders, windows
that reach beyond them, strides that skip pixels, sizes that differ by axis, wide layers, large or
odd batches, a batch of one, masks and keys within a block, thresholds of a kernel. None of them is
wrong for most shapes. `test_gradcheck_reach.py` counts those that `gradcheck` finds.
"""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets.backprop import convolution, network, second_order
from jaxnets.backprop.windows import window_pads
from jaxnets.gradcheck.forms import HIDDEN
from jaxnets.kernels import by_rule, conv_pool, pools, wide_dense, winograd
from jaxnets.kernels import convolution as fast
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.layers import AveragePool, MaxPool


class Wrong(NamedTuple):
    """A mistake: a layer's pass, or a function of a module, in a wrong form."""

    layer: str  # Whose row of gradcheck should find it.
    where: Any  # "forward", "backward", or the module.
    attribute: str  # The function's name in the module.
    function: Any  # (the right function, *its arguments) -> a wrong result.


WRONG: dict[str, Wrong] = {}


def enter(layer, name, function, where: Any = "backward", attribute=""):
    assert f"{layer}: {name}" not in WRONG
    WRONG[f"{layer}: {name}"] = Wrong(layer, where, attribute, function)


def wrong_pass(layer, name, when, **changes):
    """Enters a backward pass that is wrong where when(call) holds.

    Args:
      layer: The layer.
      name: What is wrong.
      when: It gets the sizes and the static arguments of the call.
      changes: For x, or for a parameter, what becomes of its gradient.
    """

    def function(right, cache, d_out, **static):
        gradients = right(cache, d_out, **static)
        has_params = isinstance(gradients, tuple)
        d_params, dx = gradients if has_params else ({}, gradients)
        if dx is None:  # The pass of a first layer.
            return gradients
        shapes = {key: leaf.shape for key, leaf in d_params.items() if hasattr(leaf, "shape")}
        call = SimpleNamespace(
            x=dx.shape, out=d_out.shape, batch=len(dx), cache=cache, params=shapes, **static
        )
        if when(call):
            dx = changes.get("x", lambda dx: dx)(dx)
            d_params = {key: changes.get(key, lambda d: d)(leaf) for key, leaf in d_params.items()}
        return (d_params, dx) if has_params else dx

    enter(layer, name, function)


def half(array):
    return array / 2


def without_last(array):
    return array.at[-1].set(0)


def without_last_column(array):
    return array.at[:, :, -1].set(0)


def without_last_channel(array):
    return array.at[..., -1].set(0)


def of_first_rows(count):
    return lambda array: array.at[count:].set(0)


def remainder(call, axis, window):
    """The pixels along an axis that no window reaches."""
    pads = window_pads(call.x[1:3], window, call.strides, call.padding)
    return (call.x[1 + axis] + sum(pads[axis]) - window[axis]) % call.strides[axis]


def window_of(call):
    return call.params["kernel"][:2]


# Dense layers


def is_wider_than_128(call):
    return call.out[-1] > 128


wrong_pass("dense", "outputs beyond 128", is_wider_than_128, x=half)
wrong_pass("dense", "rows beyond 100", lambda call: call.batch > 100, kernel=half)
wrong_pass(
    "dense", "odd batch over 60", lambda c: c.batch > 60 and c.batch % 2 == 1, x=without_last
)
wrong_pass(
    "dense", "bias of a batch of one", lambda call: call.batch == 1, bias=lambda d: d[:1] + 0 * d
)


def first_rows_only(right, cache, dz, **static):
    """Adds a bias's gradient up over the first 64 examples."""
    d_params, dx = right(cache, dz, **static)
    return {**d_params, **({"bias": dz[:64].sum(0)} if "bias" in d_params else {})}, dx


enter("dense", "bias beyond 64 rows", first_rows_only)
enter("wide_dense", "bias beyond 64 rows", first_rows_only)
wrong_pass("dense_with_ones", "bias beyond 50 rows", lambda c: c.batch > 50, kernel=without_last)
wrong_pass(
    "flatten",
    "channels beyond 16",
    lambda c: len(c.x) == 4 and c.x[3] > 16,
    x=lambda dx: dx[::, ::-1],
)

# Activations


def saturating(right, cache, dy):
    """Cuts the slope off where the output has nearly saturated."""
    return jnp.where(jnp.abs(2 * cache - 1) > 0.995, 0, right(cache, dy))


def saturating_tanh(right, cache, dy):
    return jnp.where(jnp.abs(cache) > 0.9999, 0, right(cache, dy))


def gelu_as_relu(right, cache, dy):
    return jnp.where(cache > 4.5, dy, right(cache, dy))


def relu6(right, cache, dy):
    return jnp.where(cache > 6, 0, right(cache, dy))


def largest_of_both(right, x, *, slope):
    return jnp.maximum(x, slope * x), x


enter("sigmoid", "beyond 6", saturating)
enter("tanh", "beyond 5", saturating_tanh)
enter("gelu", "beyond 4.5", gelu_as_relu)
enter("relu", "beyond 6", relu6)
enter("leaky_relu", "slope above 1", largest_of_both, "forward")
wrong_pass(
    "leaky_relu",
    "slope below 0.005",
    lambda call: call.slope < 0.005,
    x=lambda dx: jnp.where(jnp.abs(dx) < 0.02, 0, dx),
)


def softmax_of_images(right, p, dp):
    return right(p, dp) if p.ndim < 4 else p * (dp - (dp * p).sum(axis=1, keepdims=True))


enter("softmax", "of images", softmax_of_images)
wrong_pass("softmax", "more than 32 scores", lambda call: call.x[-1] > 32, x=without_last_channel)

# Losses

wrong_pass("softmax_cross_entropy", "two classes", lambda c: c.x[-1] == 2, x=without_last_channel)
wrong_pass(
    "softmax_cross_entropy", "classes beyond 16", lambda c: c.x[-1] > 16, x=without_last_channel
)
wrong_pass("softmax_then_cross_entropy", "rows beyond 100", lambda c: c.batch > 100, x=half)
wrong_pass("cross_entropy", "more than 64 classes", lambda c: c.x[-1] > 64, x=without_last_channel)
for loss in ("squared_error", "half_squared_error", "mse", "half_mse", "cross_entropy"):
    wrong_pass(loss, "more than 100 classes", lambda c: c.x[-1] > 100, x=half)
wrong_pass(
    "half_squared_error",
    "odd batch over 60",
    lambda c: c.batch > 60 and c.batch % 2 == 1,
    x=without_last,
)
wrong_pass(
    "mse", "n - 1 over 50 rows", lambda c: c.batch > 50, x=lambda d: d * len(d) / (len(d) - 1)
)

# Convolutions

wrong_pass(
    "conv",
    "even width at a border",
    lambda c: (
        c.padding == "SAME" and window_of(c)[1] % 2 == 0 and c.x[2] % 2 == 0 and c.strides[1] == 2
    ),
    x=without_last_column,
)
wrong_pass(
    "conv",
    "strides beyond the window",
    lambda c: all(s > k for s, k in zip(c.strides, window_of(c), strict=True)),
    x=half,
)
wrong_pass(
    "conv",
    "stride of two at a window of one",
    lambda c: window_of(c) == (1, 1) and 2 in c.strides,
    x=half,
)
wrong_pass(
    "conv",
    "depthwise with two filters",
    lambda c: c.groups == c.x[3] > 1 and c.out[3] == 2 * c.groups,
    kernel=lambda d: d[..., ::-1],
)
wrong_pass("conv", "more than 128 filters", lambda c: c.out[3] > 128, bias=of_first_rows(128))
wrong_pass("conv", "batch beyond 64", lambda c: c.batch > 64, kernel=half)
wrong_pass("conv", "one column", lambda c: c.x[2] == 1 and window_of(c)[1] > 1, x=half)
wrong_pass(
    "conv",
    "window higher than the image",
    lambda c: window_of(c)[0] > c.x[1],
    x=lambda dx: dx[:, ::-1],
)
wrong_pass(
    "conv",
    "unreached columns at a stride of four",
    lambda c: c.strides[1] >= 4 and remainder(c, 1, window_of(c)) > 0,
    x=half,
)
wrong_pass(
    "conv",
    "batch of one with a square kernel",
    lambda c: c.batch == 1 and c.params["kernel"][2] == c.params["kernel"][3] > 1,
    kernel=lambda d: d.swapaxes(2, 3),
)


def pads_at_least_zero(right, dz, window, image, strides, pads):
    """Takes a negative padding for none; the result keeps its size."""
    shift = [min(low, 0) for low, _ in pads]
    found = right(dz, window, image, strides, pads)
    return [(low + by, high - by) for (low, high), by in zip(found, shift, strict=True)]


enter("conv", "negative padding", pads_at_least_zero, convolution, "image_gradient_pads")

# Pools


def is_wide(call):
    return call.window[1] >= 2 * call.window[0]


def has_far_strides(call):
    return max(s - k for s, k in zip(call.strides, call.window, strict=True)) >= 2


wrong_pass("max_pool", "window twice as wide as high", is_wide, x=half)
wrong_pass("max_pool", "strides two beyond the window", has_far_strides, x=half)
wrong_pass(
    "max_pool", "more than 127 elements", lambda c: 127 < math.prod(c.window) < 256, x=without_last
)
wrong_pass("max_pool", "rows beyond 128", lambda c: c.batch > 128, x=of_first_rows(128))
wrong_pass(
    "max_pool",
    "even window at the border",
    lambda c: c.padding == "SAME" and c.window[0] == 4 and c.strides[0] == 1,
    x=lambda dx: jnp.roll(dx, 1, axis=1),
)
wrong_pass(
    "max_pool",
    "windows of three over the whole image",
    lambda c: c.window == c.strides == c.x[1:3] == (3, 3),
    x=lambda dx: dx[:, ::-1],
)


def ties_counted(right, cache, d_out, **static):
    """Where windows overlap as far as they can, gives to the left neighbour too."""
    dx = right(cache, d_out, **static)
    one = static["strides"] == (1, 1) and min(static["window"]) == 2
    return dx + jnp.roll(dx, 1, axis=2) / 8 if one else dx


enter("max_pool", "windows of two at a stride of one", ties_counted)
wrong_pass("average_pool", "window wider than high", lambda c: c.window[1] > c.window[0], x=half)
wrong_pass("average_pool", "strides two beyond the window", has_far_strides, x=half)
wrong_pass("average_pool", "more than 36 elements", lambda c: math.prod(c.window) > 36, x=half)
wrong_pass("global_average_pool", "more than 64 places", lambda c: c.x[1] * c.x[2] > 64, x=half)
wrong_pass(
    "adaptive_average_pool",
    "twice as many cells as rows",
    lambda c: c.output_size[0] >= 2 * c.x[1] > 2,
    x=half,
)

# Norms and dropout

wrong_pass(
    "local_response_norm",
    "even window wider than the channels",
    lambda c: getattr(c, "n", 5) % 2 == 0 and c.n > c.x[-1] > 1,
    x=half,
)
wrong_pass("local_response_norm", "no neighbour", lambda c: getattr(c, "n", 5) == 1, x=half)
wrong_pass("local_response_norm", "beta above 2", lambda c: getattr(c, "beta", 0) > 2, x=half)
wrong_pass("dropout", "rate below 0.05", lambda c: 0 < c.rate < 0.05, x=lambda d: d * 0.99)
wrong_pass("dropout", "rows beyond 100", lambda c: c.batch > 100, x=of_first_rows(100))
wrong_pass("batch_norm", "n - 1 over 50 rows", lambda c: c.batch > 50, x=lambda d: d * 51 / 50)
wrong_pass("batch_norm", "epsilon below 1e-6", lambda c: c.epsilon < 1e-6, x=half)


def unweighted(right, cache, dy, **static):
    """Rows instead of images: forgets the mask."""
    x, weight, *others = cache
    return right((x, weight if x.ndim > 2 else jnp.ones_like(weight), *others), dy, **static)


enter("batch_norm", "mask of rows", unweighted)


def two_at_least(right, params, x, mask, **static):
    """Divides by two where there is one number in a channel."""
    y, cache = right(params, x, mask, **static)
    single = mask.sum() * (x.size // (len(x) * x.shape[-1])) == 1
    shift = params["scale"] * (x * mask.reshape(-1, *[1] * (x.ndim - 1))).sum(0) / 2
    return jnp.where(single, y + shift, y), cache


enter("batch_norm", "one example in all", two_at_least, "forward")
wrong_pass("layer_norm", "bias beyond 64 rows", lambda c: c.batch > 64, bias=lambda d: d * 64 / 130)
wrong_pass("layer_norm", "sequences", lambda c: len(c.x) == 3, x=half)
wrong_pass("gelu", "sequences", lambda c: len(c.x) == 3, x=half)
wrong_pass("layer_norm", "neither scale nor bias", lambda call: not call.params, x=half)
wrong_pass("layer_norm", "more than 64 numbers", lambda c: c.x[-1] > 64, x=without_last_channel)

# Residual blocks


def one_key_for_both(right, params, x, keys, mask, **chains):
    return right(params, x, {**keys, "shortcut": keys.get("chain", {})}, mask, **chains)


def shortcut_without_mask(right, params, x, keys, mask, *, chain, shortcut=None):
    if shortcut is not None:
        masked = shortcut.forward

        def forward(params, x, keys, mask):
            return masked(params, x, keys, jnp.ones_like(mask))

        shortcut = shortcut._replace(forward=forward)
    return right(params, x, keys, mask, chain=chain, shortcut=shortcut)


def inner_keys_of_the_outer(right, chain, *find_rule):
    """A layer of chains within a chain gets the first key for all its own."""
    pair = right(chain, *find_rule)

    def forward(params, x, keys, mask):
        if hasattr(keys, "items") and any(isinstance(key, dict) for key in keys.values()):
            keys = {i: jax.tree.map(lambda _: jax.tree.leaves(keys)[0], k) for i, k in keys.items()}
        return pair.forward(params, x, keys, mask)

    return pair._replace(forward=forward)


enter("residual", "one key for both branches", one_key_for_both, "forward")
enter("residual", "mask of the shortcut", shortcut_without_mask, "forward")
enter("residual", "keys of a block in a block", inner_keys_of_the_outer, network, "chain_pair")

# Kernels

wrong_pass(
    "wide_dense",
    "outputs that 128 does not divide",
    lambda c: c.out[1] > 128 and c.out[1] % 128 > 0,
    x=half,
)
wrong_pass(
    "conv_pool",
    "odd rows of a grey image",
    lambda c: c.x[3] == 1 and c.x[1] % 2 == 1 and c.padding == "VALID",
    x=half,
)
wrong_pass(
    "conv_pool",
    "batch of one with few channels",
    lambda c: c.batch == 1 and c.x[3] <= conv_pool.FEW_CHANNELS,
    kernel=half,
)
wrong_pass("conv_pool", "more than 16 channels", lambda c: c.x[3] > 16, x=without_last_channel)
wrong_pass(
    "fast_conv",
    "small window at its threshold",
    lambda c: math.prod(c.params["kernel"][:3]) == fast.SMALL_WINDOW,
    kernel=lambda d: d[:, ::-1],
)
wrong_pass(
    "fast_conv",
    "small window with strides that differ",
    lambda c: (
        c.strides[0] > c.strides[1]
        and math.prod(c.params["kernel"][:3]) <= fast.SMALL_WINDOW
        and window_of(c)[0] != window_of(c)[1]
    ),
    kernel=half,
)


def transposed_unless_square(right, x, kernel, *sizes):
    z = right(x, kernel, *sizes)
    return z.at[..., kernel.shape[2] :].set(0) if kernel.shape[3] > kernel.shape[2] else z


def points_reversed(right, window, step):
    at, bt, g = right(window, step)
    return at, bt, g[::-1] if step == 6 else g


def whole_tiles_only(right, rows, dz):
    """Forgets the rows that eight does not divide, of many."""
    count = dz.size // dz.shape[-1]
    product = right(rows, dz)
    if count <= 200 or count % 8 == 0:
        return product
    last = -(count % 8)
    return product - rows.reshape(-1, rows.shape[-1])[last:].T @ dz.reshape(count, -1)[last:]


enter(
    "fast_conv",
    "winograd with more filters than channels",
    transposed_unless_square,
    winograd,
    "convolve",
)
enter("fast_conv", "winograd's largest tiles", points_reversed, winograd, "matrices")


def two_blocks_at_most(right, block, function, numbers, *arrays):
    """Forgets the third block of a sum, and those after it."""
    count = winograd._count(block, numbers, len(arrays[0]))
    if count < 3:
        return right(block, function, numbers, *arrays)
    return sum(function(*(part[i] for part in winograd._blocks(count, arrays))) for i in (0, 1))


enter("fast_conv", "winograd's third block", two_blocks_at_most, winograd, "sum_in_blocks")
enter("fast_conv", "rows that eight does not divide", whole_tiles_only, fast, "product_of_rows")
wrong_pass(
    "overlapping_max_pool",
    "stride of one at a window of three",
    lambda c: c.strides == (1, 1) and c.window == (3, 3),
    x=half,
)
wrong_pass("relu", "rows beyond 128", lambda c: c.batch > 128, x=of_first_rows(128))


def of_any_stride(right, conv, activation, pool):
    """Takes every max pool of windows of two for one whose stride is two."""
    if isinstance(pool, MaxPool) and pool.window == 2:
        pool = MaxPool(2, 2)
    return right(conv, activation, pool)


def behind_any_rising_function(right, conv, activation, pool):
    return right(conv, nn.relu if activation in (nn.relu, nn.tanh) else activation, pool)


def of_subclasses(right, layer):
    if isinstance(layer, nn.Dense) and layer.features >= wide_dense.WIDE:
        return [wide_dense.with_kind(wide_dense.WideDense, layer)]
    return right(layer)


enter("conv_pool", "stride of one behind it", of_any_stride, conv_pool, "replace")
enter("conv_pool", "another activation", behind_any_rising_function, conv_pool, "replace")
enter("wide_dense", "subclasses", of_subclasses, wide_dense, "replace")

# Layers that `accelerate` puts into a network, and the products of the Hessian


def with_default_epsilon(right, layer):
    return right(layer.clone(epsilon=1e-5) if type(layer) is BatchNorm else layer)


def with_default_stride(kind, right, layer):
    return right(kind(layer.window) if isinstance(layer, kind) else layer)


def without_strides(right, layer):
    return right(layer.clone(strides=1) if type(layer) is nn.Conv else layer)


def as_the_max(right, layer):
    return (
        pools.FastMaxPool(layer.window, layer.stride)
        if type(layer) is AveragePool
        else right(layer)
    )


enter("replaced layers", "batch norm's epsilon", with_default_epsilon, by_rule, "paired")
for kind in (MaxPool, AveragePool):
    mistake = partial(with_default_stride, kind)
    enter("replaced layers", f"stride of {kind.__name__}", mistake, by_rule, "paired")
enter("replaced layers", "strides of convolutions", without_strides, by_rule, "paired")
enter("replaced layers", "average pool as a max pool", as_the_max, by_rule, "paired")


def unmasked_in_third_layer():
    """Lets R x through the third hidden layer's ReLU, in the forward pass."""
    seen = []

    def wrong(right, cache, change):
        backward = any(cache is one for one in seen)
        seen.append(cache)
        return right(cache, change) if backward or cache.shape[1] != HIDDEN[2] else change

    return wrong


def passed_at_zero(right, cache, change):
    return jnp.where(cache >= 0, change, 0)


for name, mistake in (("third layer", unmasked_in_third_layer()), ("zeros", passed_at_zero)):
    enter("hessian_vector_product", name, mistake, second_order, "relu_along")


# Sizes that equal or exceed a round number, and arguments beyond the usual ones


def is_square(call):
    return len(call.x) == 2 and call.x[0] == call.x[1]


def has_square_images(call):
    return len(call.x) == 4 and call.x[1] == call.x[2]


def is_large_batch(call):
    return call.batch > 8


def transposed(array):
    return array.swapaxes(0, 1)


def transposed_images(array):
    return array.swapaxes(1, 2)


for layer in ("sigmoid", "relu", "tanh", "gelu", "local_response_norm"):
    wrong_pass(layer, "more than five numbers", lambda c: c.x[-1] > 5, x=without_last_channel)
for layer in (
    "cross_entropy", "squared_error", "half_mse", "leaky_relu", "average_pool",
    "global_average_pool", "adaptive_average_pool", "conv_pool",
):  # fmt: skip
    wrong_pass(layer, "more than eight examples", is_large_batch, x=without_last)
for layer in ("softmax", "softmax_then_cross_entropy", "dense", "wide_dense", "layer_norm"):
    wrong_pass(layer, "square", is_square, x=transposed)
for layer in ("flatten", "conv", "max_pool", "local_response_norm"):
    wrong_pass(layer, "square images", has_square_images, x=transposed_images)
wrong_pass(
    "dense",
    "square kernel",
    lambda call: call.params["kernel"][0] == call.params["kernel"][1],
    kernel=transposed,
)
wrong_pass("dropout", "rate above 0.9", lambda call: 0.9 < call.rate < 1, x=half)
wrong_pass("local_response_norm", "n above 5", lambda call: getattr(call, "n", 0) > 5, x=half)
wrong_pass(
    "adaptive_average_pool",
    "more than three columns of cells on wide images",
    lambda call: call.output_size[1] > 3 and call.x[2] > 4,
    x=half,
)
wrong_pass(
    "adaptive_average_pool",
    "more cells than columns",
    lambda call: call.output_size[1] > call.x[2] > 1,
    x=half,
)
wrong_pass("average_pool", "overlaps", lambda call: call.window > call.strides, x=half)
wrong_pass("max_pool", "windows of 256", lambda call: call.window[0] > 15, x=half)
wrong_pass("conv", "stride of three", lambda call: 3 in call.strides, x=half)
wrong_pass("conv", "four groups", lambda call: call.groups > 3, kernel=half)
wrong_pass(
    "conv_pool",
    "three channels reversed",
    lambda call: call.x[-1] == 3,
    kernel=lambda kernel: kernel[:, :, ::-1],
)
wrong_pass("layer_norm", "no bias", lambda call: "bias" not in call.params, scale=half)
wrong_pass("layer_norm", "no scale", lambda call: "scale" not in call.params, bias=half)
wrong_pass("layer_norm", "epsilon above 1e-3", lambda call: call.epsilon > 1e-3, scale=half)
wrong_pass("batch_norm", "epsilon above 1e-5", lambda call: call.epsilon > 1e-5, scale=half)
wrong_pass(
    "batch_norm",
    "one example at one place",
    is_large_batch,
    x=lambda dx: dx.at[(9, *(3, 2)[: dx.ndim - 2], 0)].multiply(2),
)


def upstream_gradient_as_its_mean(right, cache, d_losses):
    return right(cache, d_losses) / d_losses[:, None] * d_losses.mean()


enter("softmax_cross_entropy", "the mean of the upstream gradient", upstream_gradient_as_its_mean)


def without_the_input(right, cache, d_out, *, shortcut=None, **static):
    d_params, dx = right(cache, d_out, shortcut=shortcut, **static)
    return (d_params, dx) if dx is None or shortcut else (d_params, dx - d_out)


def half_a_shortcut(right, cache, d_out, **static):
    d_params, dx = right(cache, d_out, **static)
    halves = jax.tree.map(half, d_params.get("shortcut", {}))
    return ({**d_params, "shortcut": halves} if halves else d_params), dx


enter("residual", "without the input", without_the_input)
enter("residual", "half a shortcut", half_a_shortcut)


# Functions of the kernels


def to_last(right, grid):
    """The largest of the arrays, a tie to the last."""
    _, *others = arrays = [array for row in grid for array in row]
    y, winner = arrays[0], jnp.zeros(arrays[0].shape, jnp.uint8)
    for number, candidate in enumerate(others, start=1):
        winner = jnp.where(candidate >= y, jnp.uint8(number), winner)
        y = jnp.maximum(y, candidate)
    return y, winner


def of_result(change):
    return lambda right, *arrays, **options: change(right(*arrays, **options))


enter("conv_pool", "tie to the last", to_last, conv_pool, "_largest")
enter("conv_pool", "half the columns' sum", of_result(half), conv_pool, "_input_gradient")
enter("conv_pool", "half the rows' sum", of_result(half), conv_pool, "product_of_rows")
enter("fast_conv", "half the rows' sum", of_result(half), fast, "product_of_rows")
enter("fast_conv", "winograd's z transposed", of_result(transposed_images), winograd, "convolve")
enter(
    "fast_conv",
    "winograd's dW transposed",
    of_result(lambda kernel: kernel.swapaxes(2, 3)),
    winograd,
    "kernel_gradient",
)
enter(
    "overlapping_max_pool",
    "no stored winner",
    of_result(lambda winner: winner * 0),
    pools,
    "stored",
)


# A pass that is right but for the first layer, which needs no gradient of its input


def zeros_without_input_gradient(right, cache, d_out, *, input_gradient=True, **static):
    d_params, dx = right(cache, d_out, **static)
    return (d_params, dx) if input_gradient else (jax.tree.map(jnp.zeros_like, d_params), None)


for layer in ("dense", "batch_norm", "conv"):
    enter(layer, "as the first layer", zeros_without_input_gradient)
