"""The fully-connected layer, and the slides' way of giving it a bias."""

import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, jax.Array]

# From so many outputs on, XLA on the CPU is slow at dz Wᵀ: seven times as slow as at W dzᵀ for
# AlexNet's dense6 at batch 128, 1.5 times for the CNN's hidden layer.
WIDE = 128


def dense_forward(params: Params, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Params]]:
    """Multiplies by the weights and adds the bias: z = X W + b.

    Args:
      params: {"kernel": W [D, K], "bias": b [K]}; without "bias" the layer has none, like the
        slides' second layer.
      x: X [B, D].

    Returns:
      z [B, K] and the cache for `dense_backward`.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionLayer.forward.
    """
    z = x @ params["kernel"]
    if "bias" in params:
        z = z + params["bias"]
    return z, (x, params)


def dense_backward(
    cache: tuple[jax.Array, Params], dz: jax.Array, *, input_gradient: bool = True
) -> tuple[Params, jax.Array | None]:
    """Applies the chain rule to z = X W + b.

    Each output is z_bk = sum_d X_bd W_dk + b_k, so

        dW_dk = sum_b X_bd dz_bk    dW = Xᵀ dz     [D, K]   W_dk reaches z_bk through X_bd
        db_k  = sum_b dz_bk         db = sum_b dz  [K]      every example shares the bias
        dX_bd = sum_k dz_bk W_dk    dX = dz Wᵀ     [B, D]   X_bd reaches every output k

    Args:
      cache: from `dense_forward`.
      dz: [B, K].
      input_gradient: False for the first layer, whose dX nobody needs; the slides compute it and
        throw it away, a third of their arithmetic.

    Returns:
      d_params with the keys and shapes of params, and dX [B, D] (None without input_gradient).

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


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """X W, differentiated by the rule derived here: x [B, D], kernel [D, K] -> [B, K]."""
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array):
    return dense_forward({"kernel": kernel}, x)


def _product_backward(cache, dz: jax.Array):
    d_params, dx = dense_backward(cache, dz)
    return dx, d_params["kernel"]


product.defvjp(_product_forward, _product_backward)


def dense_with_ones_forward(
    params: Params, x: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Params]]:
    """Multiplies [X 1], X with a column of ones, by the weights: their last row is the bias.

        [X 1] [W; b] = X W + b

    Args:
      params: {"kernel": [W; b] [D + 1, K]}.
      x: X [B, D].

    Returns:
      z [B, K] and the cache for `dense_with_ones_backward`.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionModel.forward.
    """
    kernel = params["kernel"]
    return dense_forward({"kernel": kernel[:-1], "bias": kernel[-1]}, x)


def dense_with_ones_backward(
    cache: tuple[jax.Array, Params], dz: jax.Array, *, input_gradient: bool = True
) -> tuple[Params, jax.Array | None]:
    """Stacks the two gradients of `dense_backward`.

        [X 1]ᵀ dz = [Xᵀ dz; 1ᵀ dz] = [dW; db]   [D + 1, K]

    The ones are constants: nothing flows back to them, and dX is the dense layer's.

    Args:
      cache: from `dense_with_ones_forward`.
      dz: [B, K].
      input_gradient: False for the first layer.

    Returns:
      {"kernel": [dW; db] [D + 1, K]}, and dX [B, D] (None without input_gradient).
    """
    d_params, dx = dense_backward(cache, dz, input_gradient=input_gradient)
    return {"kernel": jnp.vstack([d_params["kernel"], d_params["bias"]])}, dx
