"""Wide dense layers: the input's gradient by the order of the product that is faster on a CPU."""

import flax.linen as nn
from jax import lax

from jaxnets.backprop.dense import DENSE, Inputs, Outputs, dense_backward, setting_of
from jaxnets.backprop.rule import Params, Setting
from jaxnets.backprop.rules import register
from jaxnets.kernels.by_rule import dense_by_rule
from jaxnets.kernels.kernel import CPU, Kernel
from jaxnets.models.chain import Layer

# From this many outputs on, XLA on the CPU is slower at dz Wᵀ than at W dzᵀ: 7 times for AlexNet's
# dense6 at batch 128, 1.5 times for the CNN's hidden layer.
WIDE = 128


class WideDense(nn.Dense):
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
    backward=wide_dense_backward,
    settings=[
        *(setting_of(*sizes) for sizes in [(2, 3, WIDE), (9, WIDE, WIDE), (9, 9, WIDE)]),
        Setting((5, 6), {"kernel": (6, 2)}),
    ],
)
register(WideDense, WIDE_DENSE)


def _replace(layer: Layer) -> list[Layer] | None:
    if type(layer) is not nn.Dense or layer.features < WIDE:
        return None
    return [dense_by_rule(WideDense, layer, WIDE_DENSE)]


KERNEL = Kernel(
    name="wide_dense",
    run=1,
    replace=_replace,
    rule=WIDE_DENSE,
    pair=DENSE,
    platforms=CPU,
    benchmark="python benchmarks/step.py",
)
