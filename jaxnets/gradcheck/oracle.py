"""Compares gradients by hand with stock JAX's during training, for --gradients=both.

A gradient by hand in 8 binary digits differs from that of a float32 network for two reasons. Its
own rounding is small: below 1 %. But the forward pass also rounds, so a few ReLUs and max pools are
on the other side of their kinks, where the function has a different slope: the `cnn` then differs
by 69 % in one leaf. In float32 one such ReLU of `alexnet` makes 3 %. So stock JAX differentiates
the plain network in float32 at the numbers that the forward pass by hand gave. If these differ from
the plain layer's numbers by more than rounding, it does not follow them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rule import FindRule, LayerRule
from jaxnets.backprop.rules import branches_of, rule_of
from jaxnets.base.errors import RunFailedError
from jaxnets.base.trees import Params
from jaxnets.data.batches import Batch
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.errors import floor_of, recording_terms, relative_error
from jaxnets.losses import LOSSES
from jaxnets.metrics import Sums
from jaxnets.models.chain import Chain, Layer
from jaxnets.models.precision import with_precision
from jaxnets.training.observer import Observer
from jaxnets.training.step import TrainState, autodiff_loss_and_grad

CHECK_EVERY = 100  # Steps between two checks.
# The relative error at which a run ends.
GRADIENT_TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "bfloat16": 0.05, "mixed": 0.05}
# By how many units in the last place of the largest output a layer's output by hand may differ from
# the plain layer's. With more digits than bfloat16 has, Winograd's tiles round the most: by up to
# 327 units in 632 draws of wide layers, images and kernels (benchmarks/winograd.py --rounding). In
# float32 800 units are 9.5e-5: a forward pass that is wrong by less is below GRADIENT_TOLERANCE.
UNITS = {"bfloat16": 8, "float32": 800, "float64": 800}

Move = Callable[[jax.Array], jax.Array]  # Moves a layer's output to other numbers.


class Both(NamedTuple):
    """Two gradients of the same network, and the size of what they sum."""

    manual: Params  # By hand.
    automatic: Params  # Of stock JAX.
    terms: list[jax.Array]  # What `errors.recording_terms` records.


def both_loss_and_grads(
    model: Chain, trained: Chain, loss: str, precision: str, find_rule: FindRule = rule_of
) -> Callable[[Params, Batch, jax.Array], tuple[Sums, Both]]:
    """Returns f(params, batch, key) -> (Metrics, Both).

    Args:
      model: A chain of layers.
      trained: The same chain for the pass by hand, with kernels or without.
      loss: One of losses.LOSSES.
      precision: The precision in which stock JAX computes. If it has more digits than the model's,
        it shows the rounding of the gradients by hand.
      find_rule: Finds the rules of the pass by hand.
    """
    plain_model = with_precision(model, precision)

    def loss_and_grads(params: Params, batch: Batch, key: jax.Array) -> tuple[Sums, Both]:
        outputs: list[jax.Array] = []
        terms: list[jax.Array] = []

        def recording(layer: Layer) -> LayerRule | None:
            rule = find_rule(layer)
            if rule is None or layer is LOSSES[loss]:
                return rule

            def forward(*inputs: object, **static: object) -> tuple[jax.Array, Any]:
                out, cache = rule.forward(*inputs, **static)
                if rule.first_output:
                    outputs.append(_rounded(rule.first_output(*inputs, **static)))
                    return out, cache
                outputs.append(_rounded(out))
                return outputs[-1], cache

            return rule._replace(forward=forward)

        find = recording_terms(recording, terms)
        metrics, manual = manual_loss_and_grad(trained, loss, find)(params, batch, key)
        at_outputs = _at_outputs(plain_model, trained, iter(outputs), _unchanged)
        plain = autodiff_loss_and_grad(at_outputs.apply, LOSSES[loss])
        return metrics, Both(manual, plain(params, batch, key)[1], terms)

    return loss_and_grads


def _rounded(x: jax.Array) -> jax.Array:
    """The same numbers; otherwise XLA may keep more digits of x, and both passes see others."""
    wide, info = jnp.promote_types(x.dtype, jnp.float32), jnp.finfo(x.dtype)
    return lax.reduce_precision(x.astype(wide), info.nexp, info.nmant).astype(x.dtype)


def _at_outputs(model: Chain, trained: Chain, outputs: Iterator[jax.Array], at: Move) -> Chain:
    """The network whose functions without parameters, and whose loss, see these layers' outputs.

    Of the layers that one kernel computes, it sees only the outputs of the first and the last. `at`
    moves the network's input, which all branches of a layer of chains then see.
    """
    layers, before = [], None
    for layer, twin in zip(model.layers, trained.layers, strict=True):
        if branches := branches_of(layer):
            twins, block = branches_of(twin), cast(nn.Module, layer)
            moved: Any = {
                name: _at_outputs(inner, twins[name], outputs, at)
                for name, inner in branches.items()
            }
            layers.append(block.clone(**moved))
        else:
            layers.append(layer if isinstance(layer, nn.Module) else _after(at, layer))
        at = _moved_to(next(outputs)) if rule_of(layer) else _unchanged
        at = _unchanged if before and before.first_output else at
        before = rule_of(twin)
    return Chain([*layers, at])


def _unchanged(x: jax.Array) -> jax.Array:
    return x


def _after(first: Move, second: Callable[..., jax.Array]) -> Layer:
    return lambda x: second(first(x))


def _moved_to(output: jax.Array) -> Move:
    """A function that moves x to the output, as far as rounding allows, and differentiates as x.

    The output may lack the last rows and columns.
    """

    def move(x: jax.Array) -> jax.Array:
        part = tuple(map(slice, output.shape))
        units = UNITS[output.dtype.name]
        reach = units * float(jnp.finfo(output.dtype).eps) * jnp.max(jnp.abs(x))
        change = jnp.clip(output.astype(x.dtype) - x[part], -reach, reach)
        return x.at[part].add(lax.stop_gradient(change))

    return move


class GradientCheck(Observer):
    """Compares both gradients before a step, and ends the training if they disagree."""

    sees_every_step = compares_gradients = True

    def __init__(self, experiment: Experiment, observers: Sequence[Observer] = ()):
        """Compiles both gradients of an experiment.

        Args:
          experiment: The experiment that this observer is going to watch.
          observers: The observers that hear of every check.
        """
        precision, loss = experiment.config.precision, experiment.config.loss
        wide = "float64" if precision == "float64" else "float32"
        models = experiment.model, experiment.step_model
        both = both_loss_and_grads(*models, loss, wide, experiment.find_rule)
        self._both = experiment.gradient_step(both)
        self._tolerance = GRADIENT_TOLERANCE[precision]
        self._observers = observers
        self._precision = precision
        self._floor = 0.0  # The largest so far: once all is learned, gradients are only rounding.

    def before_step(self, step: int, state: TrainState, batch: Batch) -> None:
        """Compares both gradients of the next step, every CHECK_EVERY steps.

        Args:
          step: The number of steps done.
          state: The parameters, and the key of the dropped units.
          batch: The images and labels of the step.

        Raises:
          RunFailedError: They disagree.
        """
        if step % CHECK_EVERY:
            return
        metrics, (manual, automatic, terms) = jax.device_get(self._both(state, batch))
        if not np.isfinite(metrics.loss_sum):
            return  # The step itself ends the run, and says which layer was first.
        dtype = "bfloat16" if self._precision == "mixed" else self._precision
        floor = floor_of((automatic, terms), dtype, GRADIENT_TOLERANCE[self._precision])
        self._floor = max(self._floor, floor)
        error, leaf = relative_error(manual, automatic, self._floor)
        for observer in self._observers:
            observer.on_gradient_check(error)
        if not error <= self._tolerance:
            raise RunFailedError(
                "gradients disagree at step {}: relative error {} in {}, expected at most {}",
                step,
                f"{error:.1e}",
                leaf,
                f"{self._tolerance:.1e}",
            )


def with_gradient_check(experiment: Experiment, observers: Sequence[Observer]) -> list[Observer]:
    """The observers of a training, with a GradientCheck if its config has gradients="both"."""
    if experiment.config.gradients != "both":
        return list(observers)
    return [*observers, GradientCheck(experiment, observers)]
