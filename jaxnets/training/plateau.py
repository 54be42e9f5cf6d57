"""The plateau: a learning rate that falls when the validation error stops falling.

This is the heuristic of Krizhevsky et al. 2012, section 5, which leaves open how long to wait.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.training.step import TrainState

# "The learning rate was initialized at 0.01 and reduced three times prior to termination."
FACTOR, MAX_REDUCTIONS = 0.1, 3

Scalar = jax.Array | np.ndarray | np.number


class Plateau(NamedTuple):
    """The plateau's part of the optimiser's state, and so of a checkpoint."""

    drops: Scalar  # The number of times that the learning rate was divided by 10.
    best: Scalar  # The lowest validation error so far.
    stale: Scalar  # The number of epochs since then, or since the last drop.

    @property
    def factor(self) -> float:
        """By which the learning rate is multiplied."""
        return FACTOR ** int(self.drops)


def with_plateau(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the rule with its learning rate divided by 10 for every drop of the plateau.

    Every rule's update is proportional to its learning rate, so the update is scaled.
    """

    def init(params: optax.Params) -> Plateau:
        none = jnp.zeros((), jnp.int32)
        return Plateau(drops=none, best=jnp.full((), jnp.inf, jnp.float32), stale=none)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        def scaled(update: jax.Array) -> jax.Array:
            return update * jnp.asarray(FACTOR, update.dtype) ** state.drops

        return jax.tree.map(scaled, updates), state

    return optax.chain(rule, optax.GradientTransformation(init, update))


def plateau_of(opt_state: Any) -> Plateau:
    """Returns the plateau's part of the state of a rule `with_plateau`."""
    return opt_state[-1]


def with_reduced_rate(state: TrainState, record: dict[str, Any], patience: int) -> TrainState:
    """Returns the state after `update_plateau`; the record gets the rate of the epoch's end."""
    if record["learning_rate"] is not None:
        record["learning_rate"] *= plateau_of(state.opt_state).factor
    opt_state = update_plateau(state.opt_state, 1 - record["validation_accuracy"], patience)
    return state.replace(opt_state=opt_state)


def update_plateau(opt_state: Any, error: float, patience: int) -> tuple[Any, ...]:
    """Returns the state of a rule `with_plateau` after an epoch with this validation error.

    The rate drops after `patience` epochs without a new lowest error since the last drop.
    """
    *rest, plateau = opt_state
    drops, best, stale = int(plateau.drops), np.float32(plateau.best), int(plateau.stale) + 1
    if np.float32(error) < best:
        best, stale = np.float32(error), 0
    elif stale >= patience and drops < MAX_REDUCTIONS:
        drops, stale = drops + 1, 0
    return (*rest, Plateau(np.int32(drops), best, np.int32(stale)))
