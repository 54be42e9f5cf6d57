"""Trains a run as its flags ask: with its bar and lines, its trackers, its checks, its report."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.layer_check import judge_own_layers
from jaxnets.gradcheck.oracle import with_gradient_check
from jaxnets.runs.progress import Progress
from jaxnets.runs.run import Run
from jaxnets.tracking.trackers import trackers_of
from jaxnets.training.observer import Observer


def train_run(
    flags: Mapping[str, Any],
    *,
    lines: Callable[[Run], type[Progress]] = lambda run: Progress,
    around: Callable[[Run], AbstractContextManager[list[Observer]]] | None = None,
    judge: Callable[[Experiment], None] = judge_own_layers,
    **opening: Any,
) -> Run:
    """Opens a run, says what it trains, trains it and tests it.

    `train.py` gives only the flags. `exercise train` and `replay` also say whose passes train, and
    what the terminal shows.

    Args:
      flags: Fields of Config.
      lines: The class that prints a line for each epoch and one for the test.
      around: What begins before the training and ends after its test; it gives more observers.
      judge: Raises an error if the experiment should not train.
      **opening: The other arguments of `Run.open`, which says what it raises.

    Returns:
      The run, whose folder holds the result.
    """
    with (
        Run.open(dict(flags), judge=judge, **opening) as run,
        _observers_of(run, lines(run)) as observers,
    ):
        print(run.headline, flush=True)  # The network, the data, the devices.
        with around(run) if around else contextlib.nullcontext([]) as more:
            run.train([*observers, *more])  # Trains, validates, logs, saves.
            run.finish([*observers, *more])  # Tests, writes result.json.
    return run


@contextlib.contextmanager
def _observers_of(run: Run, lines: type[Progress]) -> Iterator[list[Observer]]:
    """The observers that a run's config asks for; at the end, also of a failed run, its report."""
    with trackers_of(run) as trackers:
        watching = [lines(run.config.epochs, run.experiment.loader), *trackers]
        try:
            yield with_gradient_check(run.experiment, watching)
        except RunFailedError:
            with contextlib.suppress(UserError, RunFailedError, OSError):  # A full disk, say.
                _report(run)
            raise
    _report(run)


def _report(run: Run) -> None:
    """Writes report.html into the run's folder, if its config asks for it."""
    if run.config.report and run.processes.is_first:
        from jaxnets.report.build import write_into  # It would cost each start half a second.

        write_into(run.folder.path)
