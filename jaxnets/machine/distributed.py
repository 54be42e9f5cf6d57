"""The processes of one run: their messages to each other, and their common end.

JAX's runtime connects them through its coordinator, in process 0. The coordinator believes whoever
connects, so it listens on no other address than --coordinator: one of a private network
(docs/several-hosts.md). This file adds what JAX leaves to its users. A signal to one process stops
all before the same step. A process that fails or is lost ends the others, with a line that says
why. Texts travel through the coordinator's store of keys and values, also before JAX has devices;
arrays travel between devices.
"""

import atexit
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from jax._src import xla_bridge
from jax._src.distributed import global_state
from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]

from jaxnets.display import one_line, show
from jaxnets.errors import UserError, first_line, message_and_status
from jaxnets.machine.platform import Processes, versions

# Flags that may differ from process to process: only process 0's workdir counts, and the data are
# compared by their checksum.
OWN_FLAGS = ("process_id", "workdir", "data_dir")

JOIN_SECONDS = 30
# A process that sends no heartbeat for so long is lost. JAX looks twice in that time.
HEARTBEAT_SECONDS = 30
TICK_SECONDS = 0.25  # Seconds between two looks for messages.
LEAVE_SECONDS = 10  # Seconds in which the others can receive a failing process's message.
FOREVER = 10**9  # Milliseconds. A process that waits in vain is ended by its thread or by JAX.


@contextlib.contextmanager
def connected(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    flags: dict[str, Any],
) -> Generator["Connection"]:
    """Connects this process to the others while the context lasts; enter it before JAX starts.

    An error in one process ends all: the others print its message and exit with its status. All
    flags but OWN_FLAGS must be the same in all. Without a coordinator (HOST:PORT of process 0), JAX
    finds all three on a TPU pod and under SLURM, Open MPI or Kubernetes.
    """
    if coordinator and process_id == 0:
        _assert_can_listen(coordinator)
    connection = Connection(coordinator, num_processes, process_id)
    try:
        shared = {name: value for name, value in flags.items() if name not in OWN_FLAGS}
        connection.assert_equal("flags", {**versions(), **shared})
        yield connection
    except BaseException as error:
        connection.leave(error)
        raise
    connection.finish()


def _assert_can_listen(coordinator: str) -> None:
    """Process 0 alone listens on the coordinator's address; JAX would share a used port."""
    reason = "it stands for all addresses"
    try:
        family, _, _, _, address = _resolve(coordinator)
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


def _resolve(coordinator: str) -> tuple[Any, ...]:
    """The first entry of getaddrinfo for HOST:PORT or [HOST]:PORT."""
    host, _, port = coordinator.rpartition(":")
    return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]


def _say_who_is_awaited(coordinator: str, count: int, number: int) -> None:
    """Prints which processes this one waits for, and until when at the latest."""
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + JOIN_SECONDS))
    whom = f"process 0 at {coordinator}"
    if number == 0:
        others = "process 1" if count == 2 else f"processes 1 to {count - 1}"
        whom = f"{others} to come to {coordinator}"
    if count > 1:
        show(f"note: process {number} of {count} waits for {whom} until {until}", sys.stderr)


def parse_exit_message(received: str) -> tuple[str, int] | None:
    """The line and the exit status of another process; None if a run sends no such message."""
    try:
        text, status = json.loads(received)
    except (ValueError, TypeError, RecursionError):
        return None
    if isinstance(text, str) and type(status) is int and 1 <= status <= 255:
        return text, status
    return None


class Connection(Processes):
    """This process's connection to the others; every process makes the same calls.

    A call's `name` is used once in a run. The first process prints and writes the run folder. The
    client is JAX's, of the coordinator: the store of keys and values, and barriers.
    """

    def __init__(self, coordinator: str | None, num_processes: int | None, process_id: int | None):
        self._exit_lock = threading.Lock()  # Taken by the thread that ends the process.
        self._exit_barrier_lock = threading.Lock()  # Taken by the one that waits for the others.
        self._has_failed = False
        self._stops: list[SynchronisedStop] = []
        self._finished = threading.Event()
        self._exit_message = (
            f"coordinator: not all {num_processes or 'processes'} joined at "
            f"{coordinator or 'the address that JAX found'} within {JOIN_SECONDS} s: expected one "
            "at work on each process_id, and process 0 to be reachable",
            2,
        )
        self._exit_in_one_line_on_abort()
        self._start_jax(coordinator, num_processes, process_id)
        # JAX has no public name for the process's number, if it found it, nor for its client.
        self.client: Any = global_state.client
        self.process_id = global_state.process_id
        self.is_first = self.process_id == 0
        self._exit_message = (
            "another process was lost: this one has heard nothing from it, or from process 0, "
            f"for {HEARTBEAT_SECONDS} s or their connection broke; the last checkpoint is kept, "
            "--resume --workdir=DIR continues from it",
            1,
        )
        if not self.is_first:  # Process 0 prints for all; each prints its own errors, no bars.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            sys.stderr.isatty = lambda: False
        threading.Thread(target=self._watch, daemon=True, name="other processes").start()

    def _start_jax(
        self, coordinator: str | None, num_processes: int | None, process_id: int | None
    ) -> None:
        detection = None  # JAX finds a TPU pod, SLURM, Open MPI or Kubernetes.
        if coordinator and num_processes and process_id is not None:
            _say_who_is_awaited(coordinator, num_processes, process_id)
            detection = "deactivate"  # Else JAX keeps one GPU a process under SLURM.
        with contextlib.suppress(AttributeError):  # Else JAX handles SIGTERM itself.
            jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                cluster_detection_method=detection,
                coordinator_bind_address=coordinator,
                initialization_timeout=JOIN_SECONDS - 5,  # It takes five more.
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            if "must be called before" in str(error):
                raise UserError("distributed: {}", error) from None
            if coordinator is None and global_state.client is None:
                raise UserError(
                    "distributed: JAX finds no TPU pod, SLURM, Open MPI or Kubernetes here; "
                    "expected --coordinator, --num_processes and --process_id ({})",
                    first_line(error),
                ) from None
            raise UserError("{} ({})", self._exit_message[0], first_line(error)) from None
        if jax.config.values["jax_cpu_collectives_implementation"] == "gloo":
            xla_bridge.register_backend_factory("cpu", _cpu_client, fail_quietly=False)

    def assert_equal(self, name: str, values: dict[str, Any]) -> None:
        """Raises UserError on all processes if their values, which JSON must hold, differ."""
        every = [json.loads(text) for text in self.gather(name, json.dumps(values))]
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

    def gather(self, name: str, text: str) -> list[str]:
        """Every process's text, in the order of the processes."""
        self.client.key_value_set(f"jaxnets/{name}/{self.process_id:06}", text)
        self.client.wait_at_barrier(f"jaxnets/{name}", FOREVER)
        return [text for _, text in sorted(self.client.key_value_dir_get(f"jaxnets/{name}/"))]

    def broadcast_json(self, name: str, value: Callable[[], Any]) -> Any:
        """Process 0's value on every process; only process 0 calls the function that makes it."""
        key = f"jaxnets/{name}"
        if not self.is_first:
            return json.loads(self.client.blocking_key_value_get(key, FOREVER))
        found = value()
        self.client.key_value_set(key, json.dumps(found, default=str))
        return found

    def broadcast_arrays(self, tree: Any, like: Any) -> Any:
        """Process 0's tree of arrays, of the form of `like`, on every process, bit for bit."""
        from jax.experimental import multihost_utils

        def broadcast(array: Any, like: Any) -> np.ndarray:
            # As bytes: without 64 bits JAX would round, and it adds zeros: -0 + 0 is 0.
            sent = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
            return received.view(like.dtype).reshape(like.shape)

        like = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), leaf.dtype), like)
        return jax.tree.map(broadcast, tree if self.is_first else like, like)

    def synchronised_stop(self, stop: Callable[[], int]) -> Callable[[], int]:
        """Returns a function like `stop` that answers on all processes the same before a step."""
        self._stops.append(SynchronisedStop(self, stop, f"stop/{len(self._stops)}"))
        return self._stops[-1]

    def finish(self) -> None:
        """Waits for the others and disconnects."""
        self.client.wait_at_barrier("jaxnets/finished", FOREVER)
        self._finished.set()
        jax.distributed.shutdown()

    def leave(self, error: BaseException) -> None:
        """Sends this process's error to the others; Python then exits without JAX, which waits."""
        # Where a step fails, but not for memory, another process was lost. It may have said why.
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            deadline = time.monotonic() + 3
            while (received := self._received()) is None and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
            self._exit_message = received or self._exit_message
            self._exit()
        text, status = message_and_status(error) or (f"{type(error).__name__}: {error}", 1)
        # Printed if JAX aborts meanwhile.
        self._has_failed, self._exit_message = True, (text, status)
        message = json.dumps([f"process {self.process_id} ended: {text}", status])
        with contextlib.suppress(Exception):
            self.client.key_value_set(f"jaxnets/ended/{self.process_id:06}", message)
        self._exit_barrier()
        if not self._exit_lock.acquire(blocking=False):
            time.sleep(LEAVE_SECONDS)  # Another thread is ending the process.
        atexit.register(_exit_now, status)

    def _watch(self) -> None:
        """Looks for signals and for other processes' exit messages, in a thread of its own."""
        while not self._finished.wait(TICK_SECONDS):
            if (received := self._received()) is not None:
                if not self._has_failed:
                    self._exit_message = received
                time.sleep(LEAVE_SECONDS / 4)  # If all fail alike, each main thread exits itself.
                self._exit_barrier()
                time.sleep(LEAVE_SECONDS)  # Or the main thread sees that the other has gone.
                self._exit()
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # JAX finds out who is lost.
                if self._stops:
                    self._stops[-1].look()

    def _received(self) -> tuple[str, int] | None:
        """The exit message of another process, if one has ended."""
        with contextlib.suppress(Exception):  # The store may be lost with process 0.
            for key, text in sorted(self.client.key_value_dir_get("jaxnets/ended/")):
                message = parse_exit_message(text)
                if message is not None and not key.endswith(f"/{self.process_id:06}"):
                    return message
        return None

    def _exit_barrier(self) -> None:
        """Waits until every process knows of the end, for some seconds at most."""
        if self._exit_barrier_lock.acquire(blocking=False):
            with contextlib.suppress(Exception):
                self.client.wait_at_barrier("jaxnets/ended", 1000 * LEAVE_SECONDS)

    def _exit(self) -> None:
        """Ends the process from any thread, with one line even if several threads end it."""
        text, status = self._exit_message
        if self._exit_lock.acquire(blocking=False):
            print(f"error: {one_line(str(text))}", file=sys.stderr)
        else:
            time.sleep(LEAVE_SECONDS)  # Another thread is ending the process.
        _exit_now(status)

    def _exit_in_one_line_on_abort(self) -> None:
        """Prints one line where JAX, having lost another process, prints a page and aborts.

        JAX raises no exception then, and a callback in Python gets what cannot be converted
        (jaxlib 0.10.2, 0.12.0). So the abort's signal is caught, in C: in the thread that raised it
        no Python runs any more. Versions before 0.10 exit without a signal, after their page.
        """
        if os.name != "posix" or jax.__version_info__ < (0, 10):
            return
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: self._exit())
        ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":  # 0 asks for every line of the log.
            _silence_jax_log()


def _cpu_client() -> Any:
    """JAX's CPUs, whose sums gloo sends over the network of the run.

    By itself gloo takes the address of the machine's own name: on Debian, one of loopback.
    """
    family, _, _, _, address = _resolve(global_state.coordinator_address or "")
    with socket.socket(family, socket.SOCK_DGRAM) as route:  # It sends nothing.
        route.connect(address)
        host = route.getsockname()[0]
    gloo = _jax.make_gloo_tcp_collectives(distributed_client=global_state.client, hostname=host)
    return xla_bridge.make_cpu_client(gloo)


class SynchronisedStop:
    """A loop's question whether to stop, answered by the thread that watches.

    All main threads ask equally often, the n-th time before step n. After a signal to one process,
    each process holds back its main thread's next question and sends how many it has asked. All
    continue to the largest number plus one, and stop there.
    """

    def __init__(self, connection: Connection, stop: Callable[[], int], name: str):
        """Asks `stop` for this process's signal; the name tells a run's loops apart."""
        self._connection, self._stop, self._name = connection, stop, name
        self._lock, self._asked = threading.Lock(), 0
        self._signal, self._stop_at = 0, 0

    def __call__(self) -> int:
        """The number of a signal if it is time to stop, else 0."""
        with self._lock:
            self._asked += 1
            return self._signal if self._signal and self._asked >= self._stop_at else 0

    def look(self) -> None:
        """Looks for a signal, here or elsewhere, and agrees with the others where to stop."""
        if self._signal:
            return
        client, key = self._connection.client, f"jaxnets/{self._name}/signal/"
        if number := self._stop():
            own = f"{key}{self._connection.process_id}"
            client.key_value_set(own, str(number), allow_overwrite=True)
        if client.key_value_dir_get(key):
            with self._lock:
                counts = self._connection.gather(f"{self._name}/asked", str(self._asked))
                self._stop_at = max(map(int, counts)) + 1
                self._signal = min(int(number) for _, number in client.key_value_dir_get(key))


def _silence_jax_log() -> None:
    """Sends what C++ prints nowhere; Python's stdout and stderr stay where they were."""
    sys.stdout.flush()
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors)
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    )
    sys.stderr.reconfigure(line_buffering=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _exit_now(status: int) -> None:
    """Ends the process without what Python and JAX do at exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
