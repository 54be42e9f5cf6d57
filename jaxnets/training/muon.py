"""Muon: momentum whose matrices are made orthogonal before each step."""

import jax
import optax
from optax import contrib

# Root mean square of an update over its learning rate, as Adam's: one rate then serves all layers.
RMS = 0.2


def muon(
    learning_rate: optax.ScalarOrSchedule, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Returns optax's Muon for dense kernels and convolutions, with Adam for the biases.

    The momentum's matrix M = U S Vᵀ is replaced by nearly U Vᵀ, in five Newton-Schulz steps. A
    kernel [h, w, C, K] of a convolution is the matrix [h w C, K].

    Args:
      learning_rate: A number or a schedule, for Muon and for Adam.
      weight_decay: The decoupled decay of the matrices.

    Source: Jordan 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale of the
    updates is that of Liu et al. 2025, "Muon is Scalable for LLM Training".
    """
    return contrib.muon(
        learning_rate,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=RMS,
    )


def matrices(params: optax.Params) -> optax.Params:
    """The axes that are the rows and columns of each parameter's matrix; None for a single axis."""

    def axes(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        rows = tuple(range(leaf.ndim - 1))
        return contrib.MuonDimensionNumbers(rows, (leaf.ndim - 1,)) if rows else None

    return jax.tree.map(axes, params)
