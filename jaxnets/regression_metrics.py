"""Metrics of predicted numbers, which add up over batches and devices as `Metrics` do."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnets.base.described import Described

# A JAX array on a device; a NumPy array or number where an epoch is added up.
Sum = jax.Array | np.ndarray | np.number

# A variation below this share of Σ (y - c)² is the rounding of float32 sums: the targets do not
# vary, or c is so far from them that these sums cannot tell.
ROUNDING = 1e-5


class TargetUnits(NamedTuple):
    """The target's own units: scale * target + mean for a target as the network is trained.

    The given targets may be standardized by a mean and then a scale. The center, a number or [K],
    is the c of `RegressionMetrics`, for the given targets: if these are not standardized, their
    mean in some other set.
    """

    mean: float = 0.0
    scale: float = 1.0
    center: float | np.ndarray = 0.0


AS_GIVEN = TargetUnits()


@flax.struct.dataclass(repr=False)
class RegressionMetrics(Described):
    """Sums over examples of the errors of predicted numbers, [K] except the loss and the count.

    c is any number near the targets' mean: in float32, sums of y and y² themselves would lose the
    variance of targets far from 0.
    """

    loss_sum: Sum  # In the units in which the network is trained.
    squares: Sum  # Σ (y - ŷ)²
    errors: Sum  # Σ |y - ŷ|
    sizes: Sum  # Σ |y|
    deviations: Sum  # Σ (y - c)
    deviation_squares: Sum  # Σ (y - c)²
    count: Sum  # The number of examples; padding does not count.

    @classmethod
    def of(
        cls,
        outputs: Float[Array, "B K"],
        targets: Float[Array, "B K"],
        losses: Float[Array, " B"],
        mask: Float[Array, " B"],
        units: TargetUnits = AS_GIVEN,
    ) -> "RegressionMetrics":
        """The metrics of one batch, in the target's own units.

        The mask is 1 for an example and 0 for padding.
        """
        mean, scale, center = units

        def total(x: jax.Array) -> jax.Array:
            return jnp.where(mask[:, None] > 0, x, 0).sum(axis=0)

        targets = targets.astype(jnp.promote_types(targets.dtype, outputs.dtype))
        errors, deviations = scale * (targets - outputs), scale * (targets - center)
        return cls(
            loss_sum=jnp.sum(jnp.where(mask > 0, losses, 0)),
            squares=total(jnp.square(errors)),
            errors=total(jnp.abs(errors)),
            sizes=total(jnp.abs(scale * targets + mean)),
            deviations=total(deviations),
            deviation_squares=total(jnp.square(deviations)),
            count=jnp.sum((mask > 0).astype(losses.dtype)).astype(jnp.int32),
        )

    def _repr_fields(self) -> dict[str, Any]:
        return {"loss": self.loss, **self.scores, "examples": int(self.count)}

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

        NaN if the targets do not vary, or vary too little for float32 sums around c to tell.
        Source: sklearn.metrics.r2_score.
        """
        deviations = np.asarray(self.deviations, np.float64)
        squares = np.asarray(self.deviation_squares, np.float64)
        variation = squares - deviations**2 / int(self.count)
        if not (variation > ROUNDING * squares).all():
            return float("nan")
        return float(np.mean(1 - np.asarray(self.squares, np.float64) / variation))

    @property
    def scores(self) -> dict[str, float]:
        """Further values of a record: R², which has no unit."""
        return {"r2": self.r2}

    @property
    def wmape(self) -> float:
        """Σ |y - ŷ| / Σ |y|, the weighted mean absolute percentage error; NaN if every y is 0."""
        sizes = float(np.sum(self.sizes))
        return float(np.sum(self.errors)) / sizes if sizes else float("nan")
