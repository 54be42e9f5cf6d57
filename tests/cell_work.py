"""What test_cells.py lets processes do: it needs no JAX, so that one starts at once."""

import os
import signal
from typing import Any

from jaxnets.base.errors import UserError


def work(task: Any) -> Any:
    """Squares a number; other tasks end badly."""
    if task == "refused":
        raise UserError("expected a number")
    if isinstance(task, int):
        return task * task
    if task == "memory":
        raise MemoryError
    if task == "bug":
        raise ZeroDivisionError("ours")
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    try:  # A file: the first try ends here.
        os.close(os.open(task, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "again"
    os.kill(os.getpid(), signal.SIGKILL)
