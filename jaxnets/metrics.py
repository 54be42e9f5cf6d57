"""Metrics as sums and counts over examples, divided once: exact for ragged batches and devices."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnets.losses import Labels, Loss, classes_of, squared_error

Sum = Any  # A JAX array on a device, a NumPy one where an epoch is added up.

# (outputs [B, K], labels, losses [B], mask [B]) -> the sums of one batch, which have at least
# loss_sum, count and loss.
MetricFunction = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Any]


def _counted(total: jax.Array) -> jax.Array:
    """A number of examples that was added up in floats, exactly so below 2^24, as an integer.

    XLA adds over devices what is of one type in one all-reduce: so counts travel with gradients.
    """
    return total.astype(jnp.int32)


@flax.struct.dataclass
class Metrics:
    """Sums over examples; adding two gives the metrics of both sets of examples.

    Attributes:
      loss_sum: Sum of the examples' losses.
      correct: How many had their label as the largest logit.
      top5_correct: How many had their label among the five largest logits.
      confusion: [K, K]; row: label, column: prediction.
      count: How many examples; padding counts nothing.
    """

    loss_sum: Sum
    correct: Sum
    top5_correct: Sum
    confusion: Sum
    count: Sum

    @classmethod
    def of(
        cls,
        logits: Float[Array, "B K"],
        labels: Labels,
        losses: Float[Array, " B"],
        mask: Float[Array, " B"],
    ):
        """The metrics of one batch.

        Args:
          logits: The outputs; NaN counts as wrong.
          labels: The classes, or probabilities, of which the largest is the label.
          losses: The examples' losses.
          mask: 1 for an example and 0 for padding.
        """
        num_classes, labels = logits.shape[1], classes_of(labels)
        picked = jnp.take_along_axis(logits, labels[:, None], axis=1)
        earlier = jnp.arange(num_classes)[None, :] < labels[:, None]
        # How many classes come before the label; of equal logits the lower class comes first.
        rank = ((logits > picked) | ((logits == picked) & earlier)).sum(axis=1)
        real = ~jnp.isnan(logits).any(axis=1) & (mask > 0)
        weight = (mask > 0).astype(losses.dtype)
        confusion = jnp.zeros((num_classes, num_classes), losses.dtype)
        return cls(
            loss_sum=jnp.sum(jnp.where(mask > 0, losses, 0)),
            correct=_counted(jnp.sum(weight * (real & (rank == 0)))),
            top5_correct=_counted(jnp.sum(weight * (real & (rank < 5)))),
            confusion=_counted(confusion.at[labels, logits.argmax(axis=1)].add(weight)),
            count=_counted(jnp.sum(weight)),
        )

    @classmethod
    def zero(cls, num_classes: int) -> "Metrics":
        """The metrics of no examples, as 64-bit NumPy numbers."""
        zero, confusion = np.zeros((), np.int64), np.zeros((num_classes, num_classes), np.int64)
        return cls(np.zeros((), np.float64), zero, zero, confusion, zero)

    def __add__(self, other: "Metrics") -> "Metrics":
        return jax.tree.map(jnp.add, self, other)

    @property
    def loss(self) -> float:
        """Mean loss of an example."""
        return float(self.loss_sum) / int(self.count)

    @property
    def accuracy(self) -> float:
        """Share of examples whose label has the largest logit, in [0, 1]."""
        return int(self.correct) / int(self.count)

    @property
    def scores(self) -> dict[str, float]:
        """What a record says beside the loss."""
        return {"accuracy": self.accuracy}

    @property
    def top5_accuracy(self) -> float:
        """Share of examples whose label is among the five largest logits, in [0, 1]."""
        return int(self.top5_correct) / int(self.count)


@flax.struct.dataclass
class RegressionMetrics:
    """Sums over examples of the errors of predicted numbers; they add up as `Metrics` do.

    Attributes:
      loss_sum: Sum of the examples' losses, in the units in which the network is trained.
      squares: [K], Σ (y - ŷ)².
      errors: [K], Σ |y - ŷ|.
      sizes: [K], Σ |y|.
      deviations: [K], Σ (y - c), c any number near the targets' mean (in float32, sums of y and y²
        themselves would lose the variance of targets far from 0).
      deviation_squares: [K], Σ (y - c)².
      count: How many examples; padding counts nothing.
    """

    loss_sum: Sum
    squares: Sum
    errors: Sum
    sizes: Sum
    deviations: Sum
    deviation_squares: Sum
    count: Sum

    @classmethod
    def of(
        cls,
        outputs: Float[Array, "B K"],
        targets: Float[Array, "B K"],
        losses: Float[Array, " B"],
        mask: Float[Array, " B"],
        *,
        mean: float = 0.0,
        scale: float = 1.0,
    ):
        """The metrics of one batch, in the target's own units: scale * target + mean.

        Args:
          outputs: The predictions.
          targets: The targets, standardised or as they are.
          losses: The examples' losses.
          mask: 1 for an example and 0 for padding.
          mean: The number that was subtracted from the targets; the c above.
          scale: The number by which they were then divided.
        """

        def total(x: jax.Array) -> jax.Array:
            return jnp.where(mask[:, None] > 0, x, 0).sum(axis=0)

        errors, deviations = scale * (targets - outputs), scale * targets
        return cls(
            loss_sum=jnp.sum(jnp.where(mask > 0, losses, 0)),
            squares=total(jnp.square(errors)),
            errors=total(jnp.abs(errors)),
            sizes=total(jnp.abs(deviations + mean)),
            deviations=total(deviations),
            deviation_squares=total(jnp.square(deviations)),
            count=_counted(jnp.sum((mask > 0).astype(losses.dtype))),
        )

    @property
    def loss(self) -> float:
        """Mean loss of an example."""
        return float(self.loss_sum) / int(self.count)

    @property
    def mse(self) -> float:
        """Mean of (y - ŷ)² over examples and outputs."""
        return float(np.mean(self.squares)) / int(self.count)

    @property
    def r2(self) -> float:
        """R² = 1 - Σ (y - ŷ)² / Σ (y - ȳ)², the mean over outputs: 1 is perfect, 0 is their mean.

        NaN where targets do not vary. Source: sklearn.metrics.r2_score.
        """
        deviations = np.asarray(self.deviations, np.float64)
        squares = np.asarray(self.deviation_squares, np.float64)
        variation = squares - deviations**2 / int(self.count)
        if not (variation > 0).all():
            return float("nan")
        return float(np.mean(1 - np.asarray(self.squares, np.float64) / variation))

    @property
    def scores(self) -> dict[str, float]:
        """What a record says beside the loss: R², which has no unit."""
        return {"r2": self.r2}

    @property
    def wmape(self) -> float:
        """Σ |y - ŷ| / Σ |y|, the weighted mean absolute percentage error; NaN if every y is 0."""
        sizes = float(np.sum(self.sizes))
        return float(np.sum(self.errors)) / sizes if sizes else float("nan")


def metric_of(loss: Loss) -> MetricFunction:
    """The metrics that a loss is trained with: RegressionMetrics for squared_error, else Metrics.

    Scores in the target's own units: functools.partial(RegressionMetrics.of, mean=..., scale=...).
    """
    return RegressionMetrics.of if loss is squared_error else Metrics.of
