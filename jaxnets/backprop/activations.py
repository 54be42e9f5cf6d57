"""The slides' activation functions: sigmoid, ReLU and softmax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule, Setting

ELEMENTWISE = [
    Setting((4, 5)),
    Setting((1, 1)),
    Setting((2, 3, 3, 2)),
    Setting((4, 5), numbers="huge"),
    Setting((4, 5), numbers="integers"),
]
SCORES = [
    Setting((4, 5)),
    Setting((1, 3)),
    Setting((3, 1)),
    Setting((3, 4), numbers="equal"),
    Setting((5, 4), numbers="huge"),
]


def sigmoid_forward(
    x: Float[Array, "*sizes"],
) -> tuple[Float[Array, "*sizes"], Float[Array, "*sizes"]]:
    """Squeezes every number into (0, 1): y = 1 / (1 + e⁻ˣ).

    As printed, e⁻ˣ overflows for large negative x. With e = e^-|x|, which lies in (0, 1],

        y = 1 / (1 + e)   for x >= 0
        y = e / (1 + e)   for x < 0     the same fraction, expanded by eˣ

    Args:
      x: The input.

    Returns:
      y, and the cache for `sigmoid_backward`.

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    e = jnp.exp(-jnp.abs(x))
    y = jnp.where(x >= 0, 1, e) / (1 + e)
    return y, y


def sigmoid_backward(
    cache: Float[Array, "*sizes"], dy: Float[Array, "*sizes"]
) -> Float[Array, "*sizes"]:
    """Applies the chain rule to y = 1 / (1 + e⁻ˣ).

        ∂y/∂x = e⁻ˣ / (1 + e⁻ˣ)² = y (1 - y)     since 1 - y = e⁻ˣ / (1 + e⁻ˣ)
        dx = dy y (1 - y)

    Args:
      cache: From `sigmoid_forward`.
      dy: The gradient of y.

    Returns:
      dx.
    """
    y = cache
    return dy * y * (1 - y)


SIGMOID = LayerRule(
    name="sigmoid",
    layer=nn.sigmoid,
    forward=sigmoid_forward,
    backward=sigmoid_backward,
    plain=jax.nn.sigmoid,
    settings=ELEMENTWISE,
)


def relu_forward(
    x: Float[Array, "*sizes"],
) -> tuple[Float[Array, "*sizes"], Float[Array, "*sizes"]]:
    """Keeps what is positive: y = max(x, 0).

    Args:
      x: The input.

    Returns:
      y, and the cache for `relu_backward`.

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    # As a choice, not as jnp.maximum: XLA on the CPU would compute that anew inside the transposed
    # copy from which a convolution's kernel gradient reads y, at a sixth of the copy's speed. By
    # x <= 0, not by x > 0: a NaN passes through.
    y = jnp.where(x <= 0, 0, x)
    return y, y  # y > 0 just where x > 0, and the next layer keeps y anyway


def relu_backward(
    cache: Float[Array, "*sizes"], dy: Float[Array, "*sizes"]
) -> Float[Array, "*sizes"]:
    """Lets the gradient through where x was positive.

        ∂y/∂x = 1 for x > 0, else 0     at the kink x = 0 we take 0, as the slide's x <= 0 does

    Args:
      cache: From `relu_forward`.
      dy: The gradient of y.

    Returns:
      dx.
    """
    y = cache
    return jnp.where(y > 0, dy, 0)


RELU = LayerRule(
    name="relu",
    layer=nn.relu,
    forward=relu_forward,
    backward=relu_backward,
    plain=jax.nn.relu,
    settings=ELEMENTWISE,
    faster=lambda layer: lambda x: relu_forward(x)[0],
    sides=lambda x: x > 0,
    on_sides=lambda x, sides: jnp.where(sides, x, 0),
)


def softmax_forward(
    x: Float[Array, "*sizes K"],
) -> tuple[Float[Array, "*sizes K"], Float[Array, "*sizes K"]]:
    """Turns scores into probabilities: p_i = e^x_i / sum_j e^x_j over the last axis.

    Subtracting the largest score divides numerator and denominator by the same e^max. It leaves p
    as it is, and no exponential exceeds 1.

    Args:
      x: The scores.

    Returns:
      p, whose sum over the last axis is 1, and the cache for `softmax_backward`.

    Source: slide "全连接神经网络的基本原理", where it is misprinted as eⁱ / sum eʲ.
    """
    e = jnp.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, p


def softmax_backward(
    cache: Float[Array, "*sizes K"], dp: Float[Array, "*sizes K"]
) -> Float[Array, "*sizes K"]:
    """Multiplies by the Jacobian of softmax without ever building it.

        ∂p_i/∂x_j = p_i (1[i = j] - p_j)           x_j raises p_j and, through the sum, lowers all
        dx_j = sum_i dp_i p_i (1[i = j] - p_j)
             = p_j (dp_j - sum_i dp_i p_i)

    Args:
      cache: From `softmax_forward`.
      dp: The gradient of p.

    Returns:
      dx.

    Source: slide "全连接神经网络的自定义编码实现", the step h2_soft_grad.
    """
    p = cache
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


SOFTMAX = LayerRule(
    name="softmax",
    layer=nn.softmax,
    forward=softmax_forward,
    backward=softmax_backward,
    plain=jax.nn.softmax,
    settings=SCORES,
)
