"""The pairs that exercises ask for: those of the layers, and of the smallest residual block."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxnets.backprop.activations import sigmoid_backward, sigmoid_forward
from jaxnets.backprop.dense import dense_backward, dense_forward
from jaxnets.backprop.rule import BATCHES, WIDTHS, Domain, LayerRule, Params, Setting
from jaxnets.backprop.rules import RULES
from jaxnets.models.residual import Residual

Rows = Float[Array, "B D"]


def residual_dense_forward(params: Params, x: Rows) -> tuple[Rows, tuple[Rows, Params, Rows]]:
    """The smallest block, written out: y = x + sigmoid(x W + b), W [D, D].

    No network uses it: it is short enough to derive with a pencil.
    """
    z, _ = dense_forward(params, x)
    s, _ = sigmoid_forward(z)
    return x + s, (x, params, s)


def residual_dense_backward(
    cache: tuple[Rows, Params, Rows], dy: Rows, *, input_gradient: bool = True
) -> tuple[Params, Rows | None]:
    """Applies the chain rule to y = x + s, s = sigmoid(z), z = x W + b.

    ds = dy                 the sum hands dy to both summands
    dz = dy s (1 - s)
    dW = xᵀ dz, db = sum_b dz_b
    dx = dz Wᵀ + dy         x reaches y through z, and directly
    """
    x, params, s = cache
    dz = sigmoid_backward(s, dy)
    d_params, dx = dense_backward((x, params), dz, input_gradient=input_gradient)
    return d_params, None if dx is None else dx + dy


def _plain_residual_dense(params: Params, x: Rows) -> Rows:
    layer = Residual([nn.Dense(x.shape[1], name="dense"), nn.sigmoid])
    out: Any = layer.apply({"params": {"chain": {"dense": params}}}, x)
    return out


def _residual_dense(batch: int, width: int) -> Setting:
    return Setting((batch, width), {"kernel": (width, width), "bias": (width,)})


RESIDUAL_DENSE = LayerRule(
    name="residual_dense",
    forward=residual_dense_forward,
    backward=residual_dense_backward,
    plain=_plain_residual_dense,
    settings=[_residual_dense(4, 5), _residual_dense(6, 6)],
    inputs=("params", "x"),
    domain=Domain(_residual_dense, {"batch": BATCHES, "width": WIDTHS}),
)
# By their names.
DERIVED: dict[str, LayerRule] = RULES | {RESIDUAL_DENSE.name: RESIDUAL_DENSE}
