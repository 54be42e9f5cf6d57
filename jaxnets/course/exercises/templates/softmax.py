"""Exercise softmax: softmax, backward.

Level 2, about 20 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_softmax.py

The forward pass:

    p_i = exp(x_i) / sum over j of exp(x_j)        for each example
"""

import jax.numpy as jnp


def softmax_backward(cache, dp):
    """Returns the gradient of the loss with respect to x.

    Args:
      cache: p [B, K], the probabilities.
      dp: The gradient with respect to p, [B, K].

    Returns:
      dx [B, K].
    """
    p = cache
    dx = ...
    return dx
