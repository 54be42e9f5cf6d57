"""The process in a sandbox that runs one submission: it is only asked for arrays.

Python gets this file's text as its program, since jaxnets is not in the sandbox. It reads a task
from stdin and answers on stdout: one line of JSON, then the arrays. What it answers may be forged;
only arrays that equal the right ones help.

The arguments are the user to become if it is root ("" for none), then the folders of packages.
"""

import contextlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any, BinaryIO

STARTED = b"started\n"  # The child has imported what it needs; the submission's time begins.


def main(user: str, *packages: str) -> None:
    """Runs the task on stdin and answers on stdout."""
    if user and os.getuid() == 0:  # Its last rights end with this.
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    sys.path[:0] = packages
    os.environ["JAX_PLATFORMS"] = "cpu"
    task = pickle.loads(sys.stdin.buffer.read())
    answer = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)  # What it prints is lost.
    for stream in range(3):
        os.dup2(null, stream)
    try:
        calls, run_source = prepare(task)
    except Exception as error:
        answer.write(f"{type(error).__name__}: {error}".encode())
        raise
    answer.write(STARTED)
    answer.flush()
    found = run_source(task["source"], "submission", task["name"], calls)
    write(answer, found)
    os._exit(0)


def prepare(task: dict[str, Any]) -> tuple[list[Any], Any]:
    """Imports what the submission needs, sets its limits; the calls, and what makes them."""
    sys.meta_path.insert(0, Sources(task["sources"]))

    import numpy as np

    from jaxnets.course.exercises import passes
    from jaxnets.language import speak

    speak(task["texts"])
    for module in task["sources"]:
        importlib.import_module(module)
    calls = [getattr(passes, task["kind"])(*call) for call in task["calls"]]
    # JAX loads the rest of itself and starts its threads at the first program.
    first = passes.Call("float64", np.ones(2), np.ones(2), {}, ())
    list(passes.gradients_of(lambda cache, d_out: cache, [first]))
    with contextlib.suppress(ImportError):  # Windows has no limits.
        limit(task["seconds"], task["memory"], task["threads"])
    return calls, passes.run_source


class Sources(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports modules that came with the task, and empty packages around them."""

    def __init__(self, sources: dict[str, str]):
        self.sources = sources

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if any(f"{module}.".startswith(f"{name}.") for module in self.sources):
            return importlib.util.spec_from_loader(name, self, is_package=name not in self.sources)
        return None

    def exec_module(self, module: Any) -> None:
        source = self.sources.get(module.__name__, "")
        exec(compile(source, module.__name__, "exec"), module.__dict__)


def limit(seconds: int, memory: int, threads: int | None) -> None:
    """Limits what this process takes from now on.

    Args:
      seconds: Processor time.
      memory: Address space beyond what is in use, in bytes.
      threads: Threads beyond those that run; None where the user's other processes count too.
    """
    import resource

    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    limits = {
        resource.RLIMIT_CPU: int(used) + 1 + seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 256,
    }
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
        if threads is not None:
            limits[resource.RLIMIT_NPROC] = len(os.listdir("/proc/self/task")) + threads
    for which, value in limits.items():
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def write(answer: BinaryIO, found: Any) -> None:
    """Writes arrays, or the reason why there are none."""
    if isinstance(found, str):
        answer.write(json.dumps({"reason": found}).encode() + b"\n")
    else:
        shapes = [{name: array.shape for name, array in row.items()} for row in found]
        answer.write(json.dumps({"shapes": shapes}).encode() + b"\n")
        for row in found:
            for array in row.values():
                answer.write(array.astype("<f8").tobytes())
    answer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
