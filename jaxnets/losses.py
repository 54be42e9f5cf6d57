"""Losses of one example, from logits; the training step reduces them over a batch.

p = softmax(logits), y the labels as probabilities, one-hot or soft. In regression the outputs are
the predictions themselves and y are the targets.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxnets.base.errors import UserError

Labels = Int[Array, " B"] | Float[Array, "B K"]  # classes from 0 to K - 1, or probabilities
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def probabilities_of(labels: Labels, num_classes: int, dtype: DTypeLike) -> Float[Array, "B K"]:
    """The labels as y, each row with the sum 1: classes one-hot, probabilities as they are.

    >>> probabilities_of(jnp.array([1]), 3, jnp.float32).tolist()
    [[0.0, 1.0, 0.0]]
    """
    if labels.ndim == 2:
        return labels.astype(dtype)
    return jax.nn.one_hot(labels, num_classes, dtype=dtype)


def classes_of(labels: Labels) -> Int[Array, " B"]:
    """The classes; for probabilities the most probable one, the first among equals."""
    return labels.argmax(axis=1) if labels.ndim == 2 else labels


def expected(values: Float[Array, "B K"], labels: Labels) -> Float[Array, " B"]:
    """Σₖ yₖ vₖ of each row: the value of its class, or the mean by its probabilities.

    >>> expected(jnp.array([[1.0, 5.0]]), jnp.array([[0.25, 0.75]])).tolist()
    [4.0]
    """
    if labels.ndim == 2:
        return (labels.astype(values.dtype) * values).sum(axis=1)
    return jnp.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def cross_entropy(logits: Float[Array, "B K"], labels: Labels) -> Float[Array, " B"]:
    """-Σₖ yₖ log pₖ; for a class, -log p[label].

    In nats, computed as logsumexp(z) - Σₖ yₖ zₖ with z = logits - max: exact for any logits.
    Source: the slides' class CrossEntropy, whose log(p + 1e-12) is not needed here.

    >>> round(float(cross_entropy(jnp.zeros((1, 10)), jnp.array([3]))[0]), 4)  # log 10
    2.3026
    """
    z = logits - jax.lax.stop_gradient(logits.max(axis=1, keepdims=True))
    return jnp.log(jnp.exp(z).sum(axis=1)) - expected(z, labels)


def mse(logits: Float[Array, "B K"], labels: Labels) -> Float[Array, " B"]:
    """Keras's "mse": 1/K Σₖ (pₖ - yₖ)², so that the batch's mean is over samples and outputs.

    It is between 0 and 2/K. Source: slides "Keras的序列模型" and keras.losses.MeanSquaredError.

    >>> round(float(mse(jnp.zeros((1, 10)), jnp.array([3]))[0]), 4)  # (0.9² + 9 * 0.1²) / 10
    0.09
    """
    return _squares(logits, labels).mean(axis=1)


def half_mse(logits: Float[Array, "B K"], labels: Labels) -> Float[Array, " B"]:
    """The slide's squared error: ½ Σₖ (pₖ - yₖ)² of each example.

    It is between 0 and 1, and is K/2 times Keras's mse: 5 times with ten classes. The slide divides
    by the number of examples, as the training step does here.
    Source: slide "全连接神经网络的基本原理", backward propagation.
    """
    return _squares(logits, labels).sum(axis=1) / 2


def _squares(logits: Float[Array, "B K"], labels: Labels) -> Float[Array, "B K"]:
    """(p - y)²."""
    y = probabilities_of(labels, logits.shape[1], logits.dtype)
    return jnp.square(jax.nn.softmax(logits) - y)


def squared_error(outputs: Float[Array, "B K"], targets: Float[Array, "B K"]) -> Float[Array, " B"]:
    """1/K Σₖ (ŷₖ - yₖ)², the loss of regression: the outputs are the predictions ŷ, no softmax.

    Its mean over a batch is scikit-learn's mean_squared_error. Source: the review page's MSE.

    >>> squared_error(jnp.array([[1.0, 5.0]]), jnp.array([[1.0, 2.0]])).tolist()  # (0² + 3²) / 2
    [4.5]
    """
    return jnp.square(outputs - targets).mean(axis=1)


class _Losses(dict[str, Loss]):
    """Losses by name; any other name, such as a user's own in a config.json, is an error."""

    def __missing__(self, name: str) -> Loss:
        raise UserError("loss: expected one of {}, got {}", ", ".join(self), name)


# The first three compare labels with the softmax of the logits; the last one is for regression.
LOSSES: dict[str, Loss] = _Losses(
    {f.__name__: f for f in (cross_entropy, mse, half_mse, squared_error)}
)


def find_loss(loss: str | Loss) -> Loss:
    """The loss with a name, or a user's own (logits [B, K], labels) -> losses [B], checked."""
    if isinstance(loss, str):
        return LOSSES[loss]

    def checked(logits: jax.Array, labels: jax.Array) -> jax.Array:
        losses = jnp.asarray(loss(logits, labels))
        if losses.shape != logits.shape[:1]:
            raise UserError(
                "loss: expected the loss of each example, of shape {}, got shape {}",
                logits.shape[:1],
                losses.shape,
            )
        return losses

    return checked
