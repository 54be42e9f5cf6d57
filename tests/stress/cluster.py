"""A Ray cluster of several nodes on this machine, for tests and benchmarks."""

import contextlib
import os
import signal
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112 (Ray's name)
WORKER = b"ray::_attempt"  # How Ray names the process of one of our tasks.


class Loopback:
    """Nodes of one CPU each, beside a head that trains nothing."""

    def __init__(self, nodes: int):
        from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

        with _forking():
            self._cluster: Any = Cluster(head_node_args=dict(num_cpus=0), initialize_head=True)
            self._nodes = [self._add() for _ in range(nodes)]
            self._cluster.wait_for_nodes()
        self.address: str = self._cluster.address

    def replace(self, number: int) -> None:
        """Kills a node with all its processes, and adds another."""
        with _forking():
            self._cluster.remove_node(self._nodes[number], allow_graceful=False)
            self._nodes[number] = self._add()

    def workers(self) -> list[int]:
        """The processes that are training a task now."""
        ours = {node.all_processes["raylet"][0].process.pid for node in self._nodes}
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # It has ended.
                parent = int(status.read_text().partition("PPid:")[2].split()[0])
                if parent in ours and status.with_name("cmdline").read_bytes().startswith(WORKER):
                    found.append(int(status.parent.name))
        return found

    def kill_worker(self, number: int) -> bool:
        """Kills a process that is training; whether there was one."""
        with contextlib.suppress(ProcessLookupError):
            if found := self.workers():
                os.kill(found[number % len(found)], signal.SIGKILL)
                return True
        return False

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1)


@contextlib.contextmanager
def loopback(nodes: int = 3) -> Generator[Loopback]:
    """Starts a cluster for a block."""
    cluster = Loopback(nodes)
    try:
        yield cluster
    finally:
        with _forking():
            cluster._cluster.shutdown()


@contextlib.contextmanager
def _forking() -> Generator[None]:
    """JAX warns of forks; these are replaced by Ray's programs at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
