"""The learning-rate range test: finds a learning rate to begin with, in a hundred steps.

The rate grows from step to step by a constant factor. The loss falls, fastest at some rate, and
explodes at a larger one. Source: Smith 2017, "Cyclical Learning Rates for Training Neural
Networks", section 3.3.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.signal import lfilter
from tqdm import tqdm

from jaxnets.base.bar import progress_bar
from jaxnets.base.display import columns, show
from jaxnets.base.errors import UserError
from jaxnets.base.language import _
from jaxnets.config.command import CommandResult
from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset
from jaxnets.drawing.charts import Caption, Guides, Line, Scale, Series, curves
from jaxnets.drawing.svg import Figure
from jaxnets.experiment import Experiment
from jaxnets.metrics import Sums
from jaxnets.models.batch_norm import statistics_of
from jaxnets.runs.request import request
from jaxnets.training.loop import NonFiniteLossError
from jaxnets.training.observer import Observer
from jaxnets.training.optimizer import optimizer_of
from jaxnets.training.step import Checkpoint

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100  # The learning rates of the command, and its steps.
SMOOTHING = 0.9  # The share of the earlier mean in the mean after a step.
EXPLODED = 4.0  # The test ends at this many times the lowest loss.
HALF = 5  # Half of the steps over which a slope is taken.
FIRST = 5  # The first steps say more about the batch than about the rate.
WIDTH, HEIGHT = 64, 12  # Characters of the curve in a terminal.


class _Exploded(Exception):
    """The loss has exploded: larger rates say nothing more."""


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The loss of each step, by the step's learning rate."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> np.ndarray:
        """The losses' exponential mean, corrected for its start: m_t / (1 - β^t), as in Adam."""
        means = lfilter([1 - SMOOTHING], [1, -SMOOTHING], self.losses)
        return np.asarray(means) / (1 - SMOOTHING ** np.arange(1, len(self.losses) + 1))

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[FIRST + int(self.smoothed[FIRST:].argmin())]

    @property
    def steepest(self) -> float:
        """The rate, below the lowest, at which the smoothed loss falls fastest with log(rate).

        A slope is taken over 2 HALF steps, because the slopes of single steps are noise.
        """
        smoothed, start, end = self.smoothed, FIRST + HALF, self.rates.index(self.lowest) + 1 - HALF
        if start >= end:
            return self.lowest
        slopes = smoothed[start + HALF : end + HALF] - smoothed[start - HALF : end - HALF]
        return self.rates[start + int(slopes.argmin())]


def find(given: dict[str, Any]) -> "Suggestion":
    """The `range_test` of the config that flags ask for; notes of the config go to stderr."""
    config, data, notes = request(given)
    for note in notes:
        show(note, sys.stderr)
    return Suggestion(range_test(config, data, LOWEST, HIGHEST, STEPS), config)


def range_test(
    config: Config, data: Dataset, lowest: float, highest: float, steps: int
) -> RangeTest:
    """Takes training steps with learning rates from `lowest` to `highest`, evenly on a log scale.

    It ends earlier if the loss explodes.

    Args:
      config: The network and its training; its learning rate and schedule are not used.
      data: Only its training images are used.
      lowest: The first step's learning rate, above 0.
      highest: The last step's.
      steps: The number of steps, at least 20.

    Raises:
      UserError: No step after the first ones gave a finite loss.
    """
    gradients = "manual" if config.gradients == "both" else config.gradients
    unwatched: dict[str, Any] = dict(early_stopping=None, stop_at_target=False, clean_epochs=0)
    config = dataclasses.replace(config, schedule="constant", gradients=gradients, **unwatched)
    data = dataclasses.replace(data, validation=data.train[:0])
    experiment = Experiment.create(config, data)
    config = dataclasses.replace(config, epochs=math.ceil(steps / experiment.loader.steps))

    def schedule(count: Any) -> Any:
        return lowest * (highest / lowest) ** (jnp.asarray(count, float) / (steps - 1))

    rule = optimizer_of(config, schedule, statistics_of(experiment.model))
    experiment = dataclasses.replace(experiment, config=config, schedule=schedule, optimizer=rule)
    rates = tuple(np.geomspace(lowest, highest, steps).tolist())
    with progress_bar(steps, unit="step") as bar:
        watch = _LossRecorder(rates, bar)
        try:
            for _epoch in experiment.epochs(Checkpoint(experiment.init_state()), [watch]):
                pass
        except (_Exploded, NonFiniteLossError):
            pass
    losses = watch.losses
    if len(losses) <= FIRST + 1:
        raise UserError(
            "expected a learning rate at which the loss stays finite for {} steps, got {}",
            FIRST + 2,
            f"{lowest:g}",
        )
    return RangeTest(rates[: len(losses)], tuple(losses))


class _LossRecorder(Observer):
    """Notes the loss of each step, until it explodes."""

    sees_every_step = True  # An epoch is never one compiled loop.

    def __init__(self, rates: tuple[float, ...], bar: tqdm):
        self._rates, self._bar = rates, bar
        self._before: Sums | None = None
        self.losses: list[float] = []

    def on_steps_end(self, count: int, metrics: Sums) -> None:
        """Notes what one step adds to the sums of its epoch."""
        goes_on = self._before is not None and int(metrics.count) > count
        before = float(self._before.loss_sum) if self._before and goes_on else 0.0
        self._before = metrics
        self.losses.append((float(metrics.loss_sum) - before) / count)
        self._bar.update()
        found = RangeTest(self._rates[: len(self.losses)], tuple(self.losses))
        has_exploded = found.smoothed[-1] > EXPLODED * found.smoothed.min()
        enough = len(self.losses) > 2 * FIRST
        if len(self.losses) == len(self._rates) or (enough and has_exploded):
            raise _Exploded


@dataclasses.dataclass(frozen=True)
class Suggestion(CommandResult):
    """The learning rates that a range test suggests for a config."""

    found: RangeTest
    config: Config

    @property
    def sentence(self) -> str:
        """The sentence that names the rates."""
        found, config = self.found, self.config
        rounded = [f"{float(f'{rate:.1g}'):g}" for rate in (found.steepest, found.lowest)]
        rates = _(" to ").join(dict.fromkeys(rounded))
        return _(
            "The loss falls fastest at a learning rate of {} and is lowest at {}: try "
            "--learning_rate={}. The recipe of {} has {} with {}, schedule {}.",
            f"{found.steepest:.2g}",
            f"{found.lowest:.2g}",
            rates,
            config.model,
            f"{config.learning_rate:g}",
            config.optimizer,
            config.schedule,
        )

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        found, config = self.found, self.config
        return {
            "model": config.model,
            "optimizer": config.optimizer,
            "learning_rates": list(found.rates),
            "losses": list(found.losses),
            "smoothed": found.smoothed.tolist(),
            "steepest": found.steepest,
            "lowest": found.lowest,
        }

    def text(self) -> str:
        """The curve, and what it suggests."""
        return "\n".join([*_curve(self.found), "", self.sentence])


def plot(suggested: Suggestion) -> Figure:
    """Draws the losses over the learning rates, and marks the two that are suggested."""
    found, config = suggested.found, suggested.config
    # An explosion would flatten the curves: losses much higher than the start are cut.
    top = max(1.1 * found.smoothed[0], 1.1 * np.median(found.smoothed), 1.05 * min(found.losses))
    rates = {found.steepest: _("falls fastest"), found.lowest: _("lowest")}
    title = _("{}: training loss by learning rate", config.model)
    return curves(
        Caption("lr_find", title, suggested.sentence),
        [
            Series(name, found.rates, [min(loss, top) for loss in losses], 0, faint)
            for name, losses, faint in (
                (_("each step"), found.losses, True),
                (_("smoothed"), found.smoothed.tolist(), False),
            )
        ],
        x=Scale(_("learning rate"), log=True),
        guides=Guides(marks=[Line(f"{name}: {rate:.2g}", rate) for rate, name in rates.items()]),
    )


def _curve(found: RangeTest) -> Iterator[str]:
    """The smoothed loss over the rates, drawn in characters."""
    width = min(WIDTH, columns(sys.stdout) - 12)
    places = np.linspace(0, len(found.rates) - 1, width).round().astype(int)
    # An explosion would flatten the curve: losses higher than the start are cut.
    top, low = found.smoothed[: 2 * FIRST].max(), found.smoothed.min()
    heights = np.minimum(found.smoothed[places], top)
    rows = np.round((heights - low) / max(top - low, 1e-12) * (HEIGHT - 1)).astype(int)
    for row in reversed(range(HEIGHT)):
        label = {HEIGHT - 1: f"{top:.3g}", 0: f"{low:.3g}"}.get(row, "")
        yield f"{label:>8} |" + "".join("*" if at == row else " " for at in rows).rstrip()
    yield " " * 9 + "+" + "-" * width
    first, last = f"{found.rates[0]:.1g}", f"{found.rates[-1]:.1g}"
    yield " " * 10 + first + last.rjust(width - len(first)) + "  " + _("learning rate")
