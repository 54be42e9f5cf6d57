"""Update rules and learning-rate schedules by name, from optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxnets.errors import UserError
from jaxnets.training.muon import muon

# Keras' RMSprop: rho 0.9, epsilon 1e-7 under the root.
RMSPROP_DECAY, RMSPROP_EPSILON = 0.9, 1e-7

# A user's own: (learning rate, or its schedule) -> the update rule.
MakeOptimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


def create_schedule(name: str, peak: float, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      name: "constant"; "cosine": falls from the peak to 0 as a cosine; "one_cycle": rises from
        peak / 25 over the first 30 %, then falls to almost 0 (Smith and Topin 2017); "step": the
        peak divided by 10 after half and again after three quarters of the steps; "plateau": the
        peak, which `plateau.update_plateau` divides by 10 during the run.
      peak: The largest learning rate.
      steps: The number of steps of the whole run.
    """
    if name in ("constant", "plateau"):
        return optax.constant_schedule(peak)
    if name not in ("cosine", "one_cycle", "step"):
        names = "constant, cosine, one_cycle, step or plateau"
        raise ValueError(f"schedule: expected {names}, got {name!r}")

    @jax.jit  # One program: optax's operations, one by one, are compiled in 0.9 s (one_cycle).
    def schedule(step: ArrayLike) -> ArrayLike:
        # Of an int32, one_cycle computes a part in float32, in a run in float64, too.
        step = jnp.asarray(step, float)
        if name == "cosine":
            return optax.cosine_decay_schedule(peak, steps)(step)
        if name == "one_cycle":
            # Its rise must have a step of its own, which a run of one or two steps lacks.
            return optax.cosine_onecycle_schedule(max(steps, 4), peak)(step)
        # "step". In a run of one step both would be before the first step: no drop there.
        drops = {at: 0.1 for at in (steps // 2, steps * 3 // 4) if at > 0}
        return optax.piecewise_constant_schedule(peak, drops)(step)

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
      name: "sgd" or "rmsprop", whose weight decay is added to the gradient (the L2 penalty of
        Keras and PyTorch), or "adam" or "muon", which decouple it (Loshchilov and Hutter 2019); or
        a transformation of optax's, or a function of the learning rate that makes one.
      learning_rate: A number or a schedule.
      momentum: The momentum of sgd; 0 for none.
      nesterov: Whether sgd uses Nesterov's momentum.
      weight_decay: The factor of every parameter in its decay.
    """
    if not isinstance(name, str):
        rule = name if isinstance(name, optax.GradientTransformation) else name(learning_rate)
        if not isinstance(rule, optax.GradientTransformation):
            got = type(rule).__name__
            raise UserError(f"optimizer: expected a transformation of optax's, got {got}")
        return rule
    if name == "adam":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    if name == "muon":
        return muon(learning_rate, weight_decay)
    if name == "sgd":
        rule = optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)
    elif name == "rmsprop":
        rule = optax.rmsprop(learning_rate, decay=RMSPROP_DECAY, eps=RMSPROP_EPSILON)
    else:
        raise UserError(f"optimizer: expected sgd, rmsprop, adam or muon, got {name!r}")
    return optax.chain(optax.add_decayed_weights(weight_decay), rule) if weight_decay else rule
