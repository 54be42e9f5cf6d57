"""Wrong backward passes of layers that take rows, of activations and of losses."""

import jax
import jax.numpy as jnp

from jaxnets.backprop.dense import dense_backward
from jaxnets.backprop.dropout import dropout_backward
from jaxnets.backprop.probability_losses import LOG_OFFSET
from jaxnets.gradcheck.mutants.mutant import breaks
from jaxnets.losses import probabilities_of


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
    """What was silenced gets no gradient."""
    return jnp.where(cache, d_out, 0)


@breaks("dropout")
def dropout_forgets_mask(cache, d_out, *, rate):
    """Dropout only adds noise to training; the gradient is that of the network."""
    return d_out
