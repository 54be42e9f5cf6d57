"""Overlapping max pools, whose winners XLA on a CPU must store."""

from typing import Any

from jaxnets.backprop.pooling import MAX_POOL, Cache, Images, Outputs, max_pool_forward
from jaxnets.backprop.rules import register
from jaxnets.backprop.windows import Padding, Size
from jaxnets.kernels.by_rule import by_rule
from jaxnets.kernels.kernel import CPU, Kernel, stored
from jaxnets.models.chain import Layer
from jaxnets.models.layers import MaxPool


class OverlappingMaxPool(MaxPool):
    """A max pool whose windows overlap."""

    def __call__(self, x: Images) -> Outputs:
        return by_rule(OVERLAPPING_MAX_POOL, OVERLAPPING_MAX_POOL.static(self), x)


def overlapping_max_pool_forward(
    x: Images, *, window: Size, strides: Size, padding: Padding
) -> tuple[Outputs, Cache]:
    """Returns what `max_pool_forward` returns, its winners stored.

    The backward pass reads them in several places, where XLA would compute them anew: the pools of
    AlexNet's step took twice the time (benchmarks/step.py).
    """
    static: dict[str, Any] = {"window": window, "strides": strides, "padding": padding}
    y, (_, empty) = max_pool_forward(x, **static)
    return y, (stored(lambda x: max_pool_forward(x, **static)[1][0], x), empty)


OVERLAPPING_MAX_POOL = MAX_POOL._replace(forward=overlapping_max_pool_forward)
register(OverlappingMaxPool, OVERLAPPING_MAX_POOL)


def _replace(layer: Layer) -> list[Layer] | None:
    if type(layer) is not MaxPool or layer.window == layer.stride:
        return None
    return [OverlappingMaxPool(layer.window, layer.stride)]


KERNEL = Kernel(
    name="overlapping_max_pool",
    run=1,
    replace=_replace,
    rule=OVERLAPPING_MAX_POOL,
    pair=MAX_POOL,
    platforms=CPU,
    benchmark="python benchmarks/step.py",
)
