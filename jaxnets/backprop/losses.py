"""Losses, one number per example; `training/step.py` divides by the number of examples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.activations import SCORES, softmax_backward, softmax_forward
from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.losses import (
    Labels,
    cross_entropy,
    expected,
    half_mse,
    mse,
    probabilities_of,
    squared_error,
)

# The slides add it to p so that log(0) never occurs.
LOG_OFFSET = 1e-12

PROBABILITIES = [
    Setting(shape, labels="one_hot", numbers="shares") for shape in [(4, 10), (1, 3), (3, 1)]
]
SCORES_AND_LABELS = [
    *(setting._replace(labels="classes") for setting in SCORES),
    Setting((4, 5), labels="probabilities"),
]


def cross_entropy_forward(
    probabilities: Float[Array, "B K"], one_hot: Float[Array, "B K"]
) -> tuple[Float[Array, " B"], tuple[Float[Array, "B K"], Float[Array, "B K"]]]:
    """Measures how surprised p is by the truth: loss_b = -sum_k y_bk log(p_bk + 1e-12).

    Args:
      probabilities: p, from `softmax_forward`.
      one_hot: y.

    Returns:
      The losses, and the cache for `cross_entropy_backward`.

    Source: slide "全连接神经网络的自定义编码实现", CrossEntropy.
    """
    losses = -(one_hot * jnp.log(probabilities + LOG_OFFSET)).sum(axis=-1)
    return losses, (probabilities, one_hot)


def cross_entropy_backward(
    cache: tuple[Float[Array, "B K"], Float[Array, "B K"]], d_losses: Float[Array, " B"]
) -> Float[Array, "B K"]:
    """Applies the chain rule to loss_b = -sum_k y_bk log(p_bk + 1e-12).

        ∂loss_b/∂p_bk = -y_bk / (p_bk + 1e-12)
        dp_bk = d_loss_b ∂loss_b/∂p_bk

    Where p of the true class has sunk to 0, softmax multiplies this by 0 and the example no longer
    learns: the price of the slides' two steps. `softmax_cross_entropy_forward` does not pay it.

    Args:
      cache: From `cross_entropy_forward`.
      d_losses: The gradient of the losses.

    Returns:
      dp.

    Source: slide "全连接神经网络的自定义编码实现", the step loss_grad.
    """
    p, y = cache
    return -y / (p + LOG_OFFSET) * d_losses[:, None]


CROSS_ENTROPY = LayerRule(
    name="cross_entropy",
    layer=None,
    forward=cross_entropy_forward,
    backward=cross_entropy_backward,
    plain=lambda p, y: -jnp.sum(y * jnp.log(p + 1e-12), axis=1),
    settings=[
        *PROBABILITIES,
        Setting((4, 5), labels="one_hot", numbers="shares", scale=LOG_OFFSET),
    ],
    inputs=("x", "labels"),
)


def _after_softmax(forward, backward):
    """A pair of probabilities and one-hot rows as a pair of logits and labels: two links."""

    def from_logits(logits, labels):
        probabilities, softmax_cache = softmax_forward(logits)
        y = probabilities_of(labels, logits.shape[-1], logits.dtype)
        losses, loss_cache = forward(probabilities, y)
        return losses, (softmax_cache, loss_cache)

    def to_logits(cache, d_losses):
        softmax_cache, loss_cache = cache
        return softmax_backward(softmax_cache, backward(loss_cache, d_losses))

    return from_logits, to_logits


# The slides' two steps. Scores so large that p underflows would stop them.
softmax_then_cross_entropy_forward, softmax_then_cross_entropy_backward = _after_softmax(
    cross_entropy_forward, cross_entropy_backward
)
SOFTMAX_THEN_CROSS_ENTROPY = LayerRule(
    name="softmax_then_cross_entropy",
    layer=None,
    forward=softmax_then_cross_entropy_forward,
    backward=softmax_then_cross_entropy_backward,
    plain=lambda x, labels: CROSS_ENTROPY.plain(jax.nn.softmax(x), labels),
    settings=[
        setting._replace(labels="one_hot") for setting in SCORES if setting.numbers != "huge"
    ],
    inputs=("x", "labels"),
)


def softmax_cross_entropy_forward(
    logits: Float[Array, "B K"], labels: Labels
) -> tuple[Float[Array, " B"], tuple[Float[Array, "B K"], Labels]]:
    """Takes softmax and cross-entropy in one step: loss_b = log(sum_j e^z_bj) - sum_k y_bk z_bk.

    That is -sum_k y_bk log p_bk with p = softmax(z), written so that neither e^z nor log p is ever
    infinite; the largest logit is subtracted first. Where the label is a class, y is one-hot and
    the last sum is z_b,label.

    Args:
      logits: z.
      labels: Classes in 0 .. K - 1, or probabilities y, each row with the sum 1.

    Returns:
      The losses, and the cache for `softmax_cross_entropy_backward`.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - jnp.log(jnp.exp(shifted).sum(axis=-1, keepdims=True))
    return -expected(log_p, labels), (jnp.exp(log_p), labels)


def softmax_cross_entropy_backward(
    cache: tuple[Float[Array, "B K"], Labels], d_losses: Float[Array, " B"]
) -> Float[Array, "B K"]:
    """Applies the chain rule to loss_b = log(sum_j e^z_bj) - sum_j y_bj z_bj.

        ∂loss_b/∂z_bk = e^z_bk / sum_j e^z_bj - y_bk = p_bk - y_bk
        dz_bk = (p_bk - y_bk) d_loss_b

    From -sum_j y_bj log p_bj, with ∂log p_bj/∂z_bk = 1[j = k] - p_bk, the same comes out as
    p_bk sum_j y_bj - y_bk: that the probabilities y_bj have the sum 1 is used here. A class is the
    case in which one of them is 1 and the others are 0.

    Args:
      cache: From `softmax_cross_entropy_forward`.
      d_losses: The gradient of the losses.

    Returns:
      dz.
    """
    p, labels = cache
    y = probabilities_of(labels, p.shape[-1], p.dtype)
    return (p - y) * d_losses[:, None]


SOFTMAX_CROSS_ENTROPY = LayerRule(
    name="softmax_cross_entropy",
    layer=cross_entropy,
    forward=softmax_cross_entropy_forward,
    backward=softmax_cross_entropy_backward,
    plain=lambda x, labels: -jnp.sum(_rows(labels, x) * jax.nn.log_softmax(x), axis=1),
    settings=SCORES_AND_LABELS,
    inputs=("x", "labels"),
)


def _rows(labels, like):
    """The labels as rows of probabilities, for the plain formulations."""
    return labels if labels.ndim == 2 else jnp.eye(like.shape[1], dtype=like.dtype)[labels]


def squared_error_forward(
    outputs: Float[Array, "B K"], targets: Float[Array, "B K"]
) -> tuple[Float[Array, " B"], Float[Array, "B K"]]:
    """Averages the squares over the outputs, as Keras does: loss_b = 1/K sum_k (p_bk - y_bk)².

    Args:
      outputs: p; in regression, the predictions.
      targets: y; one-hot rows, or in regression real numbers.

    Returns:
      The losses, and the cache for `squared_error_backward`.

    Source: slide "基于Keras库构建全连接神经网络", loss='mse'.
    """
    difference = outputs - targets
    return (difference**2).mean(axis=-1), difference


def squared_error_backward(
    cache: Float[Array, "B K"], d_losses: Float[Array, " B"]
) -> Float[Array, "B K"]:
    """Applies the chain rule to loss_b = 1/K sum_k (p_bk - y_bk)².

        dp_bk = 2/K (p_bk - y_bk) d_loss_b

    Args:
      cache: From `squared_error_forward`.
      d_losses: The gradient of the losses.

    Returns:
      dp.
    """
    difference = cache
    return 2 / difference.shape[-1] * difference * d_losses[:, None]


SQUARED_ERROR = LayerRule(
    name="squared_error",
    layer=squared_error,
    forward=squared_error_forward,
    backward=squared_error_backward,
    plain=lambda p, y: jnp.square(p - y).mean(axis=1),
    settings=PROBABILITIES,
    inputs=("x", "labels"),
)


def half_squared_error_forward(
    outputs: Float[Array, "B K"], targets: Float[Array, "B K"]
) -> tuple[Float[Array, " B"], Float[Array, "B K"]]:
    """Sums the squares over the outputs, as the slide does: loss_b = 1/2 sum_k (p_bk - y_bk)².

    The slide's 1/K over the examples stands in `training/step.py`. Over 10 outputs this loss is 5
    times the one of Keras.

    Args:
      outputs: p.
      targets: y.

    Returns:
      The losses, and the cache for `half_squared_error_backward`.

    Source: slide "全连接神经网络的基本原理", backpropagation.
    """
    difference = outputs - targets
    return (difference**2).sum(axis=-1) / 2, difference


def half_squared_error_backward(
    cache: Float[Array, "B K"], d_losses: Float[Array, " B"]
) -> Float[Array, "B K"]:
    """Applies the chain rule to loss_b = 1/2 sum_k (p_bk - y_bk)².

        dp_bk = (p_bk - y_bk) d_loss_b              the 2 of the square meets the 1/2

    Args:
      cache: From `half_squared_error_forward`.
      d_losses: The gradient of the losses.

    Returns:
      dp.
    """
    difference = cache
    return difference * d_losses[:, None]


HALF_SQUARED_ERROR = LayerRule(
    name="half_squared_error",
    layer=None,
    forward=half_squared_error_forward,
    backward=half_squared_error_backward,
    plain=lambda p, y: 0.5 * jnp.square(p - y).sum(axis=1),
    settings=PROBABILITIES,
    inputs=("x", "labels"),
)

# The squared errors of the softmax of logits.
mse_forward, mse_backward = _after_softmax(squared_error_forward, squared_error_backward)
MSE = LayerRule(
    name="mse",
    layer=mse,
    forward=mse_forward,
    backward=mse_backward,
    plain=lambda x, labels: SQUARED_ERROR.plain(jax.nn.softmax(x), _rows(labels, x)),
    settings=SCORES_AND_LABELS,
    inputs=("x", "labels"),
)
half_mse_forward, half_mse_backward = _after_softmax(
    half_squared_error_forward, half_squared_error_backward
)
HALF_MSE = LayerRule(
    name="half_mse",
    layer=half_mse,
    forward=half_mse_forward,
    backward=half_mse_backward,
    plain=lambda x, labels: HALF_SQUARED_ERROR.plain(jax.nn.softmax(x), _rows(labels, x)),
    settings=SCORES_AND_LABELS,
    inputs=("x", "labels"),
)
