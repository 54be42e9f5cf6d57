"""A large batch of a dense network in blocks, which stay in the processor's cache."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from jaxnets.data.batches import Batch
from jaxnets.training.step import LossAndGrad, Number
from jaxnets.trees import Params, Tree

# Examples a block: MNIST's 60,000 are 60 blocks. On two cores 750 to 1,000 were the fastest
# (benchmarks/dense_epoch.py mlp_handwritten).
BLOCK_SIZE = 1000


def accumulate_gradients(loss_and_grad: LossAndGrad, size: int = BLOCK_SIZE) -> LossAndGrad:
    """Accumulates the same sums over a large batch, block by block.

    A block and its activations stay in the processor's cache. A full batch comes from memory for
    every layer (benchmarks/dense_epoch.py mlp_handwritten). Only the order of the sums differs, and
    the keys of dropout. The last block may have fewer examples.
    """

    def summed(params: Params, batch: Batch, key: PRNGKeyArray) -> tuple[Any, Any]:
        count, rest = divmod(len(batch.labels), size)
        if count + bool(rest) == 1:
            return loss_and_grad(params, batch, key)

        def add_block(number: Number, total: Tree, length: int = size) -> Tree:
            rows = partial(lax.dynamic_slice_in_dim, start_index=number * size, slice_size=length)
            block_key = jax.random.fold_in(key, number)
            sums = loss_and_grad(params, jax.tree.map(rows, batch), block_key)
            return jax.tree.map(jnp.add, total, sums)

        shapes = jax.eval_shape(loss_and_grad, params, batch, key)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total = lax.fori_loop(0, count, add_block, nothing)
        return add_block(count, total, rest) if rest else total

    return summed
