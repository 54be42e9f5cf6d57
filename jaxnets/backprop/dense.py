"""The fully-connected layer, and the step from images to rows before the first one."""

from typing import Any

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import (
    ARRAYS,
    BATCHES,
    MANY,
    WIDTHS,
    Domain,
    LayerRule,
    Params,
    Setting,
)
from jaxnets.base.errors import UserError
from jaxnets.models.layers import flatten

Inputs = Float[Array, "B D"]
Outputs = Float[Array, "B K"]
Images = Float[Array, "B *sizes"]
Shape = Float[Array, "0 *sizes"]  # An empty array remembers it.


def dense_forward(params: Params, x: Inputs) -> tuple[Outputs, tuple[Inputs, Params]]:
    """Multiplies by the weights and adds the bias: z = X W + b.

    Args:
      params: {"kernel": W [D, K], "bias": b [K]}; without "bias" the layer has none, like the
        slides' second layer.
      x: X.

    Raises:
      UserError: X is not [B, D].

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionLayer.forward.
    """
    if x.ndim != 2:
        sizes = " x ".join(map(str, x.shape[1:]))
        raise UserError(
            "a dense layer takes rows, got {}: put flatten before it, or use nn.Conv(K, (1, 1)), "
            "which is a dense layer at each place",
            sizes,
        )
    z = x @ params["kernel"]
    if "bias" in params:
        z = z + params["bias"]
    return z, (x, params)


def dense_backward(
    cache: tuple[Inputs, Params], dz: Outputs, *, input_gradient: bool = True
) -> tuple[Params, Inputs | None]:
    """Applies the chain rule to z = X W + b.

    Each output is z_bk = sum_d X_bd W_dk + b_k, so

        dW_dk = sum_b X_bd dz_bk    dW = Xᵀ dz     [D, K]   W_dk reaches z_bk through X_bd
        db_k  = sum_b dz_bk         db = sum_b dz  [K]      every example shares the bias
        dX_bd = sum_k dz_bk W_dk    dX = dz Wᵀ     [B, D]   X_bd reaches every output k

    The slides also compute the first layer's dX and throw it away: a third of their arithmetic.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionLayer.backward.
    """
    x, params = cache
    d_params = {"kernel": x.T @ dz}
    if "bias" in params:
        d_params = {**d_params, "bias": dz.sum(axis=0)}
    return d_params, dz @ params["kernel"].T if input_gradient else None


def _plain_dense(params: Params, x: Inputs) -> Outputs:
    layer = nn.Dense(params["kernel"].shape[1], use_bias="bias" in params)
    return layer.bind({"params": params})(x)


def setting_of(batch: int, inputs: int, outputs: int, biased: bool = True) -> Setting:
    """The setting of a layer with these sizes."""
    bias = {"bias": (outputs,)} if biased else {}
    return Setting((batch, inputs), {"kernel": (inputs, outputs), **bias})


def drawn_setting(batch: int, inputs: int, outputs: int, biased: bool) -> Setting:
    """A setting of a domain: only small batches go without a bias."""
    return setting_of(batch, inputs, outputs, biased or batch >= MANY)


SIZES = {"batch": BATCHES, "inputs": WIDTHS, "outputs": (*WIDTHS, 127, 128, 129, 200)}


def _fields_of(layer: nn.Dense, shape: tuple[int, ...]) -> dict[str, Any]:
    if len(shape) > 1:
        raise UserError("it works at each place of a picture, like nn.Conv(K, (1, 1))")
    return {}


DENSE = LayerRule(
    name="dense",
    layer=nn.Dense,
    fields=_fields_of,
    forward=dense_forward,
    backward=dense_backward,
    plain=_plain_dense,
    settings=[
        setting_of(4, 5, 3),
        setting_of(9, 9, 9),  # All sizes are equal: a wrong axis has the right shape.
        setting_of(5, 6, 2, biased=False),
    ],
    inputs=("params", "x"),
    domain=Domain(drawn_setting, {**SIZES, "biased": (True, True, False)}),
)


def flatten_forward(x: Images) -> tuple[Inputs, Shape]:
    """Writes each example's numbers as one row, so that a dense layer can follow."""
    return x.reshape(x.shape[0], -1), x[:0]


def flatten_backward(cache: Shape, d_out: Inputs) -> Images:
    """Puts the gradient back into the shape of x; no number has changed."""
    return d_out.reshape(-1, *cache.shape[1:])


FLATTEN = LayerRule(
    name="flatten",
    layer=flatten,
    forward=flatten_forward,
    backward=flatten_backward,
    plain=lambda x: lax.collapse(x, 1),
    settings=[Setting((2, 3, 4, 5)), Setting((4, 4, 4, 4))],
    domain=ARRAYS,
)
