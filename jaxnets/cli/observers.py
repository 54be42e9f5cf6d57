"""What watches a run of the command line: bar and lines, trackers, and the report at the end."""

import contextlib
from collections.abc import Iterator

from jaxnets.course import replay
from jaxnets.runs.run import Run
from jaxnets.tracking.trackers import trackers_of
from jaxnets.training.observer import Observer


@contextlib.contextmanager
def observers_of(run: Run) -> Iterator[list[Observer]]:
    """The observers that a run's config asks for; when the run has ended, its report is written."""
    with trackers_of(run) as trackers:
        yield [*replay.observers_of(run), *trackers]
    if run.config.report and run.processes.is_first:
        from jaxnets.report.build import write_into  # It would cost each start half a second.

        write_into(run.folder.path)
