"""The slides' way of giving a fully-connected layer a bias: a column of ones."""

import jax.numpy as jnp

from jaxnets.backprop.dense import DENSE, SIZES, Inputs, Outputs, dense_backward, dense_forward
from jaxnets.backprop.rule import Arrays, Domain, LayerRow, LayerRule, Params, Setting
from jaxnets.models.mlp import DenseWithOnes


def dense_with_ones_forward(params: Params, x: Inputs) -> tuple[Outputs, tuple[Inputs, Params]]:
    """Multiplies [X 1], X with a column of ones, by the weights: their last row is the bias.

        [X 1] [W; b] = X W + b

    Args:
      params: {"kernel": [W; b] [D + 1, K]}.
      x: X.

    Source: slide "全连接神经网络的自定义编码实现", FullConnectionModel.forward.
    """
    kernel = params["kernel"]
    return dense_forward({"kernel": kernel[:-1], "bias": kernel[-1]}, x)


def dense_with_ones_backward(
    cache: tuple[Inputs, Params], dz: Outputs, *, input_gradient: bool = True
) -> tuple[Params, Inputs | None]:
    """Stacks the two gradients of `dense_backward`.

        [X 1]ᵀ dz = [Xᵀ dz; 1ᵀ dz] = [dW; db]   [D + 1, K]

    The ones are constants: nothing flows back to them, and dX is the dense layer's.
    """
    d_params, dx = dense_backward(cache, dz, input_gradient=input_gradient)
    return {"kernel": jnp.vstack([d_params["kernel"], d_params["bias"]])}, dx


def _setting(batch: int, inputs: int, outputs: int) -> Setting:
    return Setting((batch, inputs), {"kernel": (inputs + 1, outputs)})


def _as_dense(row: LayerRow, arrays: Arrays) -> tuple[LayerRow, Arrays]:
    """A dense layer with a bias, which is here the kernel's last row."""
    kernel = arrays["kernel"]
    return {**row, "kind": DENSE.name}, {"kernel": kernel[:-1], "bias": kernel[-1]}


DENSE_WITH_ONES = LayerRule(
    name="dense_with_ones",
    layer=DenseWithOnes,
    exported=_as_dense,
    forward=dense_with_ones_forward,
    backward=dense_with_ones_backward,
    plain=lambda params, x: jnp.pad(x, ((0, 0), (0, 1)), constant_values=1) @ params["kernel"],
    settings=[_setting(4, 5, 3), _setting(9, 9, 9)],
    inputs=("params", "x"),
    domain=Domain(_setting, SIZES),
)
