"""The slides' other activation functions: sigmoid and softmax."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.rule import ELEMENTWISE, SCORES, LayerRule

Numbers = Float[Array, "*sizes"]
Scores = Float[Array, "*sizes K"]


def sigmoid_forward(x: Numbers) -> tuple[Numbers, Numbers]:
    """Squeezes every number into (0, 1): y = 1 / (1 + e⁻ˣ). The cache is y.

    As printed, e⁻ˣ overflows for large negative x. With e = e^-|x|, which lies in (0, 1],

        y = 1 / (1 + e)   for x >= 0
        y = e / (1 + e)   for x < 0     the same fraction, expanded by eˣ

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    e = jnp.exp(-jnp.abs(x))
    y = jnp.where(x >= 0, 1, e) / (1 + e)
    return y, y


def sigmoid_backward(cache: Numbers, dy: Numbers) -> Numbers:
    """Applies the chain rule to y = 1 / (1 + e⁻ˣ).

    ∂y/∂x = e⁻ˣ / (1 + e⁻ˣ)² = y (1 - y)     since 1 - y = e⁻ˣ / (1 + e⁻ˣ)
    dx = dy y (1 - y)
    """
    y = cache
    return dy * y * (1 - y)


SIGMOID = LayerRule(sigmoid_forward, sigmoid_backward, jax.nn.sigmoid, ELEMENTWISE)


def softmax_forward(x: Scores) -> tuple[Scores, Scores]:
    """Turns scores into probabilities: p_i = e^x_i / sum_j e^x_j over the last axis.

    Subtracting the largest score divides numerator and denominator by the same e^max. It leaves p
    as it is, and no exponential exceeds 1. The cache is p.

    Source: slide "全连接神经网络的基本原理", where it is misprinted as eⁱ / sum eʲ.
    """
    e = jnp.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, p


def softmax_backward(cache: Scores, dp: Scores) -> Scores:
    """Multiplies by the Jacobian of softmax without ever building it.

        ∂p_i/∂x_j = p_i (1[i = j] - p_j)           x_j raises p_j and, through the sum, lowers all
        dx_j = sum_i dp_i p_i (1[i = j] - p_j)
             = p_j (dp_j - sum_i dp_i p_i)

    Source: slide "全连接神经网络的自定义编码实现", the step h2_soft_grad.
    """
    p = cache
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


SOFTMAX = LayerRule(softmax_forward, softmax_backward, jax.nn.softmax, SCORES)
