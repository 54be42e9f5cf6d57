"""Update rules and learning-rate schedules, from optax.

Three things are added to optax: the choice of parameters that Muon treats as matrices, the step of
running statistics, and a plateau's reductions, which come from the validation after each epoch.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from optax import contrib

from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config

# Keras's RMSprop: rho 0.9, epsilon 1e-7 under the root.
RMSPROP_DECAY, RMSPROP_EPSILON = 0.9, 1e-7
# The root mean square of Muon's update divided by its learning rate, like Adam's: one rate then
# serves all layers (Liu et al. 2025, "Muon is Scalable for LLM Training").
MUON_RMS = 0.2
# For running statistics, PyTorch's default: 0.9 of the statistic and 0.1 of the batch's.
STATISTICS_RATE = 0.1
# "The learning rate was initialized at 0.01 and reduced three times prior to termination":
# Krizhevsky et al. 2012, section 5, which leaves open how long to wait.
PLATEAU_FACTOR, MAX_REDUCTIONS = 0.1, 3

# A user's function: (learning rate, or its schedule) -> the update rule.
MakeOptimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


def create_schedule(name: str, peak: float, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      name: "constant"; "linear": falls from the peak to 0 along a line; "cosine": falls from the
        peak to 0 along a cosine; "one_cycle": rises from peak / 25 over the first 30 %, then falls
        to almost 0 (Smith and Topin 2017); "step": the peak divided by 10 after half and again
        after three quarters of the steps; "plateau": the peak, which `update_plateau` divides by 10
        during the run.
      peak: The largest learning rate.
      steps: The number of steps of the whole run.
    """
    if name in ("constant", "plateau"):
        return optax.constant_schedule(peak)
    if name not in ("linear", "cosine", "one_cycle", "step"):
        names = "constant, linear, cosine, one_cycle, step or plateau"
        raise ValueError(f"schedule: expected {names}, got {name!r}")

    @jax.jit  # One program: compiling optax's operations one by one takes 0.9 s (one_cycle).
    def schedule(step: ArrayLike) -> ArrayLike:
        # Given an int32, one_cycle computes a part in float32, also in a float64 run.
        step = jnp.asarray(step, float)
        if name == "linear":
            return optax.linear_schedule(peak, 0.0, steps)(step)
        if name == "cosine":
            return optax.cosine_decay_schedule(peak, steps)(step)
        if name == "one_cycle":
            # Its rise must have its own step, which a run of one or two steps lacks.
            return optax.cosine_onecycle_schedule(max(steps, 4), peak)(step)
        # "step". In a run of one step both drops come before the first step: neither counts.
        rate = jnp.full_like(step, peak)
        for drop in (steps // 2, steps * 3 // 4):
            rate = jnp.where(step >= max(drop, 1), 0.1 * rate, rate)
        return rate

    return schedule


def create_optimizer(
    name: str | optax.GradientTransformation | MakeOptimizer,
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the update rule.

    Args:
      name: "sgd" or "rmsprop", whose weight decay is added to the gradient (the L2 penalty of Keras
        and PyTorch), or "adam" or "muon", which decouple it (Loshchilov and Hutter 2019); or an
        optax transformation, or a function of the learning rate that makes one. Muon replaces a
        matrix's momentum U S Vᵀ by nearly U Vᵀ (Jordan 2024, "Muon: An optimizer for hidden layers
        in neural networks"); biases take Adam.
      learning_rate: A number or a schedule.
      momentum: The momentum of sgd; 0 for none.
      nesterov: Whether sgd uses Nesterov's momentum.
      weight_decay: The factor of weight decay, for every parameter.
    """
    if not isinstance(name, str):
        rule = name if isinstance(name, optax.GradientTransformation) else name(learning_rate)
        if not isinstance(rule, optax.GradientTransformation):
            got = type(rule).__name__
            raise UserError("optimizer: expected an optax transformation, got {}", got)
        return rule
    if name == "adam":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    if name == "muon":
        return contrib.muon(
            learning_rate,
            weight_decay=weight_decay,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=MUON_RMS,
        )
    if name == "sgd":
        rule = optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)
    elif name == "rmsprop":
        rule = optax.rmsprop(learning_rate, decay=RMSPROP_DECAY, eps=RMSPROP_EPSILON)
    else:
        raise UserError("optimizer: expected sgd, rmsprop, adam or muon, got {}", repr(name))
    return optax.chain(optax.add_decayed_weights(weight_decay), rule) if weight_decay else rule


def optimizer_of(
    config: Config, schedule: optax.Schedule, statistics: Collection[str] = ()
) -> optax.GradientTransformation:
    """The config's update rule with a learning rate.

    Args:
      config: The rule and its settings.
      schedule: The learning rate at every step.
      statistics: The names of the parameters that are running statistics.
    """
    rule = create_optimizer(
        config.optimizer, schedule, config.momentum, config.nesterov, config.weight_decay
    )
    if config.schedule == "plateau":
        rule = with_plateau(rule)
    return with_statistics(rule, statistics, config.reduction) if statistics else rule


def _matrices(params: optax.Params) -> optax.Params:
    """The axes that are the rows and columns of each parameter's matrix; None for a single axis.

    A kernel [h, w, C, K] of a convolution is the matrix [h w C, K].
    """

    def axes(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        rows = tuple(range(leaf.ndim - 1))
        return contrib.MuonDimensionNumbers(rows, (leaf.ndim - 1,)) if rows else None

    return jax.tree.map(axes, params)


def with_statistics(
    rule: optax.GradientTransformation, names: Collection[str], reduction: str
) -> optax.GradientTransformation:
    """Returns the rule, except that running statistics move by a tenth of their gradient.

    Weight decay, momentum and schedule are for the other parameters. The state is the rule's.

    Args:
      rule: The update rule.
      names: The names of the parameters that are statistics, in any layer.
      reduction: The config's reduction of gradients, "mean" or "sum".

    Raises:
      UserError: The gradient is a sum over the examples, so the statistics would move too far.
    """
    if reduction != "mean":
        raise UserError("reduction: expected mean for a network with batch norm, got {}", reduction)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        gradients = updates
        updates, state = rule.update(gradients, state, params)

        def chosen(path: Sequence[Any], update: jax.Array, gradient: jax.Array) -> jax.Array:
            return -STATISTICS_RATE * gradient if path[-1].key in names else update

        return jax.tree_util.tree_map_with_path(chosen, updates, gradients), state

    return optax.GradientTransformation(rule.init, update)


class Plateau(NamedTuple):
    """The state of a plateau: the last part of the optimizer's state, and so of a checkpoint."""

    drops: jax.Array | np.number  # How often the learning rate was divided by 10.
    best: jax.Array | np.number  # The lowest validation error so far.
    stale: jax.Array | np.number  # The number of epochs since then, or since the last drop.


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
            return update * jnp.asarray(PLATEAU_FACTOR, update.dtype) ** state.drops

        return jax.tree.map(scaled, updates), state

    return optax.chain(rule, optax.GradientTransformation(init, update))


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
