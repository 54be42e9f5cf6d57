"""Labels: the class of an example [B], or a probability for every class [B, K].

Mix-up makes probabilities of classes. What follows from labels takes either.
"""

import jax
import jax.numpy as jnp


def probabilities_of(labels: jax.Array, num_classes: int, dtype) -> jax.Array:
    """The labels as y [B, K], each row with the sum 1: classes one-hot, probabilities as they are.

    >>> probabilities_of(jnp.array([1]), 3, jnp.float32).tolist()
    [[0.0, 1.0, 0.0]]
    """
    if labels.ndim == 2:
        return labels.astype(dtype)
    return jax.nn.one_hot(labels, num_classes, dtype=dtype)


def classes_of(labels: jax.Array) -> jax.Array:
    """The classes [B]; of probabilities the most probable, the first of equal ones."""
    return labels.argmax(axis=1) if labels.ndim == 2 else labels


def expected(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Σₖ yₖ vₖ of each row [B]: the value of its class, or the mean by its probabilities.

    Args:
      values: [B, K].
      labels: [B] integers in [0, K), or probabilities [B, K].

    >>> expected(jnp.array([[1.0, 5.0]]), jnp.array([[0.25, 0.75]])).tolist()
    [4.0]
    """
    if labels.ndim == 2:
        return (labels.astype(values.dtype) * values).sum(axis=1)
    return jnp.take_along_axis(values, labels[:, None], axis=1)[:, 0]
