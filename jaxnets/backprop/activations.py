"""The slides' activation functions: sigmoid, ReLU and softmax."""

import jax
import jax.numpy as jnp


def sigmoid_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squeezes every number into (0, 1): y = 1 / (1 + e⁻ˣ).

    As printed, e⁻ˣ overflows for large negative x. With e = e^-|x|, which lies in (0, 1],

        y = 1 / (1 + e)   for x >= 0
        y = e / (1 + e)   for x < 0     the same fraction, expanded by eˣ

    Args:
      x: any shape.

    Returns:
      y of the same shape and the cache for `sigmoid_backward`.

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    e = jnp.exp(-jnp.abs(x))
    y = jnp.where(x >= 0, 1, e) / (1 + e)
    return y, y


def sigmoid_backward(cache: jax.Array, dy: jax.Array) -> jax.Array:
    """Applies the chain rule to y = 1 / (1 + e⁻ˣ).

        ∂y/∂x = e⁻ˣ / (1 + e⁻ˣ)² = y (1 - y)     since 1 - y = e⁻ˣ / (1 + e⁻ˣ)
        dx = dy y (1 - y)

    Args:
      cache: from `sigmoid_forward`.
      dy: shape of x.

    Returns:
      dx, shape of x.
    """
    y = cache
    return dy * y * (1 - y)


def relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keeps what is positive: y = max(x, 0).

    Args:
      x: any shape.

    Returns:
      y of the same shape and the cache for `relu_backward`.

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    # As a choice, not as jnp.maximum: XLA on the CPU would compute that anew inside the transposed
    # copy from which a convolution's kernel gradient reads y, at a sixth of the copy's speed. By
    # x <= 0, not by x > 0: a NaN passes through.
    y = jnp.where(x <= 0, 0, x)
    return y, y  # y > 0 just where x > 0, and the next layer keeps y anyway


def relu_backward(cache: jax.Array, dy: jax.Array) -> jax.Array:
    """Lets the gradient through where x was positive.

        ∂y/∂x = 1 for x > 0, else 0     at the kink x = 0 we take 0, as the slide's x <= 0 does

    Args:
      cache: from `relu_forward`.
      dy: shape of x.

    Returns:
      dx, shape of x.
    """
    y = cache
    return jnp.where(y > 0, dy, 0)


def softmax_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Turns scores into probabilities: p_i = e^x_i / sum_j e^x_j over the last axis.

    Subtracting the largest score divides numerator and denominator by the same e^max. It leaves p
    as it is, and no exponential exceeds 1.

    Args:
      x: [..., K].

    Returns:
      p [..., K], which sums to 1 over the last axis, and the cache for `softmax_backward`.

    Source: slide "全连接神经网络的基本原理", where it is misprinted as eⁱ / sum eʲ.
    """
    e = jnp.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, p


def softmax_backward(cache: jax.Array, dp: jax.Array) -> jax.Array:
    """Multiplies by the Jacobian of softmax without ever building it.

        ∂p_i/∂x_j = p_i (1[i = j] - p_j)           x_j raises p_j and, through the sum, lowers all
        dx_j = sum_i dp_i p_i (1[i = j] - p_j)
             = p_j (dp_j - sum_i dp_i p_i)         [..., K]

    Args:
      cache: from `softmax_forward`.
      dp: [..., K].

    Returns:
      dx [..., K].

    Source: slide "全连接神经网络的自定义编码实现", the step h2_soft_grad.
    """
    p = cache
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))
