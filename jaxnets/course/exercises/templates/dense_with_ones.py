"""Exercise dense_with_ones: the dense layer with a column of ones, backward.

Level 1, about 10 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_dense_with_ones.py

The forward pass:

    Z = [X 1] W        the last row of W, behind the ones, is the bias
"""

import jax.numpy as jnp


def dense_with_ones_backward(cache, dz):
    """Returns the gradients of the loss with respect to params and x.

    Args:
      cache: (x, params): x [B, D], without the ones. The forward pass has cut W in two:
        params["kernel"] [D, K], and params["bias"] [K], its last row.
      dz: The gradient with respect to Z, [B, K].

    Returns:
      ({"kernel": dW [D + 1, K]}, dx [B, D]).
    """
    x, params = cache
    kernel = params["kernel"]  # W without its last row, [D, K].
    bias = params["bias"]  # The last row of W, [K].
    d_kernel = ...  # [D + 1, K]
    dx = ...  # [B, D]
    return {"kernel": d_kernel}, dx
