"""The cross-entropy of logits, one number per example.

`training/step.py` divides by the number of examples. `probability_losses.py` has the other losses.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.rule import BATCHES, SCORES, WIDTHS, Domain, LayerRule, Setting
from jaxnets.losses import Labels, cross_entropy, expected, probabilities_of

Rows = Float[Array, "B K"]
Losses = Float[Array, " B"]


def softmax_cross_entropy_forward(
    logits: Rows, labels: Labels
) -> tuple[Losses, tuple[Rows, Labels]]:
    """Takes softmax and cross-entropy in one step: loss_b = log(sum_j e^z_bj) - sum_k y_bk z_bk.

    This equals -sum_k y_bk log p_bk with p = softmax(z), written so that neither e^z nor log p is
    ever infinite; the largest logit is subtracted first. If the label is a class, y is one-hot and
    the last sum is z_b,label.

    Args:
      logits: z.
      labels: Classes in 0 .. K - 1, or probabilities y; each row adds up to 1.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - jnp.log(jnp.exp(shifted).sum(axis=-1, keepdims=True))
    return -expected(log_p, labels), (jnp.exp(log_p), labels)


def softmax_cross_entropy_backward(cache: tuple[Rows, Labels], d_losses: Losses) -> Rows:
    """Applies the chain rule to loss_b = log(sum_j e^z_bj) - sum_j y_bj z_bj.

        ∂loss_b/∂z_bk = e^z_bk / sum_j e^z_bj - y_bk = p_bk - y_bk
        dz_bk = (p_bk - y_bk) d_loss_b

    From -sum_j y_bj log p_bj, with ∂log p_bj/∂z_bk = 1[j = k] - p_bk, comes p_bk sum_j y_bj - y_bk:
    the same, because the probabilities y_bj add up to 1. For a class, one of them is 1 and the
    others are 0.
    """
    p, labels = cache
    y = probabilities_of(labels, p.shape[-1], p.dtype)
    return (p - y) * d_losses[:, None]


def rows_of(labels: Labels, like: Rows) -> Rows:
    """The labels as rows of probabilities, for the plain formulations; without `losses.py`."""
    return labels if labels.ndim == 2 else jnp.eye(like.shape[1], dtype=like.dtype)[labels]


SCORES_AND_LABELS = [
    *(setting._replace(labels="classes") for setting in SCORES),
    Setting((4, 5), labels="probabilities"),
]


def rows_with_labels(
    batch: int, width: int, labels: str = "one_hot", numbers: str = "normal"
) -> Setting:
    """The setting of a loss of so many examples and classes."""
    return Setting((batch, width), labels=labels, numbers=numbers)


ROWS = {"batch": BATCHES, "width": (*WIDTHS, 1000)}  # As many classes as ImageNet has.
LOGITS = Domain(
    rows_with_labels, {**ROWS, "labels": ("classes", "classes", "one_hot", "probabilities")}
)
SOFTMAX_CROSS_ENTROPY = LayerRule(
    name="softmax_cross_entropy",
    layer=cross_entropy,
    forward=softmax_cross_entropy_forward,
    backward=softmax_cross_entropy_backward,
    plain=lambda x, labels: -jnp.sum(rows_of(labels, x) * jax.nn.log_softmax(x), axis=1),
    settings=SCORES_AND_LABELS,
    inputs=("x", "labels"),
    domain=LOGITS,
)
