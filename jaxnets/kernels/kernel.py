"""The common parts of kernels: their declaration, and ways around slow choices of XLA on a CPU."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule
from jaxnets.base.trees import Tree
from jaxnets.machine.platform import STACKED
from jaxnets.models.chain import Layer


class Kernel(NamedTuple):
    """A form of one or several layers of a chain that is faster, on a CPU or everywhere.

    The new layers have their own class, for which the kernel's rule is registered. Both gradients
    use that rule: the one by hand, and jax.grad through `as_function`.
    """

    run: int  # The number of layers that it looks at.
    # (*layers) -> the same number of layers, so every layer keeps its place; None: they stay.
    replace: Callable[..., Sequence[Layer] | None]
    rule: LayerRule  # The kernel's passes, and the settings on which they are tried.
    pair: LayerRule  # The taught pair that it must equal, or several of them composed.
    benchmark: str  # The command that shows it.
    sharded: bool = True  # Whether XLA may split its batch over devices.
    everywhere: bool = False  # Whether it is faster on accelerators too.
    float32_error: float = 1e-5  # The largest error against the pair in float64.
    # Arguments of the passes with which a small input is computed as a large one is in training.
    in_checks: Mapping[str, object] = {}

    @property
    def name(self) -> str:
        """The name of its rule."""
        return self.rule.name

    @property
    def checked_rule(self) -> LayerRule:
        """Its rule with the arguments of `in_checks`."""
        return self.rule._replace(
            forward=partial(self.rule.forward, **self.in_checks),
            backward=partial(self.rule.backward, **self.in_checks),
        )


def product_of_rows(rows: Float[Array, "*N M"], dz: Float[Array, "*N K"]) -> Float[Array, "M K"]:
    """Computes rowsᵀ dz; a CPU computes this long sum over all places faster in eight parts."""
    parts = 8 if dz.size // dz.shape[-1] % 8 == 0 else 1
    rows, dz = (array.reshape(parts, -1, array.shape[-1]) for array in (rows, dz))
    return jnp.einsum("gnm,gnk->gmk", rows, dz).sum(axis=0)


def stacked(arrays: Sequence[jax.Array]) -> jax.Array:
    """Stacks arrays, a multiple of 16, as jnp.stack does, as many at a time as XLA prefers."""
    parts = [arrays[at : at + STACKED] for at in range(0, len(arrays), STACKED)]
    return jnp.stack(list(map(jnp.stack, parts))).reshape(-1, *arrays[0].shape)


def stored(function: Callable[..., Tree], *arrays: object) -> Tree:
    """Calls `function(*arrays)`, and XLA stores the result: it never fuses a branch with its uses.

    The barrier keeps XLA from folding the condition away. A barrier by itself would not be enough:
    XLA on the CPU removes it before it fuses.
    """
    always = lax.optimization_barrier(jnp.array(True))
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *arrays))
    return lax.cond(always, function, lambda *_: zeros, *arrays)
