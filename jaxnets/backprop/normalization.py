"""Normalisation across neighbouring channels and across the batch."""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.backprop.dense import Params

BatchNormCache = tuple[jax.Array, jax.Array, jax.Array, Params]


def local_response_norm_forward(
    x: jax.Array, *, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Dampens a channel where its neighbours are strong: y_i = x_i / s_i^β.

        s_i = k + α sum over j in N(i) of x_j²

    N(i) are the n channels around i, cut off at the first and the last. (PyTorch and Caffe divide
    their α by n.)

    Args:
      x: [..., C].
      k: the offset, above 0 so that silence divides by something.
      n: how many neighbouring channels take part, the channel itself included.
      alpha: α, the weight of the squares.
      beta: β, the exponent.

    Returns:
      y [..., C] and the cache for `local_response_norm_backward`.

    Source: Krizhevsky et al. 2012, section 3.3.
    """
    squares = _sum_neighbours(x**2, below=n // 2, above=(n - 1) // 2)
    y = x * _power(k + alpha * squares, -beta)
    return y, (x, squares)


def local_response_norm_backward(
    cache: tuple[jax.Array, jax.Array],
    dy: jax.Array,
    *,
    k: float = 2.0,
    n: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> jax.Array:
    """Applies the chain rule to y_i = x_i s_i^-β.

    x_j reaches y_j directly, and through s_i every y_i whose neighbourhood holds j:

        ∂s_i/∂x_j = 2 α x_j                            for j in N(i)
        ∂y_i/∂x_j = 1[i = j] s_i^-β - β x_i s_i^(-β - 1) 2 α x_j
        dx_j = dy_j s_j^-β - 2 α β x_j sum over i with j in N(i) of dy_i x_i s_i^(-β - 1)

    Args:
      cache: from `local_response_norm_forward`.
      dy: [..., C].
      k: as in `local_response_norm_forward`.
      n: as in `local_response_norm_forward`.
      alpha: as in `local_response_norm_forward`.
      beta: as in `local_response_norm_forward`.

    Returns:
      dx [..., C].
    """
    x, squares = cache
    s = k + alpha * squares
    direct = dy * _power(s, -beta)
    # N(i) reaches n // 2 channels down, so i is found up to n // 2 channels above j.
    shared = _sum_neighbours(direct * x / s, below=(n - 1) // 2, above=n // 2)
    return direct - 2 * alpha * beta * x * shared


def _sum_neighbours(v: jax.Array, below: int, above: int) -> jax.Array:
    """Sums each channel with those `below` and `above` it; [..., C] -> [..., C]."""
    channels = v.shape[-1]
    padded = jnp.pad(v, [(0, 0)] * (v.ndim - 1) + [(below, above)])
    shifted = [
        lax.slice_in_dim(padded, start, start + channels, axis=-1)
        for start in range(below + above + 1)
    ]
    return reduce(jnp.add, shifted)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """A positive base to a power; three times faster than `**` on the CPU, which calls libm."""
    return jnp.exp(exponent * jnp.log(base))


def batch_norm_forward(
    params: Params, x: jax.Array, *, epsilon: float = 1e-5
) -> tuple[jax.Array, BatchNormCache]:
    """Gives every channel mean 0 and variance 1 over the batch, then a scale γ and a bias β.

        μ = mean of x      σ² = mean of (x - μ)²      over all axes but the last, N numbers each
        x̂ = (x - μ) / sqrt(σ² + ε)
        y = γ x̂ + β

    bfloat16 has too few digits for a mean over a batch, so the work is done in float32 at least.

    Args:
      params: {"scale": γ [C], "bias": β [C]}.
      x: [..., C].
      epsilon: ε, keeps a constant channel from dividing by 0.

    Returns:
      y [..., C] and the cache for `batch_norm_backward`: x, μ, σ² and params.

    Source: Ioffe and Szegedy 2015, algorithm 1.
    """
    wide = _at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    mean = wide.mean(axis=axes)
    variance = ((wide - mean) ** 2).mean(axis=axes)
    normalized = (wide - mean) * lax.rsqrt(variance + epsilon)
    y = normalized * params["scale"] + params["bias"]
    return y.astype(x.dtype), (x, mean, variance, params)


def batch_norm_backward(
    cache: BatchNormCache, dy: jax.Array, *, epsilon: float
) -> tuple[Params, jax.Array]:
    """Applies the chain rule to y = γ x̂ + β, x̂ = (x - μ) / sqrt(σ² + ε).

    With r = 1 / sqrt(σ² + ε), sums over the N numbers of a channel and dx̂ = γ dy:

        dβ = sum dy                                          [C]
        dγ = sum dy x̂                                        [C]
        dσ² = sum dx̂ (x - μ) (-1/2) r³ = -1/2 r² sum dx̂ x̂    [C]
        dμ = -r sum dx̂                                       [C]   ∂σ²/∂μ = -2 mean(x - μ) = 0
        dx = r dx̂ + 2/N (x - μ) dσ² + 1/N dμ
           = r (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂))                [..., C]

    A change of x that only shifts or stretches the batch leaves y as it is: the two means take
    those directions out of the gradient.

    Args:
      cache: from `batch_norm_forward`.
      dy: [..., C].
      epsilon: as in `batch_norm_forward`.

    Returns:
      d_params with the keys and shapes of params, and dx [..., C].

    Source: Ioffe and Szegedy 2015, section 3.
    """
    x, mean, variance, params = cache
    axes = tuple(range(x.ndim - 1))
    wide_dy = _at_least_float32(dy)
    r = lax.rsqrt(variance + epsilon)
    normalized = (_at_least_float32(x) - mean) * r
    d_params = {
        "scale": (wide_dy * normalized).sum(axis=axes).astype(params["scale"].dtype),
        "bias": wide_dy.sum(axis=axes).astype(params["bias"].dtype),
    }
    d_normalized = wide_dy * params["scale"]
    shift = d_normalized.mean(axis=axes)
    stretch = (d_normalized * normalized).mean(axis=axes)
    dx = r * (d_normalized - shift - normalized * stretch)
    return d_params, dx.astype(x.dtype)


def _at_least_float32(v: jax.Array) -> jax.Array:
    """Widens bfloat16 to float32 and leaves float32 and float64 as they are."""
    return v.astype(jnp.promote_types(v.dtype, jnp.float32))
