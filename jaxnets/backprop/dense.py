"""The fully-connected layer, and the slides' way of giving it a bias."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule, Params, Setting, by_rule
from jaxnets.models.layers import DenseWithOnes

# From so many outputs on, XLA on the CPU is slow at dz Wᵀ: seven times as slow as at W dzᵀ for
# AlexNet's dense6 at batch 128, 1.5 times for the CNN's hidden layer.
WIDE = 128


def dense_forward(
    params: Params, x: Float[Array, "B D"]
) -> tuple[Float[Array, "B K"], tuple[Float[Array, "B D"], Params]]:
    """Multiplies by the weights and adds the bias: z = X W + b.

    Args:
      params: {"kernel": W [D, K], "bias": b [K]}; without "bias" the layer has none, like the
        slides' second layer.
      x: X.

    Returns:
      z, and the cache for `dense_backward`.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionLayer.forward.
    """
    z = x @ params["kernel"]
    if "bias" in params:
        z = z + params["bias"]
    return z, (x, params)


def dense_backward(
    cache: tuple[Float[Array, "B D"], Params],
    dz: Float[Array, "B K"],
    *,
    input_gradient: bool = True,
) -> tuple[Params, Float[Array, "B D"] | None]:
    """Applies the chain rule to z = X W + b.

    Each output is z_bk = sum_d X_bd W_dk + b_k, so

        dW_dk = sum_b X_bd dz_bk    dW = Xᵀ dz     [D, K]   W_dk reaches z_bk through X_bd
        db_k  = sum_b dz_bk         db = sum_b dz  [K]      every example shares the bias
        dX_bd = sum_k dz_bk W_dk    dX = dz Wᵀ     [B, D]   X_bd reaches every output k

    Args:
      cache: From `dense_forward`.
      dz: The gradient of z.
      input_gradient: False for the first layer, whose dX nobody needs; the slides compute it and
        throw it away, a third of their arithmetic.

    Returns:
      d_params with the keys and shapes of params, and dX (None without input_gradient).

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionLayer.backward.
    """
    x, params = cache
    d_params = {"kernel": x.T @ dz}
    if "bias" in params:
        d_params = {**d_params, "bias": dz.sum(axis=0)}
    return d_params, _input_gradient(params["kernel"], dz) if input_gradient else None


def _input_gradient(kernel: jax.Array, dz: jax.Array) -> jax.Array:
    """Computes dX = dz Wᵀ = (W dzᵀ)ᵀ, by the product that is the faster one."""
    if kernel.shape[1] < WIDE or jax.default_backend() != "cpu":
        return dz @ kernel.T
    # Without the barrier XLA would turn this into dz Wᵀ again.
    return lax.optimization_barrier(kernel @ dz.T).T


def with_product(layer: nn.Dense, rule: LayerRule) -> nn.Dense:
    """The same Flax layer, whose product X W autodiff differentiates by a dense layer's rule."""
    return layer.clone(
        dot_general=lambda x, kernel, *_, **__: by_rule(rule, {}, {"kernel": kernel}, x)
    )


def _plain_dense(params, x):
    layer = nn.Dense(params["kernel"].shape[1], use_bias="bias" in params)
    return layer.apply({"params": params}, x)


DENSE = LayerRule(
    name="dense",
    layer=nn.Dense,
    forward=dense_forward,
    backward=dense_backward,
    plain=_plain_dense,
    settings=[
        Setting((4, 5), {"kernel": (5, 3), "bias": (3,)}),
        Setting((6, 3), {"kernel": (3, 7), "bias": (7,)}),
        Setting((4, 4), {"kernel": (4, 4), "bias": (4,)}),
        Setting((1, 1), {"kernel": (1, 1), "bias": (1,)}),
        Setting((5, 6), {"kernel": (6, 2)}),
        Setting((2, 3), {"kernel": (3, WIDE), "bias": (WIDE,)}),
    ],
    inputs=("params", "x"),
    faster=lambda layer: with_product(layer, DENSE),
)


def dense_with_ones_forward(
    params: Params, x: Float[Array, "B D"]
) -> tuple[Float[Array, "B K"], tuple[Float[Array, "B D"], Params]]:
    """Multiplies [X 1], X with a column of ones, by the weights: their last row is the bias.

        [X 1] [W; b] = X W + b

    Args:
      params: {"kernel": [W; b] [D + 1, K]}.
      x: X.

    Returns:
      z, and the cache for `dense_with_ones_backward`.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionModel.forward.
    """
    kernel = params["kernel"]
    return dense_forward({"kernel": kernel[:-1], "bias": kernel[-1]}, x)


def dense_with_ones_backward(
    cache: tuple[Float[Array, "B D"], Params],
    dz: Float[Array, "B K"],
    *,
    input_gradient: bool = True,
) -> tuple[Params, Float[Array, "B D"] | None]:
    """Stacks the two gradients of `dense_backward`.

        [X 1]ᵀ dz = [Xᵀ dz; 1ᵀ dz] = [dW; db]   [D + 1, K]

    The ones are constants: nothing flows back to them, and dX is the dense layer's.

    Args:
      cache: From `dense_with_ones_forward`.
      dz: The gradient of z.
      input_gradient: False for the first layer.

    Returns:
      {"kernel": [dW; db]}, and dX (None without input_gradient).
    """
    d_params, dx = dense_backward(cache, dz, input_gradient=input_gradient)
    return {"kernel": jnp.vstack([d_params["kernel"], d_params["bias"]])}, dx


DENSE_WITH_ONES = LayerRule(
    name="dense_with_ones",
    layer=DenseWithOnes,
    forward=dense_with_ones_forward,
    backward=dense_with_ones_backward,
    plain=lambda params, x: jnp.pad(x, ((0, 0), (0, 1)), constant_values=1) @ params["kernel"],
    settings=[
        Setting((4, 5), {"kernel": (6, 3)}),
        Setting((3, 4), {"kernel": (5, 5)}),
        Setting((1, 1), {"kernel": (2, 1)}),
    ],
    inputs=("params", "x"),
    faster=lambda layer: with_product(layer, DENSE),
)
