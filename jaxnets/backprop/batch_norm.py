"""Batch normalization: each channel gets mean 0 and variance 1 over the batch."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import BATCHES, PLACES, WIDTHS, Domain, LayerRule, Params, Setting
from jaxnets.base.trees import Tree
from jaxnets.models.batch_norm import STATISTICS, BatchNorm, follow, normalized, widened

Numbers = Float[Array, "B *sizes C"]
Mask = Float[Array, " B"]
Channels = Float[Array, " C"]
# X, w, γ, μ, r, n, and the gradients of the running statistics.
Cache = tuple[Numbers, jax.Array, Channels, Channels, Channels, jax.Array, Params]


def batch_norm_forward(
    params: Params, x: Numbers, mask: Mask, *, epsilon: float = 1e-5, axis_name: str | None = None
) -> tuple[Numbers, Cache]:
    """Normalizes each channel over the batch and every place, then scales and shifts it.

        n   = sum_i w_i                    i: an example at a place; w_i = 0 for padding, else 1
        μ   = sum_i w_i x_i / n
        v   = sum_i w_i (x_i - μ)² / n
        x̂_i = r (x_i - μ)                  r = 1 / sqrt(v + ε)
        y_i = γ x̂_i + β

    On several devices the sums are over all of them, so the number of devices changes nothing.

    Args:
      params: {"scale": γ, "bias": β, "mean", "var"}; the running statistics, which follow μ and v,
        are not used here.
      x: X; bfloat16 is normalized in float32.
      mask: 1 for an example and 0 for padding.
      epsilon: ε.
      axis_name: The mapped axis of several devices.

    Source: Ioffe and Szegedy 2015, algorithm 1.
    """
    wide = widened(x, params["scale"].dtype)
    weight = mask.astype(wide.dtype).reshape(-1, *[1] * (x.ndim - 1))
    places = x.size // (len(x) * x.shape[-1])
    count, total = _over_devices((places * weight.sum(), _sums(weight * wide)), axis_name)
    count = jnp.maximum(count, 1)
    mean = total / count
    var = _over_devices(_sums(weight * (wide - mean) ** 2), axis_name) / count
    r = lax.rsqrt(var + epsilon)
    y = normalized(params, x, mean, var, epsilon)
    # d of (running - batch)² / 2, once for each example: models/batch_norm.py says why.
    statistics = {
        name: weight.sum() * (params[name] - batch)
        for name, batch in zip(STATISTICS, (mean, var), strict=True)
    }
    return y, (x, weight, params["scale"], mean, r, count, statistics)


def batch_norm_backward(
    cache: Cache,
    dy: Numbers,
    *,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
    input_gradient: bool = True,
) -> tuple[Params, Numbers | None]:
    """Applies the chain rule to y_i = γ r (x_i - μ) + β, where μ and r depend on every x.

        dβ  = sum_i dy_i                      every example and place shares the bias
        dγ  = sum_i dy_i x̂_i
        dx̂_i = γ dy_i

    x_i reaches the loss on three paths: through its x̂_i, through μ and through r. With ∂μ/∂x_i =
    w_i / n, ∂v/∂x_i = 2 w_i (x_i - μ) / n (the path from v back to μ is sum_i w_i (x_i - μ) = 0)
    and ∂r/∂v = -r³ / 2:

        dμ  = -r sum_i dx̂_i                                    = -γ r dβ
        dv  = -r³/2 sum_i dx̂_i (x_i - μ)                       = -γ r²/2 dγ
        dx_i = r dx̂_i + (w_i / n) dμ + (2 w_i (x_i - μ) / n) dv
             = γ r (dy_i - w_i (dβ + x̂_i dγ) / n)

    So dx has no component along 1 and along x̂: shifting or stretching a channel changes no y.
    On several devices the dβ and dγ in dx are sums over all of them, because x_i changes every y.

    Source: Ioffe and Szegedy 2015, section 3, the equations before algorithm 2.
    """
    x, weight, scale, mean, r, count, statistics = cache
    wide, normal = widened(dy, scale.dtype), (widened(x, scale.dtype) - mean) * r
    d_params = {"scale": _sums(wide * normal), "bias": _sums(wide)}
    if not input_gradient:
        return {**d_params, **statistics}, None
    d_scale, d_bias = _over_devices((d_params["scale"], d_params["bias"]), axis_name)
    shared = weight * (d_bias / count + normal * (d_scale / count))
    dx = (scale * r) * (wide - shared)
    return {**d_params, **statistics}, dx.astype(dy.dtype)


def _sums(values: jax.Array) -> jax.Array:
    """Sums over everything except the channels."""
    return values.sum(tuple(range(values.ndim - 1)))


def _over_devices(sums: Tree, axis_name: str | None) -> Tree:
    return sums if axis_name is None else lax.psum(sums, axis_name)


def _plain_batch_norm(
    params: Params, x: Numbers, mask: Mask, *, epsilon: float, axis_name: str | None
) -> Numbers:
    """Flax's layer; its statistics move by a tenth of the gradient that autodiff must see."""
    layer = nn.BatchNorm(momentum=0.9, epsilon=epsilon, use_fast_variance=False)
    stats = {name: params[name] for name in STATISTICS}
    variables = {"params": {name: params[name] for name in ("scale", "bias")}, "batch_stats": stats}
    rows = mask.reshape(-1, *[1] * (x.ndim - 1)) > 0
    y, after = layer.apply(variables, x, False, mask=rows, mutable=["batch_stats"])
    batch = jax.tree.map(lambda old, new: old - 10 * (old - new), stats, after["batch_stats"])
    return follow(y.astype(x.dtype), stats, batch, mask.sum())


def _setting(*x: int, padding: int = 0, epsilon: float = 1e-5) -> Setting:
    params = {name: x[-1:] for name in ("bias", "mean", "scale", "var")}
    static = {"epsilon": epsilon, "axis_name": None}
    return Setting(x, params, static=static, padding=padding)


def _drawn_setting(
    batch: int, places: tuple[int, ...], channels: int, kept: int, epsilon: float
) -> Setting:
    """A batch with at least three numbers of a channel, of which the mask may keep a single one.

    A single number has no variance, and two are always ±1: without padding dx is only rounding.
    """
    batch = max(batch, -(-3 // math.prod(places)))
    padding = max(batch - kept, 0)
    return _setting(batch, *places, channels, padding=padding, epsilon=epsilon)


BATCH_NORM = LayerRule(
    name="batch_norm",
    layer=BatchNorm,
    fields=("epsilon",),
    forward=batch_norm_forward,
    backward=batch_norm_backward,
    plain=_plain_batch_norm,
    settings=[
        _setting(6, 6),
        _setting(5, 3, 3, 4, padding=2),
        _setting(4, 3, padding=3),  # A single example.
    ],
    inputs=("params", "x", "mask"),
    static=lambda layer: {"epsilon": layer.epsilon, "axis_name": layer.axis_name},
    domain=Domain(
        _drawn_setting,
        {
            "batch": BATCHES,
            "places": (*PLACES[:1] * 2, *PLACES),
            "channels": WIDTHS,
            "kept": (1, 2, 7, 50, 999, 999, 999),
            "epsilon": (1e-8, 1e-5, 1e-3, 0.1),
        },
    ),
)
