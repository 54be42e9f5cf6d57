"""Exercise dropout: dropout, backward.

Level 1, about 10 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_dropout.py

The forward pass:

    y = m x / (1 - rate)        m is 0 where a number is silenced, else 1; at rate 1, y = 0
"""

import jax.numpy as jnp


def dropout_backward(cache, d_out, *, rate):
    """Returns the gradient of the loss with respect to x.

    Args:
      cache: m, an array of True and False with the shape of x.
      d_out: The gradient with respect to y, with the shape of x.
      rate: The probability with which a number is silenced, 0 to 1.

    Returns:
      dx, with the shape of x; 0 wherever m is 0, and nowhere a NaN.
    """
    m = cache
    dx = ...
    return dx
