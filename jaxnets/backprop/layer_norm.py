"""Layer normalization: the numbers of each example get mean 0 and variance 1."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import BATCHES, MANY, PLACES, Domain, LayerRule, Params, Setting
from jaxnets.base.errors import UserError
from jaxnets.models.batch_norm import widened

Numbers = Float[Array, "*sizes D"]
Rows = Float[Array, "*sizes 1"]
Cache = tuple[Numbers, Params, Rows, Rows]  # X, the parameters, μ and r.


def layer_norm_forward(
    params: Params, x: Numbers, *, epsilon: float = 1e-6
) -> tuple[Numbers, Cache]:
    """Normalizes each row of D numbers, then scales and shifts it. No row depends on another.

        μ   = sum_d x_d / D               each example, in images each place, has its own
        v   = sum_d (x_d - μ)² / D
        x̂_d = r (x_d - μ)                 r = 1 / sqrt(v + ε)
        y_d = γ_d x̂_d + β_d

    Args:
      params: {"scale": γ [D], "bias": β [D]}; without "scale" γ is 1, without "bias" β is 0.
      x: X; bfloat16 is normalized in float32.
      epsilon: ε.

    Source: Ba, Kiros and Hinton 2016, section 3.
    """
    wide = widened(x, jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(-1, keepdims=True)
    r = lax.rsqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + epsilon)
    y = (wide - mean) * r * params.get("scale", 1) + params.get("bias", 0)
    return y.astype(x.dtype), (x, params, mean, r)


def layer_norm_backward(
    cache: Cache, dy: Numbers, *, epsilon: float = 1e-6, input_gradient: bool = True
) -> tuple[Params, Numbers | None]:
    """Applies the chain rule to y_d = γ_d r (x_d - μ) + β_d, where μ and r depend on the whole row.

        dβ_d = sum over the rows of dy_d            every row shares the bias
        dγ_d = sum over the rows of dy_d x̂_d
        dx̂_d = γ_d dy_d

    x_d reaches the loss on three paths: through its x̂_d, through μ and through r. They are those
    of `batch_norm_backward` with the D numbers of a row in place of the n examples of a channel:

        dx_d = r (dx̂_d - sum_e dx̂_e / D - x̂_d sum_e dx̂_e x̂_e / D)

    γ stays within the sums: here it differs from number to number of a sum.

    Source: Ba, Kiros and Hinton 2016, section 3; the derivation is that of Ioffe and Szegedy 2015.
    """
    x, params, mean, r = cache
    wide, normal = widened(dy, mean.dtype), (widened(x, mean.dtype) - mean) * r
    rows = tuple(range(x.ndim - 1))
    sums = {"scale": (wide * normal).sum(rows), "bias": wide.sum(rows)}
    d_params = {name: sums[name].astype(array.dtype) for name, array in params.items()}
    if not input_gradient:
        return d_params, None
    d_normal = wide * params.get("scale", 1)
    along = (d_normal * normal).mean(-1, keepdims=True)
    dx = r * (d_normal - d_normal.mean(-1, keepdims=True) - normal * along)
    return d_params, dx.astype(dy.dtype)


def _plain_layer_norm(params: Params, x: Numbers, *, epsilon: float) -> Numbers:
    layer = nn.LayerNorm(
        epsilon, use_bias="bias" in params, use_scale="scale" in params, use_fast_variance=False
    )
    return layer.bind({"params": params})(x)


def _static(layer: nn.LayerNorm) -> dict[str, Any]:
    only = {"reduction_axes": -1, "feature_axes": -1, "axis_name": None}
    for name, value in only.items():
        if getattr(layer, name) != value:
            got = getattr(layer, name)
            raise UserError("LayerNorm {}: expected {}={}, got {}", layer.name, name, value, got)
    return {"epsilon": layer.epsilon}


BOTH = "bias", "scale"


def _setting(
    batch: int,
    places: tuple[int, ...],
    width: int,
    params: tuple[str, ...] = BOTH,
    epsilon: float = 1e-6,
) -> Setting:
    shapes = {name: (width,) for name in params}
    return Setting((batch, *places, width), shapes, static={"epsilon": epsilon})


def _drawn_setting(
    batch: int, places: tuple[int, ...], width: int, params: tuple[str, ...], epsilon: float
) -> Setting:
    return _setting(batch, places, width, BOTH if batch >= MANY else params, epsilon)


LAYER_NORM = LayerRule(
    name="layer_norm",
    layer=nn.LayerNorm,
    fields=("epsilon",),
    fills={"scale": 1.0, "bias": 0.0},
    forward=layer_norm_forward,
    backward=layer_norm_backward,
    plain=_plain_layer_norm,
    settings=[
        _setting(6, (), 6),
        _setting(2, (4,), 7, epsilon=0.1),  # Sequences, as in a transformer.
    ],
    inputs=("params", "x"),
    static=_static,
    domain=Domain(
        _drawn_setting,
        {
            "batch": BATCHES,
            "places": PLACES,
            # Two numbers are always ±1: then dx is only rounding.
            "width": (3, 4, 5, 8, 9, 17, 33, 65, 100),
            "params": (BOTH, ("scale",), ("bias",), ()),
            "epsilon": (1e-8, 1e-6, 1e-3, 0.1, 1.0),
        },
    ),
)
