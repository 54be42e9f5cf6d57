"""The process in a sandbox that runs one submission, and only returns arrays.

It reads a task from stdin and answers on stdout, in JSON. The answer may be forged, but only
arrays that equal the right ones pass.
"""

import json
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np

from jaxnets.base.language import _, speaking
from jaxnets.course.exercises.files import AUTODIFF
from jaxnets.course.exercises.passes import Call, ResultError, gradients_of, run_source
from jaxnets.course.exercises.sandbox import STARTED

if sys.platform != "win32":
    import resource


def main(user: str = "") -> None:
    """Runs the task on stdin and answers on stdout.

    Args:
      user: The number of the user to become; "" for none.
    """
    with suppress(OSError):  # If memory runs out, the kernel ends this process first.
        Path("/proc/self/oom_score_adj").write_text("1000", "utf-8")
    if user:  # The parent is root; this gives up its last rights.
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    task = pickle.loads(sys.stdin.buffer.read())
    # With its first program, JAX loads the rest of itself and starts its threads.
    first = Call("float64", np.ones(2), np.ones(2), {}, ())
    list(gradients_of(lambda cache, d_out: cache, [first]))
    forbid_autodiff()
    limit(task["seconds"], task["memory"], task["processes"])
    answer = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)  # What it prints is lost.
    for stream in range(3):
        os.dup2(null, stream)
    answer.write(STARTED)
    answer.flush()
    with speaking(task["language"]):
        found = run_source(task["source"], "submission", task["name"], task["calls"])
    if isinstance(found, str):
        values = {"reason": found}
    else:
        values = [{name: array.tolist() for name, array in row.items()} for row in found]
    answer.write(json.dumps(values).encode())
    answer.flush()
    os._exit(0)  # Even if it has threads left.


def forbid_autodiff() -> None:
    """Makes JAX's differentiating functions raise an error, under each of their names."""

    def refuse(*_args: object, **_settings: object) -> None:
        how = _("differentiates")
        raise ResultError(_("it {} with JAX; a gradient by hand is derived without it", how))

    gone = {id(getattr(jax, name)) for name in AUTODIFF if hasattr(jax, name)}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in gone:
                setattr(module, name, refuse)


def limit(seconds: int, memory: int, processes: int | None) -> None:
    """Limits what this process, and each process that it starts, uses from now on.

    Args:
      seconds: Processor time.
      memory: Address space beyond what is in use, in bytes.
      processes: Processes and threads beyond those that run; None where others also count.
    """
    if sys.platform == "win32":  # Windows has no such limits.
        return
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    most = used + 1 + seconds
    limits = {
        resource.RLIMIT_CPU: (most, most + 1),  # A signal that says so; then the end.
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (256, 256),
    }
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


if __name__ == "__main__":
    main(*sys.argv[1:])
