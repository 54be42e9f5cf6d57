"""Exercise cross_entropy: the cross-entropy of probabilities, backward.

Level 1, about 10 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_cross_entropy.py

The forward pass:

    loss_b = -sum over k of y_bk log(p_bk + 1e-12)
"""

import jax.numpy as jnp


def cross_entropy_backward(cache, d_losses):
    """Returns the gradient of the loss with respect to p.

    Args:
      cache: (p, y), each [B, K]; y is one-hot.
      d_losses: The gradient with respect to each example's loss, [B].

    Returns:
      dp [B, K].
    """
    p, y = cache
    dp = ...
    return dp
