"""Exercise flatten: writing an image in one row, backward.

Level 1, about 5 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_flatten.py

The forward pass:

    [B, H, W, C] becomes [B, H W C]; no number changes
"""

import jax.numpy as jnp


def flatten_backward(cache, d_out):
    """Returns the gradient of the loss with respect to x.

    Args:
      cache: An empty array [0, H, W, C] (or of other sizes), which remembers the shape of x.
      d_out: The gradient with respect to the rows, [B, H W C].

    Returns:
      dx, with the shape of x: [B, H, W, C].
    """
    sizes = cache.shape[1:]
    dx = ...
    return dx
