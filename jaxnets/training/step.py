"""The one training step, for any network, loss and optimizer, by autodiff or by hand.

A loss_and_grad is a function (params, batch, key) -> (Metrics, gradients), both summed over the
batch's examples. `autodiff_loss_and_grad` makes one with jax.grad; the hand-derived ones have the
same signature. The division by the number of examples stands once, here.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jaxnets.data.batches import Batch
from jaxnets.losses import Loss
from jaxnets.metrics import MetricFunction, metric_of
from jaxnets.training.augment import Augment, no_augmentation, shift, to_float

Params = Any
Sums = Any  # Metrics; in regression RegressionMetrics.
LossAndGrad = Callable[[Params, Batch, jax.Array], tuple[Sums, Params]]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes, and the run's key.

    Attributes:
      step: The number of steps done.
      params: The parameters.
      opt_state: The optimizer's state.
      key: The seed's key, which no step changes; step n uses fold_in(key, n).
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    key: jax.Array


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Sums]]


def summed_loss(apply: Callable[..., Any], loss: Loss, metric: MetricFunction | None = None):
    """Returns f(params, batch, **apply_arguments) -> (sum of the losses, Metrics)."""
    metric = metric or metric_of(loss)

    def total(params: Params, batch: Batch, **arguments) -> tuple[Float[Array, ""], Sums]:
        batch = jax.tree.map(jnp.asarray, batch)
        logits = apply({"params": params}, batch.images, **arguments)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        metrics = metric(logits, batch.labels, loss(logits, batch.labels), batch.mask)
        return metrics.loss_sum, metrics

    return total


def autodiff_loss_and_grad(apply: Callable[..., Any], loss: Loss) -> LossAndGrad:
    """The loss_and_grad that differentiates by jax.grad.

    Args:
      apply: A Flax module's apply, with dropout keyed by rngs={"dropout": key}.
      loss: One of losses.LOSSES; `metric_of` gives its metrics.
    """
    gradient = jax.grad(summed_loss(apply, loss), has_aux=True)

    def loss_and_grad(params: Params, batch: Batch, key: PRNGKeyArray):
        gradients, metrics = gradient(params, batch, train=True, rngs={"dropout": key})
        return metrics, gradients

    return loss_and_grad


def accumulate_gradients(loss_and_grad: LossAndGrad, size: int) -> LossAndGrad:
    """Accumulates the same sums over a large batch, block by block.

    A block and its activations stay in the processor's cache. A full batch comes from memory for
    every layer (benchmarks/dense_epoch.py mlp_handwritten). Only the order of the sums differs, and
    the keys of dropout.

    Args:
      loss_and_grad: The gradient, by autodiff or by hand.
      size: Examples a block; the last block may have fewer.
    """

    def summed(params: Params, batch: Batch, key: PRNGKeyArray):
        count, rest = divmod(len(batch.labels), size)
        if count + bool(rest) == 1:
            return loss_and_grad(params, batch, key)

        def add_block(number, total, length: int = size):
            rows = functools.partial(
                lax.dynamic_slice_in_dim, start_index=number * size, slice_size=length
            )
            block_key = jax.random.fold_in(key, number)
            sums = loss_and_grad(params, jax.tree.map(rows, batch), block_key)
            return jax.tree.map(jnp.add, total, sums)

        shapes = jax.eval_shape(loss_and_grad, params, batch, key)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total = lax.fori_loop(0, count, add_block, nothing)
        return add_block(count, total, rest) if rest else total

    return summed


def make_train_step(
    loss_and_grad: LossAndGrad,
    optimizer: optax.GradientTransformation,
    *,
    reduction: str = "mean",
    axis_name: str | None = None,
    augment: Augment = no_augmentation,
) -> TrainStep:
    """Returns step(state, batch) -> (state, metrics).

    Args:
      loss_and_grad: The gradient, by autodiff or by hand.
      optimizer: The update rule.
      reduction: "mean" divides the gradient by the number of examples on all devices; "sum" does
        not, like the lecture's own code.
      axis_name: The mapped axis under pmap, over which sums are added.
      augment: Changes the batch first (training/augment.py).
    """
    summed = _summed(loss_and_grad, axis_name, augment)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        metrics, gradients = summed(state, batch)
        return apply_gradients(state, gradients, metrics.count, optimizer, reduction), metrics

    return train_step


def apply_gradients(
    state: TrainState,
    gradients: Params,
    count: Int[Array, ""],
    optimizer: optax.GradientTransformation,
    reduction: str,
) -> TrainState:
    """The state after a step along gradients that were summed over `count` examples."""
    count = jnp.maximum(count, 1)  # Every picture of a batch may be a bad one.
    if reduction == "mean":
        gradients = jax.tree.map(lambda g: g / count.astype(g.dtype), gradients)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state)


def make_gradient_step(
    loss_and_grad: LossAndGrad,
    *,
    axis_name: str | None = None,
    augment: Augment = no_augmentation,
):
    """Returns f(state, batch) -> the next step's gradients, summed over the batch."""
    summed = _summed(loss_and_grad, axis_name, augment)
    return lambda state, batch: summed(state, batch)[1]


def _summed(loss_and_grad: LossAndGrad, axis_name: str | None, augment: Augment):
    """f(state, batch) -> (Metrics, gradients), summed over the examples of all devices."""

    def summed(state: TrainState, batch: Batch) -> tuple[Sums, Params]:
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is None:
            return loss_and_grad(state.params, augment(key, batch, 0), key)
        device = lax.axis_index(axis_name)
        batch = augment(key, batch, device * len(batch.labels))
        key = jax.random.fold_in(key, device)  # Each device drops different units.
        return add_over(axis_name, loss_and_grad(state.params, batch, key))

    return summed


def add_over(axis_name: str, tree: Any) -> Any:
    """Adds every array of a tree over the devices, by one all-reduce.

    XLA makes one all-reduce of arrays of one type, so the metrics' counts travel as floats. These
    are exact below 2^24.
    """
    types = jax.tree.map(lambda x: x.dtype, tree)
    floats = jnp.result_type(*jax.tree.leaves(tree))
    tree = lax.psum(jax.tree.map(lambda x: x.astype(floats), tree), axis_name)
    return jax.tree.map(lambda x, dtype: x.astype(dtype), tree, types)


def make_eval_step(
    apply: Callable[..., Any],
    loss: Loss,
    *,
    metric: MetricFunction | None = None,
    axis_name: str | None = None,
) -> Callable[[Params, Batch], Sums]:
    """Returns step(params, batch) -> metrics: the forward pass alone, nothing dropped.

    Args:
      apply: A Flax module's apply.
      loss: One of losses.LOSSES.
      metric: The metric function; None takes that of `metric_of`. Regression passes its own units.
      axis_name: The mapped axis under pmap, over which sums are added.
    """
    total = summed_loss(apply, loss, metric)

    def eval_step(params: Params, batch: Batch) -> Sums:
        metrics = total(params, batch._replace(images=to_float(batch.images)))[1]
        return metrics if axis_name is None else add_over(axis_name, metrics)

    return eval_step


def make_train_epoch(train_step: TrainStep):
    """Returns epoch(state, images, labels, (order, mask[, corners])) -> (state, metrics a step).

    It runs many steps in one compiled loop. This is fastest for dense networks, whose steps are
    short, and on a GPU or TPU, which then never waits for the host. On the CPU a convolution is 10
    to 20 times slower in such a loop (jax issue 12868).

    The order and mask [S, B] are those of `data.batches.epoch_order`. If the images are shifted,
    the corners [S, B, 2] are those of `data.batches.epoch_corners`. The returned function's metrics
    have a leading axis S.
    """

    def train_epoch(
        state: TrainState, images: Shaped[Array, "N *pixels"], labels: Shaped[Array, "N *K"], rows
    ):
        if len(rows) == 2 and rows[0].shape == (1, len(images)):
            # A full batch has no order: no copy is needed.
            state, metrics = train_step(state, Batch(images, labels, rows[1][0]))  # type: ignore
            return state, jax.tree.map(lambda x: x[None], metrics)

        def body(state: TrainState, row):
            indices, mask, *corners = row
            chosen = images[indices]
            if corners:
                chosen = shift(chosen, corners[0])
            return train_step(state, Batch(chosen, labels[indices], mask))

        return lax.scan(body, state, rows)

    return train_epoch
