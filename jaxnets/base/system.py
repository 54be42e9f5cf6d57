"""What the operating system provides: a folder for the cache, and the cores."""

import os
from pathlib import Path

from jaxnets.base.errors import UserError


def cache_folder(name: str = "") -> Path:
    """The folder of that name in the user's cache: below XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):  # As in a container that runs under an unknown uid.
        raise UserError("cache: this user has no home folder; set HOME or XDG_CACHE_HOME")
    return Path(cache) / "jaxnets" / name


def num_cores() -> int:
    """The number of cores that this process may use, which is the number of XLA's threads."""
    if (threads := os.environ.get("NPROC", "")).isdecimal():  # XLA heeds it.
        return max(1, int(threads))
    if hasattr(os, "sched_getaffinity"):  # On Linux: taskset, SLURM or a container may limit them.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
