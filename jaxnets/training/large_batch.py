"""How a dense network takes a large batch: in blocks, and without its black pixels."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import PRNGKeyArray

from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Split
from jaxnets.training.step import LossAndGrad, Params

# Examples a block: MNIST's 60,000 are 60 blocks. On two cores 750 to 1,000 were the fastest
# (benchmarks/dense_epoch.py mlp_handwritten).
BLOCK_SIZE = 1000
# In so many steps the first dense layer of a full batch leaves out black pixels. Each takes 0.1 s
# to compile; with 10 the step takes 0.96 of the time (benchmarks/dense_epoch.py mlp_handwritten).
WIDTHS = 6


def accumulate_gradients(loss_and_grad: LossAndGrad, size: int = BLOCK_SIZE) -> LossAndGrad:
    """Accumulates the same sums over a large batch, block by block.

    A block and its activations stay in the processor's cache. A full batch comes from memory for
    every layer (benchmarks/dense_epoch.py mlp_handwritten). Only the order of the sums differs, and
    the keys of dropout. The last block may have fewer examples.
    """

    def summed(params: Params, batch: Batch, key: PRNGKeyArray):
        count, rest = divmod(len(batch.labels), size)
        if count + bool(rest) == 1:
            return loss_and_grad(params, batch, key)

        def add_block(number, total, length: int = size):
            rows = partial(lax.dynamic_slice_in_dim, start_index=number * size, slice_size=length)
            block_key = jax.random.fold_in(key, number)
            sums = loss_and_grad(params, jax.tree.map(rows, batch), block_key)
            return jax.tree.map(jnp.add, total, sums)

        shapes = jax.eval_shape(loss_and_grad, params, batch, key)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total = lax.fori_loop(0, count, add_block, nothing)
        return add_block(count, total, rest) if rest else total

    return summed


def with_nonzero_pixels(
    make_loss_and_grad: Callable[..., LossAndGrad],
    split: Split,
    layer: str,
    block_size: int = BLOCK_SIZE,
) -> tuple[LossAndGrad, Split]:
    """The same sums over all examples, without most of the products with black pixels.

    The pixels are ordered by how many images light them, the images by the rarest pixel that each
    lights. A block of images is then black from some pixel on, and its first layer multiplies by
    the pixels before it: on MNIST by 0.59 of them. Smaller batches are drawn anew in every epoch
    and have no such order.

    Where pixel d is 0 in all images, row d of the first kernel adds nothing to any z = x W, and its
    gradient x_dᵀ dz is 0.

    Args:
      make_loss_and_grad: Makes the loss_and_grad of a network whose first layer with parameters is
        dense, given the widths of `backprop/nonzero_columns.py`.
      split: The whole batch; images [N, H, W, C].
      layer: The name of that first layer.
      block_size: Examples a block.

    Returns:
      The loss_and_grad, block by block, with whole kernels in params and gradients. The examples
      that it takes: reordered, with images [N, L, 1, 1] of the L pixels that any image lights.
    """
    pixels = np.asarray(split.images).reshape(len(split), -1)
    lit = pixels != 0
    counts = lit.sum(axis=0)
    common = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    place = np.zeros(len(counts), np.min_scalar_type(len(counts)))
    place[common] = np.arange(1, len(common) + 1)
    needed = (lit * place).max(axis=1)  # How many of the common pixels an image needs.
    order = np.argsort(needed, kind="stable")

    step = -(-len(split) // (WIDTHS * block_size)) * block_size
    ends = [min(start + step, len(split)) for start in range(0, len(split), step)]
    widths = tuple(sorted({int(needed[order[end - 1]]) for end in ends}))
    block_sums = accumulate_gradients(make_loss_and_grad(widths=widths), block_size)

    def loss_and_grad(params: Params, batch: Batch, key: jax.Array):
        whole = params[layer]["kernel"]
        rows = np.append(common, np.arange(len(counts), len(whole)))  # A bias row stays.
        first = {**params[layer], "kernel": whole[rows]}
        metrics, gradients = block_sums({**params, layer: first}, batch, key)
        kernel = jnp.zeros_like(whole).at[rows].set(gradients[layer]["kernel"])
        return metrics, {**gradients, layer: {**gradients[layer], "kernel": kernel}}

    images = np.take(pixels[order], common, axis=1)[:, :, None, None]
    return loss_and_grad, Split(images, split.labels[order])
