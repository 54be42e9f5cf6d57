"""The operating system's part: a folder for the cache, and limits of memory."""

import contextlib
import os
from pathlib import Path

from jaxnets.errors import RunFailedError, UserError


def cache_folder(name: str = "") -> Path:
    """The folder of that name in the user's cache: below XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):  # As in a container that runs under an unknown uid.
        raise UserError("cache: this user has no home folder; set HOME or XDG_CACHE_HOME")
    return Path(cache) / "jaxnets" / name


def num_cores() -> int:
    """The cores that this process may use, as many as XLA starts threads."""
    if (threads := os.environ.get("NPROC", "")).isdecimal():  # XLA heeds it.
        return max(1, int(threads))
    if hasattr(os, "sched_getaffinity"):  # On Linux: taskset, SLURM or a container may limit them.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limits() -> list[tuple[str, int, int]]:
    """The limits of this process's memory: a name, the limit, what JAX alone takes; in bytes.

    With less than that, JAX's imports and XLA's threads and compiler abort, or hang. Measured with
    an empty compilation cache (tests/stress/test_processes.py): the CNN takes 411 MB of RLIMIT_DATA
    on two cores, 1,448 on 16. RLIMIT_AS counts the libraries' 300 MB, too, a container only what
    was used.
    """
    try:
        import resource
    except ImportError:  # Windows has no limits.
        return []
    taken = 480 + 80 * num_cores()  # A core has seven threads, each with its stack.
    found = [
        ("ulimit -d", resource.getrlimit(resource.RLIMIT_DATA)[0], taken),
        ("ulimit -v", resource.getrlimit(resource.RLIMIT_AS)[0], taken + 340),
    ]
    for path in ("memory.max", "memory/memory.limit_in_bytes"):  # Version 2, version 1.
        with contextlib.suppress(OSError, ValueError), open(f"/sys/fs/cgroup/{path}") as file:
            found.append(("the container's", int(file.read()), 480))
    no_limit = 1 << 60
    return [(name, limit, least << 20) for name, limit, least in found if 0 <= limit < no_limit]


def check_memory(more: int = 0) -> None:
    """Raises RunFailedError where a limit is too low for JAX and so many bytes more."""
    for name, limit, least in memory_limits():
        if limit < least + more:
            raise RunFailedError(
                "not enough memory: expected about {} MB, got a limit of {} MB ({})",
                f"{least + more >> 20:,}",
                f"{limit >> 20:,}",
                name,
            )
