"""JAX's profiler around some steps of a run."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import jax

from jaxnets.display import one_line, short_path, show
from jaxnets.errors import first_line
from jaxnets.experiment import Record, prefers_scan
from jaxnets.metrics import Metrics
from jaxnets.runs.run import Run

STEPS = 10  # Steps in a profile; of a network whose epoch is one compiled loop, one such loop.


class Profile(contextlib.AbstractContextManager):
    """The hook of a run that profiles some of its steps, not the first, which is compiled."""

    def __init__(self, run: Run, folder: Path):
        self._folder, self._is_on, self._failed = folder, False, False
        experiment, done = run.experiment, int(run.checkpoint.state.step)
        self._is_loop = experiment.config.gradients != "both" and prefers_scan(
            experiment.model, experiment.parallel
        )
        left = experiment.config.epochs * experiment.loader.steps - done
        only_one = self._is_loop and left <= experiment.loader.steps
        self._first, self._updates = (0 if only_one else 1), 0
        self._last = self._first + (1 if self._is_loop else STEPS)
        make_progress = run.progress

        def progress(*arguments: Any) -> Any:
            shown: Any = make_progress(*arguments)
            update = shown.update

            def counted(images: int, metrics: Metrics) -> None:
                update(images, metrics)
                self._updates += 1
                self._turn()

            shown.update = counted
            self._turn()
            return shown

        run.progress = progress

    def _turn(self) -> None:
        """Starts or stops the profiler where it is time for that."""
        try:
            if self._updates == self._first and not self._is_on:
                jax.profiler.start_trace(str(self._folder))
                self._is_on = True
            elif self._updates >= self._last and self._is_on:
                self._stop()
        except Exception as error:  # Another profiler runs, or the disk is full.
            self._failed = True
            show(one_line(f"warning: no profile: {first_line(error)}"), sys.stderr)

    def _stop(self) -> None:
        self._is_on = False
        jax.profiler.stop_trace()

    def epoch(self, record: Record) -> None:
        """Nothing: the profile counts steps."""

    def test(self, metrics: Metrics) -> None:
        if not self._failed:
            where = short_path(str(self._folder))
            show(f"profile: tensorboard --logdir={where} (docs/tracking.md says how to open it)")

    def __exit__(self, *exception) -> None:
        if self._is_on:  # The run ended before.
            self._last = self._updates
            self._turn()
