"""Metrics as sums and counts over examples, divided once: exact for ragged batches and devices."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # A JAX array on a device, a NumPy one where an epoch is added up.


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

    loss_sum: Array
    correct: Array
    top5_correct: Array
    confusion: Array
    count: Array

    @classmethod
    def of(cls, logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array):
        """The metrics of one batch.

        Args:
          logits: [B, K]. NaN counts as wrong.
          labels: [B] integers in [0, K).
          losses: [B].
          mask: [B], 1 for an example and 0 for padding.
        """
        num_classes = logits.shape[1]
        picked = jnp.take_along_axis(logits, labels[:, None], axis=1)
        earlier = jnp.arange(num_classes)[None, :] < labels[:, None]
        # How many classes come before the label; of equal logits the lower class comes first.
        rank = ((logits > picked) | ((logits == picked) & earlier)).sum(axis=1)
        real = ~jnp.isnan(logits).any(axis=1) & (mask > 0)
        weight = (mask > 0).astype(jnp.int32)
        confusion = jnp.zeros((num_classes, num_classes), jnp.int32)
        return cls(
            loss_sum=jnp.sum(jnp.where(mask > 0, losses, 0)),
            correct=jnp.sum(real & (rank == 0)),
            top5_correct=jnp.sum(real & (rank < 5)),
            confusion=confusion.at[labels, logits.argmax(axis=1)].add(weight),
            count=jnp.sum(weight),
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
    def top5_accuracy(self) -> float:
        """Share of examples whose label is among the five largest logits, in [0, 1]."""
        return int(self.top5_correct) / int(self.count)
