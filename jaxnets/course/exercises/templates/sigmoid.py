"""Exercise sigmoid: the sigmoid, backward.

Level 1, about 10 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_sigmoid.py

The forward pass:

    y = 1 / (1 + exp(-x))        for each number
"""

import jax.numpy as jnp


def sigmoid_backward(cache, dy):
    """Returns the gradient of the loss with respect to x.

    Args:
      cache: y, which the forward pass has computed; x is not kept.
      dy: The gradient with respect to y, with its shape.

    Returns:
      dx, with the shape of y.
    """
    y = cache
    dx = ...
    return dx
