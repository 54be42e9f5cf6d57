"""Losses, one number per example, and the one place that makes one number of a batch."""

import jax
import jax.numpy as jnp

from jaxnets.losses import expected, probabilities_of

# The slides add it to p so that log(0) never occurs.
LOG_OFFSET = 1e-12


def cross_entropy_forward(
    probabilities: jax.Array, one_hot: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Measures how surprised p is by the truth: loss_b = -sum_k y_bk log(p_bk + 1e-12).

    Args:
      probabilities: p [B, K], from `softmax_forward`.
      one_hot: y [B, K].

    Returns:
      losses [B] and the cache for `cross_entropy_backward`.

    Source: slide "全连接神经网络的自定义编码实现", CrossEntropy.
    """
    losses = -(one_hot * jnp.log(probabilities + LOG_OFFSET)).sum(axis=-1)
    return losses, (probabilities, one_hot)


def cross_entropy_backward(cache: tuple[jax.Array, jax.Array], d_losses: jax.Array) -> jax.Array:
    """Applies the chain rule to loss_b = -sum_k y_bk log(p_bk + 1e-12).

        ∂loss_b/∂p_bk = -y_bk / (p_bk + 1e-12)
        dp_bk = d_loss_b ∂loss_b/∂p_bk              [B, K]

    Where p of the true class has sunk to 0, softmax multiplies this by 0 and the example no longer
    learns: the price of the slides' two steps. `softmax_cross_entropy_forward` does not pay it.

    Args:
      cache: from `cross_entropy_forward`.
      d_losses: [B].

    Returns:
      dp [B, K].

    Source: slide "全连接神经网络的自定义编码实现", the step loss_grad.
    """
    p, y = cache
    return -y / (p + LOG_OFFSET) * d_losses[:, None]


def softmax_cross_entropy_forward(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Takes softmax and cross-entropy in one step: loss_b = log(sum_j e^z_bj) - sum_k y_bk z_bk.

    That is -sum_k y_bk log p_bk with p = softmax(z), written so that neither e^z nor log p is ever
    infinite; the largest logit is subtracted first. Where the label is a class, y is one-hot and
    the last sum is z_b,label.

    Args:
      logits: z [B, K].
      labels: integers [B] in 0 .. K - 1, or probabilities y [B, K], each row with the sum 1.

    Returns:
      losses [B] and the cache for `softmax_cross_entropy_backward`.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - jnp.log(jnp.exp(shifted).sum(axis=-1, keepdims=True))
    return -expected(log_p, labels), (jnp.exp(log_p), labels)


def softmax_cross_entropy_backward(
    cache: tuple[jax.Array, jax.Array], d_losses: jax.Array
) -> jax.Array:
    """Applies the chain rule to loss_b = log(sum_j e^z_bj) - sum_j y_bj z_bj.

        ∂loss_b/∂z_bk = e^z_bk / sum_j e^z_bj - y_bk = p_bk - y_bk
        dz_bk = (p_bk - y_bk) d_loss_b              [B, K]

    From -sum_j y_bj log p_bj, with ∂log p_bj/∂z_bk = 1[j = k] - p_bk, the same comes out as
    p_bk sum_j y_bj - y_bk: that the probabilities y_bj have the sum 1 is used here. A class is the
    case in which one of them is 1 and the others are 0.

    Args:
      cache: from `softmax_cross_entropy_forward`.
      d_losses: [B].

    Returns:
      dz [B, K].
    """
    p, labels = cache
    y = probabilities_of(labels, p.shape[-1], p.dtype)
    return (p - y) * d_losses[:, None]


def mean_squared_error_forward(
    probabilities: jax.Array, one_hot: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Averages the squares over the outputs, as Keras does: loss_b = 1/K sum_k (p_bk - y_bk)².

    Args:
      probabilities: p [B, K]; in regression, the predictions.
      one_hot: y [B, K]; in regression, the targets.

    Returns:
      losses [B] and the cache for `mean_squared_error_backward`.

    Source: slide "基于Keras库构建全连接神经网络", loss='mse'.
    """
    difference = probabilities - one_hot
    return (difference**2).mean(axis=-1), difference


def mean_squared_error_backward(cache: jax.Array, d_losses: jax.Array) -> jax.Array:
    """Applies the chain rule to loss_b = 1/K sum_k (p_bk - y_bk)².

        dp_bk = 2/K (p_bk - y_bk) d_loss_b          [B, K]

    Args:
      cache: from `mean_squared_error_forward`.
      d_losses: [B].

    Returns:
      dp [B, K].
    """
    difference = cache
    return 2 / difference.shape[-1] * difference * d_losses[:, None]


def half_squared_error_forward(
    probabilities: jax.Array, one_hot: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums the squares over the outputs, as the slide does: loss_b = 1/2 sum_k (p_bk - y_bk)².

    The slide's 1/K over the examples stands in `reduce_forward`. Over 10 outputs this loss is 5
    times the one of Keras.

    Args:
      probabilities: p [B, K].
      one_hot: y [B, K].

    Returns:
      losses [B] and the cache for `half_squared_error_backward`.

    Source: slide "全连接神经网络的基本原理", backpropagation.
    """
    difference = probabilities - one_hot
    return (difference**2).sum(axis=-1) / 2, difference


def half_squared_error_backward(cache: jax.Array, d_losses: jax.Array) -> jax.Array:
    """Applies the chain rule to loss_b = 1/2 sum_k (p_bk - y_bk)².

        dp_bk = (p_bk - y_bk) d_loss_b              [B, K]   the 2 of the square meets the 1/2

    Args:
      cache: from `half_squared_error_forward`.
      d_losses: [B].

    Returns:
      dp [B, K].
    """
    difference = cache
    return difference * d_losses[:, None]


def reduce_forward(
    losses: jax.Array, mask: jax.Array, *, reduction: str
) -> tuple[jax.Array, jax.Array]:
    """Makes one number of the examples' losses; the only place where a 1/B stands.

        sum:  loss = sum_b mask_b loss_b
        mean: loss = sum_b mask_b loss_b / sum_b mask_b

    The slides' forward pass is the mean and their backward pass the sum.

    Args:
      losses: [B].
      mask: [B], 1 for an example, 0 for a row that only fills up the batch.
      reduction: "sum" or "mean".

    Returns:
      loss, a scalar, and the cache for `reduce_backward`.

    Raises:
      ValueError: for any other reduction.

    Source: slide "全连接神经网络的自定义编码实现", CrossEntropy.
    """
    counts = mask.astype(bool)
    total = jnp.where(counts, losses, 0).sum()
    return total / _divisor(counts, reduction), counts


def reduce_backward(cache: jax.Array, d_loss: jax.Array, *, reduction: str) -> jax.Array:
    """Hands the loss' gradient to every example that counts.

        sum:  d_loss_b = mask_b d_loss
        mean: d_loss_b = mask_b d_loss / sum_b mask_b

    Args:
      cache: from `reduce_forward`.
      d_loss: a scalar; 1 at the start of the backward pass.
      reduction: as in `reduce_forward`.

    Returns:
      d_losses [B].

    Raises:
      ValueError: for any other reduction.
    """
    counts = cache
    return jnp.where(counts, d_loss / _divisor(counts, reduction), 0)


def _divisor(counts: jax.Array, reduction: str) -> jax.Array | int:
    """What the sum over the batch is divided by: the number of examples for a mean, else 1."""
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
    return counts.sum() if reduction == "mean" else 1
