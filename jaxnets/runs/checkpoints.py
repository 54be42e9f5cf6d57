"""The library that writes checkpoints, as a run folder wants it: silent, patient, in one line."""

import contextlib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxnets.runs import untrusted

ITEM = "default"  # The library's name of the folder of a checkpoint's one tree.

# Seconds until it gives up a save. It looks at the wall clock, which may say a year later after a
# laptop's sleep, or when it is set.
SAVE_TIMEOUT = 10**9


class RetentionPolicy:
    """Which checkpoints stay: the last ones, and that of the best validation accuracy."""

    def __init__(self, keep: int, records: Callable[[], list[dict[str, Any]]]):
        """Keeps so many, and the best by what the epochs' records say by then."""
        self._keep, self._records = keep, records

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each of the checkpoints, in the order of their steps, stays."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        scores = {r["step"]: r["validation_accuracy"] for r in self._records()}
        known = [step for step in steps if scores.get(step) is not None]
        best = max(known, key=lambda step: scores[step], default=None)
        return [step == best or step in steps[-self._keep :] for step in steps]


def open_manager(path: Path, kept: RetentionPolicy) -> Any:
    """The library's manager of a folder of checkpoints; it is imported only where it is used."""
    import orbax.checkpoint as ocp

    silence()
    alone = ocp.options.MultiprocessingOptions()
    if several := jax.process_count() > 1:  # The others neither write nor wait.
        here = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(here, {here}, f"process {here}")
        path.mkdir(exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=kept,
        multiprocessing_options=alone,
        create=not several,
        # Folders made in the background would be waited for by the wall clock, too.
        async_options=ocp.AsyncOptions(
            timeout_secs=SAVE_TIMEOUT, create_directories_asynchronously=False
        ),
    )
    # Named, lest it be guessed from what the newest checkpoint, perhaps damaged, holds.
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.CheckpointManager(path, options=options, item_handlers=handler)


def silence() -> None:
    """The library raises its errors; its logs and threads would print them again, at length."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = _print_unless_late


def _print_unless_late(unraisable: Any) -> None:
    """Prints what a thread could not raise, but not that a failed save finds its loop closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def saving_to(path: Path) -> Iterator[None]:
    """Turns what the library raises, a page of text, into an OSError of a line."""
    try:
        yield
    except Exception as error:
        number, reason = getattr(error, "errno", None), untrusted.first_line(error)
        for known in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
            if os.strerror(known) in str(error):
                number, reason = known, os.strerror(known)
        reason = f"cannot be saved: {reason}"
        raise OSError(number or errno.EIO, reason, str(path)) from error
