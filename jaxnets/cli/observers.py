"""The observers of a command-line run: bar and lines, trackers, and the report at the end."""

import contextlib
from collections.abc import Iterator

from jaxnets.runs.progress import Progress
from jaxnets.runs.run import Run
from jaxnets.tracking.trackers import trackers_of
from jaxnets.training.observer import Observer


@contextlib.contextmanager
def observers_of(run: Run, lines: type[Progress] = Progress) -> Iterator[list[Observer]]:
    """The observers that a run's config asks for; when the run has ended, its report is written.

    Args:
      run: The run, not trained yet.
      lines: Prints a line for each epoch and one for the test; its bar shows the progress in
        between.
    """
    with trackers_of(run) as trackers:
        yield [lines(run.config.epochs, run.experiment.loader), *trackers]
    if run.config.report and run.processes.is_first:
        from jaxnets.report.build import write_into  # It would cost each start half a second.

        write_into(run.folder.path)
