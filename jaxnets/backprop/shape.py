"""From images to rows."""

import jax


def flatten_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Writes each example's numbers in one row, so that a dense layer can follow.

    Args:
      x: [B, ...], usually [B, h, w, C].

    Returns:
      [B, h w C] and the cache for `flatten_backward`: an empty array [0, ...] that remembers the
      shape.
    """
    return x.reshape(x.shape[0], -1), x[:0]


def flatten_backward(cache: jax.Array, d_out: jax.Array) -> jax.Array:
    """Puts the gradient back into the shape of x; no number has changed.

    Args:
      cache: from `flatten_forward`.
      d_out: [B, h w C].

    Returns:
      dx [B, ...].
    """
    return d_out.reshape(-1, *cache.shape[1:])
