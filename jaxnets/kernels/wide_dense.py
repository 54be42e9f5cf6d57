"""Dense layers with many outputs: dX in the order that a CPU prefers."""

import flax.linen as nn
from jax import lax

from jaxnets.backprop.dense import (
    DENSE,
    SIZES,
    Inputs,
    Outputs,
    dense_backward,
    drawn_setting,
    setting_of,
)
from jaxnets.backprop.rule import Domain, Params
from jaxnets.backprop.rules import register_rule
from jaxnets.kernels.by_rule import DenseByRule, with_kind
from jaxnets.kernels.kernel import Kernel
from jaxnets.models.chain import Layer

# From this many outputs on, XLA on the CPU is slower at dz Wᵀ than at W dzᵀ: 7 times for AlexNet's
# dense6 at batch 128, 1.5 times for the CNN's hidden layer.
WIDE = 128


class WideDense(DenseByRule):
    """A Flax dense layer with many outputs."""


def wide_dense_backward(
    cache: tuple[Inputs, Params], dz: Outputs, *, input_gradient: bool = True
) -> tuple[Params, Inputs | None]:
    """The gradients of `dense_backward`, with dX = dz Wᵀ computed as (W dzᵀ)ᵀ."""
    kernel = cache[1]["kernel"]
    d_params, _ = dense_backward(cache, dz, input_gradient=False)
    # Without the barrier XLA would turn this into dz Wᵀ again.
    return d_params, lax.optimization_barrier(kernel @ dz.T).T if input_gradient else None


WIDE_DENSE = DENSE._replace(
    name="wide_dense",
    layer=WideDense,
    backward=wide_dense_backward,
    settings=[setting_of(2, 3, WIDE), setting_of(9, WIDE, WIDE)],
    domain=Domain(
        drawn_setting,
        {**SIZES, "outputs": (2, 127, 128, 129, 200, 256, 300), "biased": (True, False)},
    ),
)
register_rule(WIDE_DENSE)


def _replace(layer: Layer) -> list[Layer] | None:
    if type(layer) is not nn.Dense or layer.features < WIDE:
        return None
    return [with_kind(WideDense, layer)]


KERNEL = Kernel(
    run=1,
    replace=_replace,
    rule=WIDE_DENSE,
    pair=DENSE,
    benchmark="python benchmarks/step.py",
)
