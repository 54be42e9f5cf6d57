"""Metrics as sums and counts over examples, divided once: exact for ragged batches and devices."""

from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnets.base.described import Described
from jaxnets.losses import Labels, Loss, classes_of, squared_error
from jaxnets.regression_metrics import RegressionMetrics, Sum


def _counted(total: jax.Array) -> jax.Array:
    """A count added up in floats, which share one all-reduce with gradients; exact below 2^24."""
    return total.astype(jnp.int32)


@flax.struct.dataclass(repr=False)
class Metrics(Described):
    """Sums over examples; adding two gives the metrics of both sets of examples."""

    loss_sum: Sum
    correct: Sum  # The number whose label has the largest logit.
    top5_correct: Sum  # The number whose label is among the five largest logits.
    confusion: Sum  # [K, K]; row: label, column: prediction.
    count: Sum  # The number of examples; padding does not count.

    @classmethod
    def of(
        cls,
        logits: Float[Array, "B K"],
        labels: Labels,
        losses: Float[Array, " B"],
        mask: Float[Array, " B"],
    ) -> "Metrics":
        """The metrics of one batch, whose mask is 1 for an example and 0 for padding.

        A NaN among the logits counts as wrong; soft labels count as their most probable class.
        """
        num_classes, labels = logits.shape[1], classes_of(labels)
        picked = jnp.take_along_axis(logits, labels[:, None], axis=1)
        earlier = jnp.arange(num_classes)[None, :] < labels[:, None]
        # The number of classes before the label; among equal logits the lower class comes first.
        rank = ((logits > picked) | ((logits == picked) & earlier)).sum(axis=1)
        has_nan = jnp.isnan(logits).any(axis=1)
        weight = (mask > 0).astype(losses.dtype)
        confusion = jnp.zeros((num_classes, num_classes), losses.dtype)
        return cls(
            loss_sum=jnp.sum(jnp.where(mask > 0, losses, 0)),
            correct=_counted(jnp.sum(weight * (~has_nan & (rank == 0)))),
            top5_correct=_counted(jnp.sum(weight * (~has_nan & (rank < 5)))),
            confusion=_counted(confusion.at[labels, logits.argmax(axis=1)].add(weight)),
            count=_counted(jnp.sum(weight)),
        )

    @classmethod
    def zero(cls, num_classes: int) -> "Metrics":
        """The metrics of no examples, as 64-bit NumPy numbers."""
        zero, confusion = np.zeros((), np.int64), np.zeros((num_classes, num_classes), np.int64)
        return cls(np.zeros((), np.float64), zero, zero, confusion, zero)

    def _repr_fields(self) -> dict[str, Any]:
        return {"loss": self.loss, **self.scores, "examples": int(self.count)}

    @property
    def loss(self) -> float:
        """Mean loss of an example."""
        return float(self.loss_sum) / int(self.count)

    def __iter__(self) -> Iterator[float]:  # As Keras's evaluate returns them.
        return iter((self.loss, self.accuracy))

    @property
    def accuracy(self) -> float:
        """Share of examples whose label has the largest logit, in [0, 1]."""
        return int(self.correct) / int(self.count)

    @property
    def scores(self) -> dict[str, float]:
        """Further values of a record."""
        return {"accuracy": self.accuracy}

    @property
    def top5_accuracy(self) -> float:
        """Share of examples whose label is among the five largest logits, in [0, 1]."""
        return int(self.top5_correct) / int(self.count)


Sums = Metrics | RegressionMetrics  # The metrics of classes, or of predicted numbers.
# (outputs [B, K], labels, losses [B], mask [B]) -> the sums of one batch.
MetricFunction = Callable[..., Sums]


def metric_of(loss: Loss) -> MetricFunction:
    """The metrics for a training with this loss: RegressionMetrics for squared_error, else Metrics.

    RegressionMetrics also takes the target's units, in which its scores are.
    """
    if loss is squared_error:
        return RegressionMetrics.of
    return Metrics.of
