"""Exercise local_response_norm: AlexNet's local response normalisation, backward.

Level 3, about 45 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_local_response_norm.py

The forward pass:

    y_i = x_i s_i^-beta,   s_i = k + alpha sum over j in N(i) of x_j^2

    N(i) are the channels from i - n // 2 to i + (n - 1) // 2, as far as they exist.
"""

import jax.numpy as jnp


def local_response_norm_backward(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """Returns the gradient of the loss with respect to x.

    Args:
      cache: (x, squares), each [..., C]: squares_i is the sum over j in N(i) of x_j^2.
      dy: The gradient with respect to y, [..., C].
      k: The offset.
      n: How many neighbouring channels take part.
      alpha: The weight of the squares.
      beta: The exponent.

    Returns:
      dx [..., C].
    """
    x, squares = cache
    s = k + alpha * squares
    dx = ...
    return dx
