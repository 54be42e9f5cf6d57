"""Exercise squared_error: the squared error, a mean over the outputs, backward.

Level 1, about 10 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_squared_error.py

The forward pass:

    loss_b = 1/K sum over k of (p_bk - y_bk)^2
"""

import jax.numpy as jnp


def squared_error_backward(cache, d_losses):
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
