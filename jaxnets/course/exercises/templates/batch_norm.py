"""Exercise batch_norm: batch normalisation, backward.

Level 3, about 45 minutes. Replace every `...` below, then ask the judge:

    jaxnets gradcheck --mine=my_batch_norm.py

The forward pass:

    count = sum over i of weight_i
    mean = sum over i of weight_i x_i / count
    var = sum over i of weight_i (x_i - mean)^2 / count
    y_i = scale r (x_i - mean) + bias,   r = 1 / sqrt(var + epsilon)

    i is an example, in images an example at a place. weight_i is 0 for padding, which has a y all
    the same, else 1. Each channel has a mean, a var, a scale and a bias of its own.
"""

import jax.numpy as jnp


def batch_norm_backward(cache, dy, *, epsilon, axis_name):
    """Returns the gradients of the loss with respect to params and x.

    Args:
      cache: (x, weight, scale, mean, r, count, statistics): x [B, C] or [B, H, W, C], weight with
        as many axes, [B, 1] or [B, 1, 1, 1]; scale, mean and r [C]; count is a number. statistics
        belongs to the running mean and var, on which the loss does not depend: return it as it is.
      dy: The gradient with respect to y, with the shape of x.
      epsilon: It is in r already.
      axis_name: None; every example is on this device.

    Returns:
      (d_params, dx): d_params holds "scale" [C], "bias" [C] and statistics; dx has the shape of x.
    """
    x, weight, scale, mean, r, count, statistics = cache
    normal = (x - mean) * r  # y_i = scale normal_i + bias
    d_scale = ...  # [C]
    d_bias = ...  # [C]
    dx = ...
    return {"scale": d_scale, "bias": d_bias, **statistics}, dx
