"""Dropout, for training only."""

import jax
import jax.numpy as jnp


def dropout_forward(key: jax.Array, x: jax.Array, *, rate: float) -> tuple[jax.Array, jax.Array]:
    """Silences each number with probability `rate` and scales up the rest.

        y = m x / (1 - rate),   m = 1 with probability 1 - rate, else 0

    The scale keeps the mean of y at x, so evaluation needs no dropout at all. The mask is the one
    that flax.linen.Dropout draws from the same key.

    Args:
      key: a JAX random key.
      x: any shape.
      rate: the probability to be silenced, 0 to 1.

    Returns:
      y of the same shape and the cache for `dropout_backward`: the mask m.

    Raises:
      ValueError: for a rate that is no probability.

    Source: Krizhevsky et al. 2012, section 4.2 (which scales in evaluation instead).
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be a probability between 0 and 1, got {rate}")
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return _mask(kept, x, rate), kept


def dropout_backward(cache: jax.Array, d_out: jax.Array, *, rate: float) -> jax.Array:
    """Applies the chain rule to y = m x / (1 - rate).

        dx = m dy / (1 - rate)     the mask is a constant, so the same numbers are silenced

    Args:
      cache: from `dropout_forward`.
      d_out: shape of x.
      rate: as in `dropout_forward`.

    Returns:
      dx, shape of x.
    """
    return _mask(cache, d_out, rate)


def _mask(kept: jax.Array, v: jax.Array, rate: float) -> jax.Array:
    """Silences what is not kept; at rate 1 nothing is left that a scale could save."""
    return jnp.zeros_like(v) if rate == 1 else jnp.where(kept, v / (1 - rate), 0)
