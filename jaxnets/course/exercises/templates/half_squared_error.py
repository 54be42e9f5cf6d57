"""Exercise half_squared_error: the squared error of the slides, backward.

Level 1, about 10 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_half_squared_error.py

The forward pass:

    loss_b = 1/2 sum over k of (p_bk - y_bk)^2
"""

import jax.numpy as jnp


def half_squared_error_backward(cache, d_losses):
    """Returns the gradient of the loss with respect to p.

    Args:
      cache: p - y, [B, K].
      d_losses: The gradient with respect to each example's loss, [B].

    Returns:
      dp [B, K].
    """
    difference = cache
    dp = ...
    return dp
