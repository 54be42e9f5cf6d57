"""A Ray cluster of several nodes on this machine, for tests and benchmarks.

cluster.py N    prints the address; then does each line of stdin (`node 1`, `worker 0`, `count 0`)

It is a process of its own: Ray forks and leaves files open, of which pytest and JAX would warn.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

WORKER = b"ray::_attempt"  # How Ray names the process of one of our tasks.
TRIES = 5  # A busy machine starts a node too slowly for Ray.


class Loopback:
    """A running cluster: nodes of one CPU each, beside a head that trains nothing."""

    def __init__(self, process: Any):
        self._process = process
        self.address: str = self._answer()

    def replace_node(self, number: int) -> bool:
        """Kills a node with all its processes, and adds another."""
        return self._ask("node", number)

    def kill_worker(self, number: int) -> bool:
        """Kills a process that is training; whether there was one."""
        return self._ask("worker", number)

    def is_training(self) -> bool:
        """Whether a process is training."""
        return self._ask("count", 0)

    def _ask(self, what: str, number: int) -> bool:
        print(what, number, file=self._process.stdin, flush=True)
        return self._answer() == "True"

    def _answer(self) -> str:
        for line in self._process.stdout:  # Ray may print others.
            if line.startswith("answer: "):
                return line.split()[1]
        raise RuntimeError("the cluster has ended")


@contextlib.contextmanager
def loopback(nodes: int = 3) -> Generator[Loopback]:
    """Starts a cluster for a block."""
    command = [sys.executable, __file__, str(nodes)]
    pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **pipes) as process:
        yield Loopback(process)  # The end of its stdin ends it.


def main(count: int) -> None:
    """Runs a cluster until the end of stdin."""
    os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    cluster: Any = Cluster()

    def add(**options: Any) -> Any:
        for number in range(TRIES):
            try:
                return cluster.add_node(**options)
            except Exception:  # Ray's is of no better kind.
                if number == TRIES - 1:
                    raise

    add(num_cpus=0)  # The head.
    nodes = [add(num_cpus=1) for _ in range(count)]
    print("answer:", cluster.address, flush=True)
    for line in sys.stdin:
        what, number = line.split()[0], int(line.split()[1])
        training = workers({node.all_processes["raylet"][0].process.pid for node in nodes})
        if what == "node":
            cluster.remove_node(nodes[number], allow_graceful=False)
            nodes[number] = add(num_cpus=1)
        elif what == "worker" and training:
            with contextlib.suppress(ProcessLookupError):
                os.kill(training[number % len(training)], signal.SIGKILL)
        print("answer:", what == "node" or bool(training), flush=True)
    cluster.shutdown()


def workers(raylets: set[int]) -> list[int]:
    """The processes of these nodes that are training a task now."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # It has ended.
            parent = int(status.read_text().partition("PPid:")[2].split()[0])
            if parent in raylets and status.with_name("cmdline").read_bytes().startswith(WORKER):
                found.append(int(status.parent.name))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
