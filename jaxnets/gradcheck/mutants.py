"""Wrong backward passes of the kind that students write, for the check to find.

Each has the signature of the backward pass that it replaces, and its docstring says what its
author thought. Students get them under neutral names, from `jaxnets exercise new bug1` on: see
course/exercises/bugs.py. `jaxnets gradcheck --mutant=NAME` shows that the check finds one.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.backprop.batch_norm import batch_norm_backward
from jaxnets.backprop.convolution import conv_backward
from jaxnets.backprop.dense import dense_backward
from jaxnets.backprop.dropout import dropout_backward
from jaxnets.backprop.pooling import max_pool_forward
from jaxnets.backprop.probability_losses import LOG_OFFSET
from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.rules import RULES
from jaxnets.backprop.windows import window_pads, window_slices
from jaxnets.gradcheck.layer_check import with_backward
from jaxnets.losses import probabilities_of

MUTANTS: dict[str, LayerRule] = {}  # The broken layers, by the names of the functions below.


def breaks(layer: str, **forward):
    """Breaks a layer with the function below it; forward keeps another cache for it."""

    def enter(backward):
        MUTANTS[backward.__name__] = with_backward(RULES[layer], backward)._replace(**forward)
        return backward

    return enter


@breaks("dense")
def dense_divides_by_batch(cache, dz):
    """The loss is a mean over the batch, so the weights' gradient must be one too."""
    x, params = cache
    d_params = {"kernel": x.T @ dz / len(x)}
    if "bias" in params:
        d_params["bias"] = dz.sum(axis=0) / len(x)
    return d_params, dz @ params["kernel"].T


@breaks("dense")
def dense_bias_as_mean(cache, dz):
    """There is one bias for all examples, so it gets their average."""
    x, params = cache
    d_params = {"kernel": x.T @ dz}
    if "bias" in params:
        d_params["bias"] = dz.mean(axis=0)
    return d_params, dz @ params["kernel"].T


@breaks("dense")
def dense_reshaped_kernel(cache, dz):
    """The shapes did not fit; now they do."""
    x, params = cache
    kernel = params["kernel"]
    d_params = {"kernel": x.T @ dz}
    if "bias" in params:
        d_params["bias"] = dz.sum(axis=0)
    return d_params, dz @ kernel.reshape(kernel.shape[::-1])


@breaks("dense")
def dense_updates_too_early(cache, dz):
    """The kernel's gradient is known first, so its step can be taken at once."""
    x, params = cache
    d_params = {"kernel": x.T @ dz}
    if "bias" in params:
        d_params["bias"] = dz.sum(axis=0)
    kernel = params["kernel"] - 0.1 * d_params["kernel"]
    return d_params, dz @ kernel.T


@breaks("dense_with_ones")
def ones_row_without_gradient(cache, dz):
    """The ones are constants, so what belongs to them has no gradient."""
    x, params = cache
    return {"kernel": x.T @ dz}, dz @ params["kernel"].T


@breaks("dense_with_ones")
def ones_row_first(cache, dz):
    """The bias comes first, as the constant of a polynomial."""
    d_params, dx = dense_backward(cache, dz)
    return {"kernel": jnp.vstack([d_params["bias"], d_params["kernel"]])}, dx


@breaks("flatten")
def flatten_in_wrong_order(cache, d_out):
    """Channels are images: first comes the whole first channel, then the second."""
    sizes = cache.shape[1:]
    channels_first = d_out.reshape(len(d_out), sizes[-1], *sizes[:-1])
    return jnp.moveaxis(channels_first, 1, -1)


@breaks("sigmoid")
def sigmoid_of_y(cache, dy):
    """The derivative of the sigmoid is s(x) (1 - s(x))."""
    s = jax.nn.sigmoid(cache)
    return dy * s * (1 - s)


@breaks("sigmoid")
def sigmoid_forgets_chain(cache, dy):
    """The derivative of the sigmoid is y (1 - y), and that is all."""
    y = cache
    return y * (1 - y)


@breaks("relu")
def relu_mask_from_gradient(cache, dy):
    """ReLU keeps what is positive, forward and backward."""
    return jnp.maximum(dy, 0)


@breaks("relu")
def relu_lets_all_through(cache, dy):
    """Where the output is not negative the gradient passes."""
    y = cache
    return jnp.where(y >= 0, dy, 0)


def relu_keeping_x(x):
    """ReLU whose cache is x instead of y."""
    return jnp.maximum(x, 0), x


@breaks("relu", forward=relu_keeping_x)
def relu_passes_at_zero(cache, dy):
    """The derivative is 0 for x < 0, and 1 elsewhere."""
    x = cache
    return jnp.where(x < 0, 0, dy)


@breaks("softmax")
def softmax_elementwise(cache, dp):
    """Softmax is the sigmoid of several classes, and so is its derivative p (1 - p)."""
    p = cache
    return dp * p * (1 - p)


@breaks("softmax")
def softmax_sums_over_batch(cache, dp):
    """The formula has a sum, and sums in a backward pass are over the batch."""
    p = cache
    return p * (dp - (dp * p).sum(axis=0))


@breaks("cross_entropy")
def cross_entropy_without_minus(cache, d_losses):
    """The derivative of log p is 1 / p."""
    p, y = cache
    return y / (p + LOG_OFFSET) * d_losses[:, None]


@breaks("cross_entropy")
def cross_entropy_of_logits(cache, d_losses):
    """Everybody knows that the gradient of the cross-entropy is p - y."""
    p, y = cache
    return (p - y) * d_losses[:, None]


@breaks("cross_entropy")
def cross_entropy_forgets_offset(cache, d_losses):
    """1e-12 is only there for the logarithm of 0."""
    p, y = cache
    return jnp.where(y > 0, -y / p, 0) * d_losses[:, None]


@breaks("softmax_cross_entropy")
def softmax_cross_entropy_sign(cache, d_losses):
    """The error is what it should be minus what it is."""
    p, labels = cache
    y = probabilities_of(labels, p.shape[-1], p.dtype)
    return (y - p) * d_losses[:, None]


@breaks("softmax_cross_entropy")
def softmax_cross_entropy_is_the_end(cache, d_losses):
    """Nothing comes after the loss, so p - y is where the backward pass begins."""
    p, labels = cache
    return p - probabilities_of(labels, p.shape[-1], p.dtype)


@breaks("squared_error")
def squared_error_forgets_two(cache, d_losses):
    """The 2 of the square meets the 1/2, as on the slide."""
    difference = cache
    return difference / difference.shape[-1] * d_losses[:, None]


@breaks("squared_error")
def squared_error_over_batch(cache, d_losses):
    """The mean is over the examples."""
    difference = cache
    return 2 / len(difference) * difference * d_losses[:, None]


@breaks("half_squared_error")
def half_squared_error_keeps_two(cache, d_losses):
    """The derivative of a square has a factor 2."""
    difference = cache
    return 2 * difference * d_losses[:, None]


@breaks("dropout")
def dropout_redraws_mask(cache, d_out, *, rate):
    """Dropout silences at random, backward too."""
    kept = jax.random.bernoulli(jax.random.key(1), 1 - rate, d_out.shape)
    return dropout_backward(kept, d_out, rate=rate)


@breaks("dropout")
def dropout_forgets_scale(cache, d_out, *, rate):
    """A silenced number gets no gradient."""
    return jnp.where(cache, d_out, 0)


@breaks("dropout")
def dropout_forgets_mask(cache, d_out, *, rate):
    """Dropout only adds noise to training; the gradient is that of the network."""
    return d_out


@breaks("conv")
def conv_unflipped_kernel(cache, dz, **sliding):
    """The kernel slides over dz just as it slid over x."""
    x, params = cache
    d_params, _ = conv_backward(cache, dz, **sliding)
    flipped = {**params, "kernel": lax.rev(params["kernel"], (0, 1))}
    _, dx = conv_backward((x, flipped), dz, **sliding)  # which flips it once more
    return d_params, dx


@breaks("conv")
def conv_padding_off_by_one(cache, dz, *, strides, padding, groups):
    """If the padding has an odd number of rows, the extra row is at the top."""
    x, params = cache
    pads = window_pads(x.shape[1:3], params["kernel"].shape[:2], strides, padding)
    pads = [(high, low) for low, high in pads]
    return conv_backward(cache, dz, strides=strides, padding=pads, groups=groups)


@breaks("conv")
def conv_ignores_stride(cache, dz, *, strides, padding, groups):
    """Element (a, b) of the window visits the rows from a on and the columns from b on."""
    x, params = cache
    kernel = params["kernel"]
    pads = window_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    d_params, dx = conv_backward(cache, dz, strides=strides, padding=padding, groups=groups)

    def split(v):
        return v.reshape(*v.shape[:3], groups, -1)

    visited = [
        jnp.einsum("bijgc,bijgk->cgk", split(part[:, : dz.shape[1], : dz.shape[2]]), split(dz))
        for part in window_slices(x, kernel.shape[:2], (1, 1), pads, fill=0)
    ]
    return {**d_params, "kernel": jnp.stack(visited).reshape(kernel.shape)}, dx


@breaks("conv")
def conv_forgets_groups(cache, dz, *, groups, **sliding):
    """A filter sees C / groups channels of x: the first ones."""
    x, params = cache
    seen = jnp.concatenate([x[..., : x.shape[-1] // groups]] * groups, axis=-1)
    d_params, _ = conv_backward((seen, params), dz, groups=groups, **sliding)
    _, dx = conv_backward(cache, dz, groups=groups, **sliding)
    return d_params, dx


@breaks("conv")
def conv_bias_as_mean(cache, dz, **sliding):
    """The bias stands at every place, so it gets the places' average, summed over the batch."""
    d_params, dx = conv_backward(cache, dz, **sliding)
    if "bias" in d_params:
        d_params["bias"] = dz.mean(axis=(1, 2)).sum(axis=0)
    return d_params, dx


def slices_of(x, fill, *, window, strides, padding):
    """The numbers under each element of the window; the padding holds `fill`."""
    pads = window_pads(x.shape[1:3], window, strides, padding)
    return window_slices(x, window, strides, pads, fill)


def sum_of_slices(slices, like, *, window, strides, padding):
    """Adds slices up where they came from in images as large as `like`."""
    height, width = like.shape[1:3]
    (top, bottom), (left, right) = window_pads((height, width), window, strides, padding)
    batch, h, w, channels = slices[0].shape
    padded = jnp.zeros((batch, top + height + bottom, left + width + right, channels))
    padded = padded.astype(slices[0].dtype)
    for number, part in enumerate(slices):
        a, b = divmod(number, window[1])
        rows = slice(a, a + strides[0] * (h - 1) + 1, strides[0])
        columns = slice(b, b + strides[1] * (w - 1) + 1, strides[1])
        padded = padded.at[:, rows, columns].add(part)
    return padded[:, top : top + height, left : left + width]


def max_pool_keeping_x(x, **sliding):
    """Max pooling whose cache is x and y instead of the winners."""
    y, _ = max_pool_forward(x, **sliding)
    return y, (x, y)


@breaks("max_pool", forward=max_pool_keeping_x)
def max_pool_counts_ties(cache, d_out, **sliding):
    """Whoever equals the maximum has won."""
    x, y = cache
    parts = [jnp.where(part == y, d_out, 0) for part in slices_of(x, -jnp.inf, **sliding)]
    return sum_of_slices(parts, x, **sliding)


@breaks("max_pool", forward=max_pool_keeping_x)
def max_pool_tie_to_last(cache, d_out, **sliding):
    """Go through the window and remember the place of the maximum."""
    x, y = cache
    slices = slices_of(x, -jnp.inf, **sliding)
    winner = jnp.zeros(y.shape, int)
    for number, part in enumerate(slices):
        winner = jnp.where(part == y, number, winner)
    parts = [jnp.where(winner == number, d_out, 0) for number in range(len(slices))]
    return sum_of_slices(parts, x, **sliding)


@breaks("max_pool")
def max_pool_averages_overlaps(cache, d_out, *, window, **sliding):
    """An element has one gradient: where several windows chose it, their average."""
    winner, shape = cache
    wins = [(winner == number).astype(d_out.dtype) for number in range(window[0] * window[1])]
    total = sum_of_slices([win * d_out for win in wins], shape, window=window, **sliding)
    count = sum_of_slices(wins, shape, window=window, **sliding)
    return total / jnp.maximum(count, 1)


@breaks("max_pool")
def max_pool_pays_everyone(cache, d_out, *, window, **sliding):
    """Each element of the window took part in the comparison."""
    _, shape = cache
    return sum_of_slices([d_out] * (window[0] * window[1]), shape, window=window, **sliding)


def near(channels, n):
    """The matrix [C, C] whose row i is 1 at the channels of N(i)."""
    i, j = jnp.arange(channels)[:, None], jnp.arange(channels)
    return ((i - n // 2 <= j) & (j <= i + (n - 1) // 2)).astype(float)


@breaks("local_response_norm")
def local_response_norm_forgets_neighbours(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """s_i is a number by which x_i is divided."""
    x, squares = cache
    return dy * (k + alpha * squares) ** -beta


@breaks("local_response_norm")
def local_response_norm_keeps_exponent(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """A power's derivative brings its exponent down."""
    x, squares = cache
    s = k + alpha * squares
    shared = (dy * x * s**-beta) @ near(x.shape[-1], n).astype(x.dtype)
    return dy * s**-beta - 2 * alpha * beta * x * shared


@breaks("local_response_norm")
def local_response_norm_looks_the_same_way(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """Channel j sums over the channels of N(j), as in the forward pass."""
    x, squares = cache
    s = k + alpha * squares
    shared = (dy * x * s ** (-beta - 1)) @ near(x.shape[-1], n).T.astype(x.dtype)
    return dy * s**-beta - 2 * alpha * beta * x * shared


@breaks("batch_norm")
def batch_norm_of_constants(cache, dy, **static):
    """The mean and the variance are numbers, so y is linear in x."""
    scale, r = cache[2], cache[4]
    return batch_norm_backward(cache, dy, **static)[0], scale * r * dy


@breaks("batch_norm")
def batch_norm_forgets_variance(cache, dy, **static):
    """The mean depends on x; what is left is divided by a number."""
    x, weight, scale, mean, r, count, statistics = cache
    d_params, _ = batch_norm_backward(cache, dy, **static)
    return d_params, scale * r * (dy - weight * d_params["bias"] / count)


@breaks("batch_norm")
def batch_norm_counts_padding(cache, dy, **static):
    """Every row of the batch is an example."""
    x, weight, *others = cache
    return batch_norm_backward((x, jnp.ones_like(weight), *others), dy, **static)
