"""JAX's profiler around some steps of a run."""

import sys
from pathlib import Path

import jax

from jaxnets.display import one_line, short_path, show
from jaxnets.errors import first_line
from jaxnets.experiment import Experiment, prefers_scan
from jaxnets.metrics import Metrics, Sums
from jaxnets.training.observer import Observer
from jaxnets.training.step import Checkpoint

STEPS = 10  # Steps in a profile; of a network whose epoch is one compiled loop, one such loop.


class Profile(Observer):
    """Profiles some steps of a run, not the first, which is compiled."""

    def __init__(self, experiment: Experiment, folder: Path):
        self._experiment, self._folder = experiment, folder
        self._is_on, self._failed, self._calls = False, False, 0
        self._first, self._last = 1, 1 + STEPS

    def on_train_begin(self, start: Checkpoint) -> None:
        experiment, done = self._experiment, int(start.state.step)
        is_loop = experiment.config.gradients != "both" and prefers_scan(
            experiment.model, experiment.parallel
        )
        left = experiment.config.epochs * experiment.loader.steps - done
        self._first = 0 if is_loop and left <= experiment.loader.steps else 1  # The only loop.
        self._last = self._first + (1 if is_loop else STEPS)
        self._turn()

    def on_steps_end(self, count: int, metrics: Sums) -> None:
        self._calls += 1
        self._turn()

    def _turn(self) -> None:
        """Starts or stops the profiler where it is time for that."""
        try:
            if self._calls == self._first and not self._is_on:
                jax.profiler.start_trace(str(self._folder))
                self._is_on = True
            elif self._calls >= self._last and self._is_on:
                self._stop()
        except Exception as error:  # Another profiler runs, or the disk is full.
            self._failed = True
            show(one_line(f"warning: no profile: {first_line(error)}"), sys.stderr)

    def _stop(self) -> None:
        self._is_on = False
        jax.profiler.stop_trace()

    def on_finish(self, test: Metrics) -> None:
        if not self._failed:
            where = short_path(str(self._folder))
            show(f"profile: tensorboard --logdir={where} (docs/tracking.md says how to open it)")

    def on_train_end(self) -> None:
        if self._is_on:  # The run ended before.
            self._last = self._calls
            self._turn()
