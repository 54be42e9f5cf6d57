"""Leaves out black pixels where a dense network trains on all examples at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Split
from jaxnets.training.step import LossAndGrad, Params, accumulate_gradients

# In so many steps the first dense layer of a full batch leaves out black pixels. Each takes 0.1 s
# to compile; with 10 the step takes 0.96 of the time (benchmarks/dense_epoch.py mlp_handwritten).
WIDTHS = 6


def with_nonzero_pixels(
    make_loss_and_grad: Callable[..., LossAndGrad], split: Split, *, layer: str, block_size: int
) -> tuple[LossAndGrad, Split]:
    """The same sums over all examples, without most of the products with black pixels.

    The pixels are ordered by how many images light them, the images by the rarest pixel that each
    lights. A block of images is then black from some pixel on, and its first layer multiplies by
    the pixels before it: on MNIST by 0.59 of them. Smaller batches are drawn anew in every epoch
    and have no such order.

    Args:
      make_loss_and_grad: Makes the loss_and_grad of a network whose first layer with parameters is
        dense, given the widths of `backprop/nonzero_columns.py`.
      split: The whole batch; images [N, H, W, C].
      layer: The first layer's name.
      block_size: Examples a block.

    Returns:
      The loss_and_grad, block by block, and the examples that it takes: reordered, with images
      [N, L, 1, 1] of the L pixels that any image lights.
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
    gradients = _on_inputs(
        accumulate_gradients(make_loss_and_grad(widths=widths), block_size),
        layer,
        common,
        len(counts),
    )
    images = np.take(pixels[order], common, axis=1)[:, :, None, None]
    return gradients, Split(images, split.labels[order])


def _on_inputs(
    loss_and_grad: LossAndGrad, layer: str, columns: np.ndarray, total: int
) -> LossAndGrad:
    """The same sums from inputs that lack the columns which are zero in every example.

    Where x_d is 0 in all of them, row d of the first kernel adds nothing to any z = x W, and its
    gradient x_dᵀ dz is 0.

    Args:
      loss_and_grad: The gradient of a network whose first layer is dense.
      layer: That layer's name.
      columns: [L] those that are left.
      total: The number of all columns.

    Returns:
      (params, batch, key) -> (Metrics, gradients): params and gradients with whole kernels (and
      perhaps leading axes, over runs), the batch's images [B, ...] with the columns that are left.
    """

    def summed(params: Params, batch: Batch, key: jax.Array) -> tuple[Any, Params]:
        whole = params[layer]["kernel"]
        rows = np.append(columns, np.arange(total, whole.shape[-2]))  # A bias row stays.
        first = {**params[layer], "kernel": whole[..., rows, :]}
        metrics, gradients = loss_and_grad({**params, layer: first}, batch, key)
        kernel = jnp.zeros_like(whole).at[..., rows, :].set(gradients[layer]["kernel"])
        return metrics, {**gradients, layer: {**gradients[layer], "kernel": kernel}}

    return summed
