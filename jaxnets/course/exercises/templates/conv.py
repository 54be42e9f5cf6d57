"""Exercise conv: the convolution, backward.

Level 3, about 60 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_conv.py

The forward pass:

    z_bijk = sum over a, a', c of X'_b,(sh i + a),(sw j + a'),c W_aa'ck + b_k

    X' is X with zeros around it. With groups, the channels are cut into that many blocks:
    output block g sees input block g only.
"""

import jax.numpy as jnp

from jaxnets.backprop.windows import window_pads, window_slices


def conv_backward(cache, dz, *, strides, padding, groups):
    """Returns the gradients of the loss with respect to params and x.

    Args:
      cache: (x, params): x [B, H, W, C]; params["kernel"] is W [kh, kw, C / groups, K],
        params["bias"] is b [K]. Some layers have no bias.
      dz: The gradient with respect to z, [B, h, w, K].
      strides: (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).
      groups: How many blocks of channels work separately.

    Returns:
      (d_params, dx): d_params has the keys and shapes of params, dx the shape of x.
    """
    x, params = cache
    kernel = params["kernel"]
    pads = window_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    # slices[a * kw + a'] is what element (a, a') of the window sees: [B, h, w, C].
    slices = window_slices(x, kernel.shape[:2], strides, pads, fill=0)
    d_kernel = ...  # [kh, kw, C / groups, K]
    d_bias = ...  # [K]
    dx = ...  # [B, H, W, C]
    d_params = {"kernel": d_kernel}
    if "bias" in params:
        d_params["bias"] = d_bias
    return d_params, dx
