"""The residual block: the sum of two branches, each a chain of layers that have pairs."""

import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import (
    Domain,
    LayerRule,
    Pair,
    Setting,
    Shapes,
)
from jaxnets.base.trees import LayerParams
from jaxnets.models.batch_norm import STATISTICS, BatchNorm
from jaxnets.models.chain import Chain, Layer, shapes_of
from jaxnets.models.residual import Residual, added

Inputs = Float[Array, "B *sizes"]
Outputs = Float[Array, "B *outputs"]
Mask = Float[Array, " B"]
Cache = tuple[Any, Any]  # The caches of both branches; x needs none.


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
      shortcut: The pair of S, whose output has F's shape; None: S(x) = x.

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

    Each branch's backward pass takes it from there to its parameters and to x. So x reaches the
    loss on two paths, whose gradients add up:

        dx_j = sum_i dy_i ∂F_i/∂x_j + sum_i dy_i ∂S_i/∂x_j
             = sum_i dy_i ∂F_i/∂x_j + dy_j                       for S(x) = x

    In the last line dy comes through undamped, however small F's derivative is. Over a whole stack
    of blocks the gradient is a product of (1 + F'), not of F': it does not vanish. It can explode,
    so blocks have norms.

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
    rngs = {"dropout": jax.random.key(0)}
    network = Chain([Residual(chain, shortcut)])  # Only a network hands out keys.
    variables = {"params": {"residual1": params}}
    out: Any = network.apply(variables, x, train=True, mask=mask, rngs=rngs)
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
_NORMED_SHORTCUT = [nn.Dense(2, use_bias=False, name="dense1"), BatchNorm(name="norm1")]
_NORM_SHAPES = {
    name: dict.fromkeys(("bias", *STATISTICS, "scale"), (channels,))
    for name, channels in (("norm1", 4), ("norm2", 3))
}


def _drawn_setting(
    batch: int,
    image: tuple[int, ...],
    depth: int,
    norms: bool,
    rate: float,
    shortcut: str,
    cut: int,
) -> Setting:
    """Nested blocks, `depth` of them, each with a chain of layers.

    Args:
      batch: The number of examples; the mask leaves out the last ones.
      image: Rows and columns, or none.
      depth: The number of blocks.
      norms: Whether there is a batch norm in each branch that has parameters.
      rate: The rate of the dropout in each branch.
      shortcut: "", "plain" or "projection".
      cut: The most examples that the mask leaves out; four stay.
    """
    width = 3

    def linear(features: int) -> nn.Module:
        conv = nn.Conv(features, (3, 3), use_bias=not norms)
        return conv if image else nn.Dense(features, use_bias=not norms)

    def with_norm(layers: list[Layer]) -> list[Layer]:
        return [*layers, *[BatchNorm(epsilon=0.1)] * norms, *[nn.Dropout(rate)] * bool(rate)]

    shortcuts = {"": None, "plain": [nn.Dropout(rate), nn.tanh]}
    shortcuts["projection"] = with_norm([linear(width)])
    block: Any = None
    for _ in range(depth):
        inner = [block] if block else []
        layers = [*with_norm([linear(4)]), nn.tanh, linear(width), *inner]
        block = Residual(layers, shortcuts[shortcut])
    shape = (max(batch, 4), *image, width)
    params: Any = shapes_of(block, shape)[1].get("residual1", {})
    static = {"chain": block.chain, "shortcut": block.shortcut}
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    return Setting(shape, shapes, static=static, padding=min(cut, shape[0] - 4))


RESIDUAL = LayerRule(
    name="residual",
    layer=Residual,
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
        Setting(  # Of so few channels that the exact check finds roots for all.
            (6, 3),
            {
                "chain": {"dense1": {"kernel": (3, 2), "bias": (2,)}},
                "shortcut": {
                    "dense1": {"kernel": (3, 2)},
                    "norm1": dict.fromkeys(("bias", *STATISTICS, "scale"), (2,)),
                },
            },
            static={
                "chain": Chain([nn.Dense(2, name="dense1"), nn.sigmoid]),
                "shortcut": Chain(_NORMED_SHORTCUT),
            },
            padding=2,
        ),
    ],
    inputs=("params", "x", "keys", "mask"),
    static=lambda layer: {"chain": layer.chain, "shortcut": layer.shortcut},
    branches=lambda layer: {"chain": layer.chain, "shortcut": layer.shortcut or Chain([])},
    domain=Domain(
        _drawn_setting,
        {
            "batch": (4, 5, 8, 17, 65),
            "image": ((), (), (), (2, 3)),
            "depth": (1, 1, 2, 3),
            "norms": (True, False),
            "rate": (0.0, 0.3, 0.6),
            "shortcut": ("", "plain", "projection", "projection"),
            "cut": (0, 1, 2, 9),
        },
        draws=8,
    ),
)
