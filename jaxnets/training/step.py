"""The one training step, for any network, loss and optimizer, by autodiff or by hand.

A loss_and_grad is a function (params, batch, key) -> (Metrics, gradients), both summed over the
batch's examples. `autodiff_loss_and_grad` makes one with jax.grad; the hand-derived ones have the
same signature. The division by the number of examples happens once, here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import PRNGKeyArray

from jaxnets.base.described import Described
from jaxnets.base.trees import Params, Tree
from jaxnets.data.batches import Batch
from jaxnets.losses import Loss
from jaxnets.metrics import MetricFunction, Sums, metric_of
from jaxnets.training.pixels import to_float

LossAndGrad = Callable[[Params, Batch, jax.Array], tuple[Sums, Params]]
Number = jax.Array | int
# (the step's key and number, a batch, its first row's place in the whole one) -> the augmented one
Augment = Callable[[jax.Array, Number, Batch, Number], Batch]


class TrainState(Described, flax.struct.PyTreeNode, repr=False):
    """Everything that a step changes, and the run's key."""

    step: jax.Array  # The number of steps done.
    params: Params
    opt_state: optax.OptState
    key: jax.Array  # The seed's key, which no step changes; step n uses fold_in(key, n).

    def _repr_fields(self) -> dict[str, Any]:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return {"step": int(self.step), "parameters": count}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The progress of a run: its state, and the sums of an unfinished epoch."""

    state: TrainState  # Its step tells the epoch, and how much of it is done.
    metrics: Sums | None = None  # The sums over the done part of the epoch; None at its start.
    seconds: float = 0.0  # Seconds spent on this part,
    data_seconds: float = 0.0  # and those of them spent waiting for batches.


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Sums]]
GradientStep = Callable[[TrainState, Batch], tuple[Sums, Any]]  # One gradient, or two to compare.
EvalStep = Callable[[Params, Batch], Sums]


def no_augmentation(key: jax.Array, step: Number, batch: Batch, first: Number) -> Batch:
    """Returns the batch, its images as floats."""
    return batch._replace(images=to_float(batch.images))


def summed_loss(
    apply: Callable[..., Any], loss: Loss, metric: MetricFunction | None = None
) -> Callable[..., tuple[jax.Array, Sums]]:
    """Returns f(params, batch, **apply_arguments) -> (sum of the losses, Metrics)."""
    metric = metric or metric_of(loss)

    def total(params: Params, batch: Batch, **arguments: object) -> tuple[jax.Array, Sums]:
        images, labels, mask = jax.tree.map(jnp.asarray, batch)
        logits = apply({"params": params}, images, **arguments)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        metrics = metric(logits, labels, loss(logits, labels), mask)
        return jnp.asarray(metrics.loss_sum), metrics

    return total


def autodiff_loss_and_grad(apply: Callable[..., Any], loss: Loss) -> LossAndGrad:
    """The loss_and_grad that differentiates by jax.grad.

    Args:
      apply: A Flax module's apply, with dropout keyed by rngs={"dropout": key}.
      loss: One of losses.LOSSES; `metric_of` gives its metrics.
    """
    grad = jax.grad(summed_loss(apply, loss), has_aux=True)

    def loss_and_grad(params: Params, batch: Batch, key: PRNGKeyArray) -> tuple[Sums, Params]:
        gradients, metrics = grad(params, batch, train=True, mask=batch.mask, rngs={"dropout": key})
        return metrics, gradients

    return loss_and_grad


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
      axis_name: The mapped axis of shard_map or pmap, over which the sums are added.
      augment: Changes the batch first (training/augment.py).
    """
    gradient_step = make_gradient_step(loss_and_grad, axis_name=axis_name, augment=augment)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        metrics, gradients = gradient_step(state, batch)
        count = jnp.maximum(metrics.count, 1)  # Every picture of a batch may be unreadable.
        if reduction == "mean":
            gradients = jax.tree.map(lambda g: g / count.astype(g.dtype), gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def make_gradient_step(
    loss_and_grad: Callable[..., tuple[Sums, Any]],
    *,
    axis_name: str | None = None,
    augment: Augment = no_augmentation,
) -> GradientStep:
    """Returns f(state, batch) -> (metrics, gradients), summed over the examples of all devices."""

    def gradient_step(state: TrainState, batch: Batch) -> tuple[Sums, Any]:
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is None:
            return loss_and_grad(state.params, augment(key, state.step, batch, 0), key)
        device = lax.axis_index(axis_name)
        batch = augment(key, state.step, batch, device * len(batch.labels))
        key = jax.random.fold_in(key, device)  # Each device drops different units.
        params = varying(axis_name, state.params)
        return add_over(axis_name, loss_and_grad(params, batch, key))

    return gradient_step


def varying(axis_name: str, params: Params) -> Params:
    """The same parameters as if each device had its own.

    Under shard_map, jax.grad itself adds up the gradients of shared parameters; then `add_over`
    would count every device's sum once for each device.
    """
    if hasattr(lax, "pcast"):
        return lax.pcast(params, axis_name, to="varying")
    return getattr(lax, "pvary")(params, axis_name)  # noqa: B009  # jax 0.7


def add_over(axis_name: str, tree: Tree) -> Tree:
    """Adds every array of a tree over the devices, by one all-reduce.

    XLA joins the all-reduces of arrays of the same type, so the metrics' counts travel as floats.
    These are exact below 2^24.
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
) -> EvalStep:
    """Returns step(params, batch) -> metrics: only the forward pass, without dropout.

    The arguments are those of `autodiff_loss_and_grad` and `make_train_step`. The metric is by
    default that of `metric_of`; regression passes one in the units of its target.
    """
    total = summed_loss(apply, loss, metric)

    def eval_step(params: Params, batch: Batch) -> Sums:
        metrics = total(params, batch._replace(images=to_float(batch.images)))[1]
        return metrics if axis_name is None else add_over(axis_name, metrics)

    return eval_step
