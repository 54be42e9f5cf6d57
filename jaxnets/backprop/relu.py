"""The ReLU."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.rule import ARRAYS, ELEMENTWISE, LayerRule

Numbers = Float[Array, "*sizes"]


def relu_forward(x: Numbers) -> tuple[Numbers, Numbers]:
    """Keeps positive numbers: y = max(x, 0). The cache is x.

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    return jnp.maximum(x, 0), x


def relu_backward(cache: Numbers, dy: Numbers) -> Numbers:
    """Lets the gradient through where x was positive.

    ∂y/∂x = 1 for x > 0, else 0     at the kink x = 0 we take 0, as the slide's x <= 0 does
    """
    x = cache
    return jnp.where(x > 0, dy, 0)


RELU = LayerRule(
    name="relu",
    layer=nn.relu,
    forward=relu_forward,
    backward=relu_backward,
    plain=jax.nn.relu,
    settings=ELEMENTWISE,
    has_kinks=True,
    domain=ARRAYS,
)
