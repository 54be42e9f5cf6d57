"""Losses of probabilities, one number per example: the slides' cross-entropy, and squared errors.

After a softmax they are losses of logits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.backprop.activations import softmax_backward, softmax_forward
from jaxnets.backprop.losses import (
    LOGITS,
    ROWS,
    SCORES_AND_LABELS,
    Losses,
    Rows,
    rows_of,
    rows_with_labels,
)
from jaxnets.backprop.rule import SCORES, Domain, LayerRule, Setting
from jaxnets.losses import Labels, half_mse, mse, probabilities_of, squared_error

# The slides add it to p so that log(0) never occurs.
LOG_OFFSET = 1e-12

PROBABILITIES = [Setting(shape, labels="one_hot", numbers="shares") for shape in [(4, 10), (9, 9)]]
SHARES = Domain(rows_with_labels, {**ROWS, "numbers": ("shares",)})
INPUTS = ("x", "labels")


def cross_entropy_forward(p: Rows, one_hot: Rows) -> tuple[Losses, tuple[Rows, Rows]]:
    """Measures how far p is from the truth y: loss_b = -sum_k y_bk log(p_bk + 1e-12).

    Source: slide "全连接神经网络的自定义编码实现", CrossEntropy.
    """
    losses = -(one_hot * jnp.log(p + LOG_OFFSET)).sum(axis=-1)
    return losses, (p, one_hot)


def cross_entropy_backward(cache: tuple[Rows, Rows], d_losses: Losses) -> Rows:
    """Applies the chain rule to loss_b = -sum_k y_bk log(p_bk + 1e-12).

        ∂loss_b/∂p_bk = -y_bk / (p_bk + 1e-12)
        dp_bk = d_loss_b ∂loss_b/∂p_bk

    If p of the true class has sunk to 0, softmax multiplies this by 0 and the network no longer
    learns from the example. `softmax_cross_entropy_forward` does not have this problem.

    Source: slide "全连接神经网络的自定义编码实现", the step loss_grad.
    """
    p, y = cache
    return -y / (p + LOG_OFFSET) * d_losses[:, None]


CROSS_ENTROPY = LayerRule(
    name="cross_entropy",
    forward=cross_entropy_forward,
    backward=cross_entropy_backward,
    plain=lambda p, y: -jnp.sum(y * jnp.log(p + 1e-12), axis=1),
    settings=[
        *PROBABILITIES,
        Setting((4, 5), labels="one_hot", numbers="shares", scale=LOG_OFFSET),
    ],
    inputs=INPUTS,
    domain=SHARES,
)


def squared_error_forward(outputs: Rows, targets: Rows) -> tuple[Losses, Rows]:
    """Averages the squares over the outputs, as Keras does: loss_b = 1/K sum_k (p_bk - y_bk)².

    Args:
      outputs: p; in regression, the predictions.
      targets: y; one-hot rows, or in regression real numbers.

    Source: slide "基于Keras库构建全连接神经网络", loss='mse'.
    """
    difference = outputs - targets
    return (difference**2).mean(axis=-1), difference


def squared_error_backward(cache: Rows, d_losses: Losses) -> Rows:
    """Applies the chain rule to loss_b = 1/K sum_k (p_bk - y_bk)².

    dp_bk = 2/K (p_bk - y_bk) d_loss_b
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
    inputs=INPUTS,
    domain=SHARES,
)


def half_squared_error_forward(outputs: Rows, targets: Rows) -> tuple[Losses, Rows]:
    """Sums the squares over the outputs, as the slide does: loss_b = 1/2 sum_k (p_bk - y_bk)².

    The slide's division by the number of examples is in `training/step.py`. Over 10 outputs
    this loss is 5 times Keras's.

    Source: slide "全连接神经网络的基本原理", backpropagation.
    """
    difference = outputs - targets
    return (difference**2).sum(axis=-1) / 2, difference


def half_squared_error_backward(cache: Rows, d_losses: Losses) -> Rows:
    """Applies the chain rule to loss_b = 1/2 sum_k (p_bk - y_bk)².

    dp_bk = (p_bk - y_bk) d_loss_b              the 2 of the square cancels the 1/2
    """
    difference = cache
    return difference * d_losses[:, None]


HALF_SQUARED_ERROR = LayerRule(
    name="half_squared_error",
    forward=half_squared_error_forward,
    backward=half_squared_error_backward,
    plain=lambda p, y: 0.5 * jnp.square(p - y).sum(axis=1),
    settings=PROBABILITIES,
    inputs=INPUTS,
    domain=SHARES,
)


def _after_softmax(
    rule: LayerRule,
    settings: Sequence[Setting],
    name: str,
    loss: Callable[..., jax.Array] | None = None,
) -> LayerRule:
    """Turns a loss of probabilities and one-hot rows into one of logits and labels."""

    def forward(logits: Rows, labels: Labels) -> tuple[Losses, tuple[Rows, Any]]:
        probabilities, softmax_cache = softmax_forward(logits)
        y = probabilities_of(labels, logits.shape[-1], logits.dtype)
        losses, loss_cache = rule.forward(probabilities, y)
        return losses, (softmax_cache, loss_cache)

    def backward(cache: tuple[Rows, Any], d_losses: Losses) -> Rows:
        softmax_cache, loss_cache = cache
        return softmax_backward(softmax_cache, rule.backward(loss_cache, d_losses))

    def plain(x: Rows, labels: Labels) -> Losses:
        return rule.plain(jax.nn.softmax(x), rows_of(labels, x))

    return LayerRule(
        name=name,
        layer=loss or (),
        forward=forward,
        backward=backward,
        plain=plain,
        settings=settings,
        inputs=INPUTS,
        domain=LOGITS,
    )


# The slides' two steps. Scores so large that p underflows would stop them.
SOFTMAX_THEN_CROSS_ENTROPY = _after_softmax(
    CROSS_ENTROPY,
    [setting._replace(labels="one_hot") for setting in SCORES if setting.numbers != "huge"],
    "softmax_then_cross_entropy",
)
MSE = _after_softmax(SQUARED_ERROR, SCORES_AND_LABELS, "mse", mse)
HALF_MSE = _after_softmax(HALF_SQUARED_ERROR, SCORES_AND_LABELS, "half_mse", half_mse)
