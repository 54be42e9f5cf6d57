"""Functions that keep XLA on a CPU from slow choices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.trees import Tree


def product_of_rows(rows: Float[Array, "*N M"], dz: Float[Array, "*N K"]) -> Float[Array, "M K"]:
    """Computes rowsᵀ dz; the CPU is faster at this long sum over all places in eight parts."""
    parts = 8 if dz.size // dz.shape[-1] % 8 == 0 else 1
    rows, dz = (array.reshape(parts, -1, array.shape[-1]) for array in (rows, dz))
    return jnp.einsum("gnm,gnk->gmk", rows, dz).sum(axis=0)


def stored(function: Callable[..., Tree], *arrays: object) -> Tree:
    """Calls function(*arrays); XLA must store the result, it never fuses a branch with its uses.

    The barrier keeps XLA from folding the condition away. A barrier alone would not do: XLA on the
    CPU removes it before it fuses.
    """
    results = jax.eval_shape(function, *arrays)
    always = lax.optimization_barrier(jnp.array(True))
    zeros = jax.tree.map(lambda result: jnp.zeros(result.shape, result.dtype), results)
    return lax.cond(always, function, lambda *_: zeros, *arrays)
