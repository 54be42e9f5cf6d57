"""Runs one submission in a process of its own, and only returns arrays; it knows no answers.

The process has no package jaxnets: `given.sources_of` cuts this function and what it uses out of
it. The answer, in JSON on stdout, may be forged, but only arrays that equal the right ones pass.
"""

import json
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from jaxnets.base.language import speaking_texts
from jaxnets.course.exercises.autodiff import forbid_autodiff
from jaxnets.course.exercises.passes import Call, gradients_of, run_source
from jaxnets.course.exercises.sandbox import STARTED

if sys.platform != "win32":
    import resource


def main(content: bytes, user: str = "") -> None:
    """Runs a task and answers on stdout.

    Args:
      content: The task that `apart.task_of` has written.
      user: The number of the user to become; "" for none.
    """
    with suppress(OSError):  # If memory runs out, the kernel ends this process first.
        Path("/proc/self/oom_score_adj").write_text("1000", "utf-8")
    if user:  # The parent is root; this gives up its last rights.
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    task = pickle.loads(content)
    # With its first program, JAX loads the rest of itself and starts its threads.
    first = Call("float64", np.ones(2), np.ones(2), {}, ())
    list(gradients_of(lambda cache, d_out: cache, [first]))
    forbid_autodiff()
    limit(task["seconds"], task["memory"], task["processes"], writes=task["prints"])
    answer = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2 if task["prints"] else null, 1)
    if not task["prints"]:
        os.dup2(null, 2)
    answer.write(STARTED)
    answer.flush()
    with speaking_texts(task["texts"]):
        found = run_source(task["source"], "submission", task["name"], task["calls"])
    if isinstance(found, str):
        values = {"reason": found}
    else:
        values = [{name: array.tolist() for name, array in row.items()} for row in found]
    sys.stdout.flush()
    answer.write(json.dumps(values).encode())
    answer.flush()
    os._exit(0)  # Even if it has threads left.


def limit(seconds: int, memory: int, processes: int | None, *, writes: bool) -> None:
    """Limits what this process, and each process that it starts, uses from now on.

    Args:
      seconds: Processor time.
      memory: Address space beyond what is in use, in bytes.
      processes: Processes and threads beyond those that run; None where others also count.
      writes: Whether it may write to files, as where what it prints goes to one.
    """
    if sys.platform == "win32":  # Windows has no such limits.
        return
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    most = used + 1 + seconds
    limits = {
        resource.RLIMIT_CPU: (most, most + 1),  # A signal that says so; then the end.
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (256, 256),
    }
    if not writes:
        limits[resource.RLIMIT_FSIZE] = 0, 0
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
        most = pages * resource.getpagesize() + memory
        limits[resource.RLIMIT_AS] = most, most
        if processes is not None:
            most = len(os.listdir("/proc/self/task")) + processes
            limits[resource.RLIMIT_NPROC] = most, most
    for which, values in limits.items():
        _soft, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            values = min(values[0], hard), min(values[1], hard)
        resource.setrlimit(which, values)
