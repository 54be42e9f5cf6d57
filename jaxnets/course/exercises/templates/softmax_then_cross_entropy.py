"""Exercise softmax_then_cross_entropy: softmax and cross-entropy in two steps, backward.

Level 2, about 20 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_softmax_then_cross_entropy.py

The forward pass:

    p = softmax(x), loss_b = -sum over k of y_bk log(p_bk + 1e-12)
"""

import jax.numpy as jnp


def softmax_then_cross_entropy_backward(cache, d_losses):
    """Returns the gradient of the loss with respect to x, in two steps: first dp.

    Args:
      cache: (p, (p, y)), each [B, K]: what softmax and the cross-entropy have kept.
      d_losses: The gradient with respect to each example's loss, [B].

    Returns:
      dx [B, K].
    """
    p, (_, y) = cache
    dp = ...  # The cross-entropy's step, [B, K].
    dx = ...  # The softmax's step, [B, K].
    return dx
