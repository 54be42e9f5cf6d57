"""The processes of one run, which JAX's runtime connects through its coordinator, in process 0.

The coordinator trusts every client, so it listens on no other address than --coordinator: one
of a private network (docs/clusters.md).
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxnets.base.display import show
from jaxnets.base.errors import UserError, first_line
from jaxnets.machine.platform import Processes

JOIN_SECONDS = 30


@contextlib.contextmanager
def connected(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Generator[None]:
    """Connects this process to the others while the context lasts; enter it before JAX starts.

    Without a coordinator (HOST:PORT of process 0), JAX finds all three on a TPU pod and under
    SLURM, Open MPI or Kubernetes.
    """
    if sys.platform == "win32":
        raise UserError("distributed: expected Linux or macOS, where JAX connects processes")
    detection = None  # JAX finds them.
    if coordinator and num_processes and process_id is not None:
        if process_id == 0:
            _assert_can_listen(coordinator)
        _say_who_is_awaited(coordinator, num_processes, process_id)
        detection = "deactivate"  # Else JAX keeps one GPU a process under SLURM.
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method=detection,
            coordinator_bind_address=coordinator,
            initialization_timeout=JOIN_SECONDS,
        )
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        if coordinator is None:
            raise UserError(
                "distributed: JAX finds no TPU pod, SLURM, Open MPI or Kubernetes here; "
                "expected --coordinator, --num_processes and --process_id ({})",
                first_line(error),
            ) from None
        raise UserError(
            "coordinator: JAX cannot connect to {}: {}", coordinator, first_line(error)
        ) from None
    yield
    jax.distributed.shutdown()  # Waits for the others.


def _assert_can_listen(coordinator: str) -> None:
    """Only process 0 listens on the coordinator's address; JAX would share a used port."""
    reason = "it means all addresses"
    host, _, port = coordinator.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        if address[0] not in ("0.0.0.0", "::"):
            socket.create_server(address, family=family).close()
            return
    except OSError as error:
        reason = error.strerror
    raise UserError(
        "coordinator: cannot listen on {} ({}): expected an address of the machine of "
        "process 0 and a free port",
        coordinator,
        reason,
    )


def _say_who_is_awaited(coordinator: str, count: int, number: int) -> None:
    """Prints which processes this one waits for, and until when at the latest."""
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + JOIN_SECONDS))
    whom = f"process 0 at {coordinator}"
    if number == 0:
        others = "process 1" if count == 2 else f"processes 1 to {count - 1}"
        whom = f"{others} to come to {coordinator}"
    if count > 1:
        show(f"note: process {number} of {count} waits for {whom} until {until}", sys.stderr)


class ConnectedProcesses(Processes):
    """The exchange of values between several processes; every process makes the same calls.

    The first one prints and writes the run folder.
    """

    # JAX has its own handler of SIGTERM, which tells the other processes.
    signals = (signal.SIGINT,)

    def __init__(self):
        self.is_first = jax.process_index() == 0
        self._steps = itertools.count()
        if not self.is_first:  # Process 0 prints for all; each prints its own errors, no bars.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            sys.stderr.isatty = lambda: False

    def assert_equal(self, values: dict[str, Any]) -> None:
        """Raises UserError on all processes if their values, which JSON must hold, differ."""
        every = _gathered(values)
        for field in sorted({field for values in every for field in values}):
            for process, values in enumerate(every):
                if values.get(field) != every[0].get(field):
                    raise UserError(
                        "{}: expected the same on all processes, process 0 has {}, process {} {}",
                        field,
                        every[0].get(field),
                        process,
                        values.get(field),
                    )

    def broadcast_json(self, value: Callable[[], Any]) -> Any:
        """Process 0's value on every process; only process 0 calls the function that makes it."""
        return _gathered(value() if self.is_first else None)[0]

    def broadcast_arrays(self, tree: Any, like: Any) -> Any:
        """Process 0's tree of arrays, of the form of `like`, on every process, bit for bit."""

        def broadcast(array: Any, like: Any) -> np.ndarray:
            # As bytes: without 64 bits JAX would round, and it adds zeros: -0 + 0 is 0.
            sent = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
            return received.view(like.dtype).reshape(like.shape)

        like = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), leaf.dtype), like)
        return jax.tree.map(broadcast, tree if self.is_first else like, like)

    def synchronised_stop(self, stop: Callable[[], int]) -> Callable[[], int]:
        """Returns a function like `stop` that gives all processes the same answer before a step."""
        told = False

        def stop_of_all() -> int:
            nonlocal told
            number = stop()
            if number and not told:
                told = True
                signal.raise_signal(signal.SIGTERM)
            reached = multihost_utils.reached_preemption_sync_point(next(self._steps))
            return (number or signal.SIGTERM) if reached else 0

        return stop_of_all


def _gathered(value: object) -> list[Any]:
    """Every process's value, which JSON can hold, in the order of the processes."""
    text = np.frombuffer(json.dumps(value, default=str).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.array(len(text))))
    sent = np.zeros(sizes.max(), np.uint8)
    sent[: len(text)] = text
    rows = np.reshape(multihost_utils.process_allgather(sent), (len(sizes), -1))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
