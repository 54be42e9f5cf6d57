"""Exercise adaptive_average_pool: the adaptive average pool, backward.

Level 2, about 30 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_adaptive_average_pool.py

The forward pass:

    y_bijc = sum over u, v of R_iu S_jv X_buvc

    R [h, H] and S [w, W] hold the weights of the averages over rows and columns.
"""

import jax.numpy as jnp

from jaxnets.models.alexnet_layers import averaging_matrices


def adaptive_average_pool_backward(cache, d_out, *, output_size):
    """Returns the gradient of the loss with respect to x.

    Args:
      cache: An empty array [0, H, W, C], which remembers the shape of x.
      d_out: The gradient with respect to y, [B, h, w, C].
      output_size: (h, w).

    Returns:
      dx [B, H, W, C].
    """
    rows, columns = averaging_matrices(output_size, cache.shape[1:3], cache.dtype)  # R, S
    dx = ...
    return dx
