"""The fully-connected layer and the slides' way of giving it a bias."""

import jax
import jax.numpy as jnp

Params = dict[str, jax.Array]


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
    return d_params, dz @ params["kernel"].T if input_gradient else None


def ones_column_forward(x: jax.Array) -> tuple[jax.Array, tuple[()]]:
    """Appends a column of ones to X, so that the last row of the next W acts as its bias.

        [X 1] [W; b] = X W + b

    Args:
      x: X [B, D].

    Returns:
      [X 1] of shape [B, D + 1] and an empty cache.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionModel.forward.
    """
    ones = jnp.ones((x.shape[0], 1), x.dtype)
    return jnp.concatenate([x, ones], axis=1), ()


def ones_column_backward(cache: tuple[()], d_out: jax.Array) -> jax.Array:
    """Drops the gradient of the ones, which are constants.

    Args:
      cache: from `ones_column_forward`.
      d_out: [B, D + 1].

    Returns:
      dX [B, D].
    """
    del cache
    return d_out[:, :-1]
