"""The residual block: the sum of two branches, each a chain of layers with pairs of their own."""

import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxnets.backprop.activations import sigmoid_backward, sigmoid_forward
from jaxnets.backprop.dense import dense_backward, dense_forward
from jaxnets.backprop.rule import LayerRule, Pair, Params, Setting, Shapes
from jaxnets.models.batch_norm import STATISTICS, BatchNorm
from jaxnets.models.chain import Chain, Layer
from jaxnets.models.residual import Residual, added
from jaxnets.trees import LayerParams

Inputs = Float[Array, "B *sizes"]
Outputs = Float[Array, "B *outputs"]
Mask = Float[Array, " B"]
Cache = tuple[Any, Any]  # Of both branches; x needs none.


def residual_forward(
    params: LayerParams,
    x: Inputs,
    keys: Mapping[str, Any],
    mask: Mask | None,
    *,
    chain: Pair,
    shortcut: Pair | None = None,
) -> tuple[Outputs, Cache]:
    """Adds what a chain of layers computes to its input: y = F(x) + S(x).

    Args:
      params: The chains' parameters by the names "chain" and "shortcut".
      x: The input of both branches.
      keys: The keys of their dropout layers, by the same names.
      mask: 1 for an example and 0 for padding, for their batch norms.
      chain: The pair of F.
      shortcut: The pair of S, which gives the output F's shape; None: S(x) = x.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition", equations 1 and 2.
    """
    y, cache = chain.forward(params.get("chain", {}), x, keys.get("chain", {}), mask)
    if shortcut is None:
        return added(y, x), (cache, None)
    s, s_cache = shortcut.forward(params.get("shortcut", {}), x, keys.get("shortcut", {}), mask)
    return added(y, s), (cache, s_cache)


def residual_backward(
    cache: Cache,
    dy: Outputs,
    *,
    chain: Pair,
    shortcut: Pair | None = None,
    input_gradient: bool = True,
) -> tuple[LayerParams, Inputs | None]:
    """Applies the chain rule to y = F(x) + S(x).

    A sum hands its gradient on unchanged to each summand, since ∂y_i/∂F_i = ∂y_i/∂S_i = 1:

        dF = dy
        dS = dy

    Each branch's own pass takes it from there: to its parameters, and to x. There x reaches the
    loss on two paths, whose gradients add up:

        dx_j = sum_i dy_i ∂F_i/∂x_j + sum_i dy_i ∂S_i/∂x_j
             = sum_i dy_i ∂F_i/∂x_j + dy_j                       for S(x) = x

    In the last line dy comes through undamped, however small F's derivative is. Over a whole stack
    of blocks the gradient is a product of (1 + F'), not of F': it does not vanish. That is why
    networks of these blocks can be deep.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", equation 5.
    """
    d_chain, dx = chain.backward(cache[0], dy, input_gradient)
    if shortcut is None:
        d_shortcut, ds = {}, dy
    else:
        d_shortcut, ds = shortcut.backward(cache[1], dy, input_gradient)
    both = {"chain": d_chain, "shortcut": d_shortcut}
    d_params = {name: gradients for name, gradients in both.items() if gradients}
    return d_params, dx + ds if input_gradient else None


def _plain_residual(
    params: LayerParams,
    x: Inputs,
    keys: Mapping[str, Any],
    mask: Mask,
    *,
    chain: Chain,
    shortcut: Chain | None = None,
) -> Outputs:
    layer = Residual(chain, shortcut)
    out: Any = layer.apply({"params": params}, x, train=True, mask=mask)
    return out


def _conv(name: str, features: int, window: int = 3, stride: int = 1) -> nn.Conv:
    return nn.Conv(features, (window, window), strides=stride, use_bias=False, name=name)


def _kernels(*sizes: int, window: int = 3) -> Shapes:
    """The shapes of convolutions conv1, conv2, ... between layers with so many channels."""
    pairs = enumerate(itertools.pairwise(sizes), start=1)
    return {f"conv{number}": {"kernel": (window, window, *pair)} for number, pair in pairs}


# The activation is a sigmoid, which has no kinks.
_TWO = [_conv("conv1", 4), nn.sigmoid, _conv("conv2", 3)]
_SMALLER = [_conv("conv1", 4, stride=2), nn.sigmoid, _conv("conv2", 5)]
_PROJECTION = [_conv("conv1", 5, window=1, stride=2)]
_NORMS = [_TWO[0], BatchNorm(name="norm1"), nn.sigmoid, _TWO[2], BatchNorm(name="norm2")]
_NORM_SHAPES = {
    name: dict.fromkeys(("bias", *STATISTICS, "scale"), (channels,))
    for name, channels in (("norm1", 4), ("norm2", 3))
}


def _rows() -> list[Layer]:
    return [nn.Dense(6, name="dense1"), nn.sigmoid, nn.Dense(5, name="dense2")]


_ROW_SHAPES = {
    "dense1": {"kernel": (5, 6), "bias": (6,)},
    "dense2": {"kernel": (6, 5), "bias": (5,)},
}

RESIDUAL = LayerRule(
    forward=residual_forward,
    backward=residual_backward,
    plain=_plain_residual,
    settings=[
        Setting((3, 4, 4, 3), {"chain": _kernels(3, 4, 3)}, static={"chain": Chain(_TWO)}),
        Setting(
            (2, 5, 4, 3),
            {"chain": _kernels(3, 4, 5), "shortcut": _kernels(3, 5, window=1)},
            static={"chain": Chain(_SMALLER), "shortcut": Chain(_PROJECTION)},
        ),
        Setting(
            (6, 3, 3, 3),
            {"chain": {**_kernels(3, 4, 3), **_NORM_SHAPES}},
            static={"chain": Chain(_NORMS)},
            padding=2,
        ),
        Setting(
            (4, 5),
            {"chain": {**_ROW_SHAPES, "residual1": {"chain": _ROW_SHAPES}}},
            static={
                "chain": Chain([*_rows(), Residual(_rows(), name="residual1")]),
                "shortcut": Chain([nn.sigmoid]),
            },
        ),
    ],
    inputs=("params", "x", "keys", "mask"),
    static=lambda layer: {"chain": layer.chain, "shortcut": layer.shortcut},
)


Rows = Float[Array, "B D"]


def residual_dense_forward(params: Params, x: Rows) -> tuple[Rows, tuple[Rows, Params, Rows]]:
    """The smallest block, written out: y = x + sigmoid(x W + b), W [D, D].

    No network has it: it is an exercise.
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


RESIDUAL_DENSE = LayerRule(
    forward=residual_dense_forward,
    backward=residual_dense_backward,
    plain=_plain_residual_dense,
    settings=[
        Setting((batch, width), {"kernel": (width, width), "bias": (width,)})
        for batch, width in [(4, 5), (6, 6), (1, 1), (40, 3)]
    ],
    inputs=("params", "x"),
)
