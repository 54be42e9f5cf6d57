"""Exercise dense: the dense layer, backward.

Level 1, about 15 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_dense.py

The forward pass:

    z = X W + b        z_bk = sum over d of x_bd W_dk + b_k
"""

import jax.numpy as jnp


def dense_backward(cache, dz):
    """Returns the gradients of the loss with respect to params and x.

    Args:
      cache: (x, params): x [B, D]; params["kernel"] is W [D, K], params["bias"] is b [K].
        Some layers have no bias.
      dz: The gradient with respect to z, [B, K].

    Returns:
      (d_params, dx): d_params has the keys and shapes of params, dx the shape of x.
    """
    x, params = cache
    d_kernel = ...  # [D, K]
    d_bias = ...  # [K]
    dx = ...  # [B, D]
    d_params = {"kernel": d_kernel}
    if "bias" in params:
        d_params["bias"] = d_bias
    return d_params, dx
