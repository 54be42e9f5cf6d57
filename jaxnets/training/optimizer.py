"""Update rules and learning-rate schedules by name, from optax; the plateau is ours."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Keras' RMSprop: rho 0.9, epsilon 1e-7 under the root.
RMSPROP_DECAY, RMSPROP_EPSILON = 0.9, 1e-7


def create_schedule(name: str, peak: float, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      name: "constant"; "cosine": falls from the peak to 0 as a cosine; "one_cycle": rises from
        peak / 25 over the first 30 %, then falls to almost 0 (Smith and Topin 2017); "step": the
        peak divided by 10 after half and again after three quarters of the steps; "plateau": the
        peak, which `update_plateau` divides by 10 during the run.
      peak: The largest learning rate.
      steps: The number of steps of the whole run.
    """
    if name in ("constant", "plateau"):
        return optax.constant_schedule(peak)
    if name == "cosine":
        return optax.cosine_decay_schedule(peak, steps)
    if name == "one_cycle":
        # Its rise must have a step of its own, which a run of one or two steps lacks.
        return optax.cosine_onecycle_schedule(max(steps, 4), peak)
    if name == "step":
        # A drop before the first step, which a run of one step would get, is none.
        drops = {at: 0.1 for at in (steps // 2, steps * 3 // 4) if at > 0}
        return optax.piecewise_constant_schedule(peak, drops)
    raise ValueError(
        f"schedule: expected constant, cosine, one_cycle, step or plateau, got {name!r}"
    )


def create_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the update rule.

    Args:
      name: "sgd" or "rmsprop", whose weight decay is added to the gradient (the L2 penalty of
        Keras and PyTorch), or "adam", which decouples it (Loshchilov and Hutter 2019).
      learning_rate: A number or a schedule.
      momentum: The momentum of sgd; 0 for none.
      nesterov: Whether sgd uses Nesterov's momentum.
      weight_decay: The factor of every parameter in its decay.
    """
    if name == "adam":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    if name == "sgd":
        rule = optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)
    elif name == "rmsprop":
        rule = optax.rmsprop(learning_rate, decay=RMSPROP_DECAY, eps=RMSPROP_EPSILON)
    else:
        raise ValueError(f"optimizer: expected sgd, rmsprop or adam, got {name!r}")
    return optax.chain(optax.add_decayed_weights(weight_decay), rule) if weight_decay else rule


class Plateau(NamedTuple):
    """The plateau's part of the optimiser's state, and so of a checkpoint.

    Attributes:
      drops: How often the learning rate was divided by 10.
      best: The lowest validation error so far.
      stale: The number of epochs since then, or since the last drop.
    """

    drops: Any
    best: Any
    stale: Any


# "The learning rate was initialized at 0.01 and reduced three times prior to termination."
FACTOR, MAX_REDUCTIONS = 0.1, 3


def with_plateau(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the rule with its learning rate divided by 10 for every drop of the plateau.

    Every rule's update is proportional to its learning rate, so the update is scaled.
    """

    def init(params: Any) -> Plateau:
        none = jnp.zeros((), jnp.int32)
        return Plateau(drops=none, best=jnp.full((), jnp.inf, jnp.float32), stale=none)

    def update(updates: Any, state: Any, params: Any = None):
        def scaled(update: jax.Array) -> jax.Array:
            return update * jnp.asarray(FACTOR, update.dtype) ** state.drops

        return jax.tree.map(scaled, updates), state

    return optax.chain(rule, optax.GradientTransformation(init, update))


def plateau_of(opt_state: Any) -> Plateau:
    """Returns the plateau's part of the state of a rule `with_plateau`."""
    return opt_state[-1]


def update_plateau(opt_state: Any, error: float, patience: int) -> Any:
    """Returns the state of a rule `with_plateau` after an epoch.

    The rate drops after `patience` epochs without a new lowest error since the last drop. This is
    the heuristic of Krizhevsky et al. 2012, section 5, which leaves open how long to wait.

    Args:
      opt_state: The rule's state.
      error: The error on the validation images after the epoch.
      patience: The number of epochs to wait.
    """
    *rest, plateau = opt_state
    drops, best, stale = int(plateau.drops), np.float32(plateau.best), int(plateau.stale) + 1
    if np.float32(error) < best:
        best, stale = np.float32(error), 0
    elif stale >= patience and drops < MAX_REDUCTIONS:
        drops, stale = drops + 1, 0
    return (*rest, Plateau(np.int32(drops), best, np.int32(stale)))
