"""One run on several machines: processes that join, agree, tell each other, and end together.

Each process runs the same command and has its own devices; JAX's runtime connects them through the
coordinator, which process 0 is. Here is what JAX leaves to its users: that the processes were asked
for the same, that a signal to one stops all at the same step, and that a process that fails or is
lost ends the others, with a line that says why (docs/several-hosts.md).
"""

import atexit
import contextlib
import ctypes
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxnets.errors import UserError, one_line
from jaxnets.machine.platform import versions

JOIN_SECONDS = 30
# Without a sign of life for so long a process is lost. JAX looks twice in that time.
HEARTBEAT_SECONDS = 30
TICK_SECONDS = 0.25  # How often a process looks for news.
LEAVE_SECONDS = 10  # How long one that fails waits until the others have heard of it.
FOREVER = 10**9  # Milliseconds: what does not come ends with the process that should bring it.

# Flags that may differ from process to process: only process 0's workdir counts, and the data are
# compared by their checksum.
OWN_FLAGS = ("process_id", "workdir", "data_dir")

ErrorFormatter = Callable[[BaseException], tuple[str, int] | None]


def is_first() -> bool:
    """Whether this process writes the run folder and prints: process 0, or a run's only one."""
    return _here is None or _here.index == 0


def is_connected() -> bool:
    """Whether this process has joined others."""
    return _here is not None


@contextlib.contextmanager
def connected(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    flags: dict[str, Any],
    told: ErrorFormatter,
) -> Iterator[None]:
    """Joins the other processes for as long as the context lasts. Call it before JAX starts.

    What ends one process ends all: an error is told to the others, which exit with its status.

    Args:
      coordinator: HOST:PORT of process 0; None has JAX find it, the number of processes and this
        one's own among them, on a TPU pod, under SLURM, Open MPI or Kubernetes.
      num_processes: How many there are.
      process_id: Which of them this is, from 0.
      flags: What this process was asked for; the others must have been asked for the same.
      told: An error's message and exit status, or None if it has none.

    Raises:
      UserError: There is nothing to join, or the flags differ.
    """
    global _here
    _here = here = _Process(coordinator, num_processes, process_id)
    try:
        assert_equal_across_processes("flags", {**versions(), **flags}, but=OWN_FLAGS)
        yield
    except BaseException as error:
        here.leave(error, told)
        raise
    here.finish()
    _here = None


def assert_equal_across_processes(
    name: str, values: dict[str, Any], but: tuple[str, ...] = ()
) -> None:
    """Demands that every process has the same values; a run of one process always does.

    Args:
      name: Of this question, asked once a run.
      values: As JSON holds them.
      but: The names of those that may differ.

    Raises:
      UserError: On all processes, with the first name whose values differ.
    """
    if _here is None:
        return
    said = [json.loads(text) for text in _here.gather(name, json.dumps(values))]
    for field in sorted({field for one in said for field in one} - set(but)):
        for process, one in enumerate(said):
            if one.get(field) != said[0].get(field):
                first, other = (_shown(values.get(field)) for values in (said[0], one))
                raise UserError(
                    f"{field}: expected the same on all processes, process 0 has {first}, "
                    f"process {process} {other}"
                )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def broadcast_json(name: str, value: Callable[[], Any]) -> Any:
    """What process 0 finds, on every process, as JSON holds it; the others do not look.

    Args:
      name: Of this question, asked once a run.
      value: Called on process 0.
    """
    if _here is None:
        return value()
    if _here.index == 0:
        found = value()
        _here.client.key_value_set(f"jaxnets/{name}", json.dumps(found))
        return found
    return json.loads(_here.client.blocking_key_value_get(f"jaxnets/{name}", FOREVER))


def broadcast_arrays(tree: Any, like: Any) -> Any:
    """A tree of NumPy arrays of process 0, on every process, bit for bit.

    Args:
      tree: Process 0's; what the others pass is not looked at.
      like: Arrays of its structure, shapes and dtypes.
    """
    if _here is None:
        return tree
    from jax.experimental import multihost_utils

    def send(array: Any, like: Any) -> np.ndarray:
        # As bytes: JAX without 64 bits would cut the metrics' in half.
        length = like.size * like.dtype.itemsize
        words = np.zeros(-(-length // 4) * 4, np.uint8)
        if is_first():
            words[:length] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        words = np.asarray(multihost_utils.broadcast_one_to_all(words.view(np.uint32)))
        sent = words.view(np.uint8)[:length].view(like.dtype)
        return sent.reshape(like.shape)

    like = jax.tree.map(lambda x: np.zeros(np.shape(x), x.dtype), like)
    return jax.tree.map(send, tree if is_first() else like, like)


def synchronised_stop(stop: Callable[[], int]) -> Callable[[], int]:
    """Asks on every process, before the same step, whether any of them has had a signal.

    Args:
      stop: This process's: a signal's number, or 0.

    Returns:
      The same for all processes; each must ask equally often.
    """
    return stop if _here is None else _here.synchronised_stop(stop)


class _Process:
    """This process among the others."""

    def __init__(self, coordinator: str | None, num_processes: int | None, process_id: int | None):
        """Joins them."""
        self._ending, self._accounted = threading.Lock(), threading.Lock()
        self._leaving = False
        self._stops: list[_Stop] = []
        self._finished = threading.Event()
        place = f"coordinator {coordinator}" if coordinator else "distributed"
        self._exit_message = (
            f"{place}: not all {num_processes or 'processes'} joined within {JOIN_SECONDS} s: "
            "expected one at work on each process_id, and process 0's address to be reachable",
            2,
        )
        self._end_in_a_line()
        with contextlib.suppress(AttributeError):  # Else it takes SIGTERM for itself.
            jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                initialization_timeout=JOIN_SECONDS - 5,  # It takes five more.
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except ValueError as error:
            raise UserError(
                "distributed: JAX finds no TPU pod, SLURM, Open MPI or Kubernetes here; "
                f"expected --coordinator, --num_processes and --process_id ({error})"
            ) from None
        except RuntimeError as error:
            if "must be called before" in str(error):
                raise UserError(f"distributed: {error}") from None
            raise UserError(f"{self._exit_message[0]} ({str(error).splitlines()[0]})") from None
        # JAX has no public name for what it has found, nor for its store of keys and values.
        from jax._src.distributed import global_state

        self.client: Any = global_state.client
        self.index = global_state.process_id
        self._exit_message = (
            "another process was lost: this one has heard nothing from it, or from process 0, "
            f"for {HEARTBEAT_SECONDS} s or their connection broke; the last checkpoint is kept, "
            "--resume --workdir=DIR goes on from it",
            1,
        )
        if self.index != 0:  # Process 0 speaks for all; what is wrong each says for itself.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            sys.stderr = _NoTerminal(sys.stderr.detach(), "utf-8", line_buffering=True)  # type: ignore
        threading.Thread(target=self._watch, daemon=True, name="other processes").start()

    def gather(self, name: str, text: str) -> list[str]:
        """What each process says, in their order."""
        self.client.key_value_set(f"jaxnets/{name}/{self.index:06}", text)
        self.client.wait_at_barrier(f"jaxnets/{name}", FOREVER)
        return [said for _, said in sorted(self.client.key_value_dir_get(f"jaxnets/{name}/"))]

    def synchronised_stop(self, stop: Callable[[], int]) -> Callable[[], int]:
        self._stops.append(_Stop(self, stop, len(self._stops)))
        return self._stops[-1]

    def finish(self) -> None:
        """Waits for the others and leaves."""
        self.client.wait_at_barrier("jaxnets/finished", FOREVER)
        self._finished.set()
        jax.distributed.shutdown()

    def leave(self, error: BaseException, told: ErrorFormatter) -> None:
        """Tells the others of an error; what JAX would do at exit is left out: it would wait."""
        if isinstance(error, jax.errors.JaxRuntimeError) and _is_lost(error):
            deadline = time.monotonic() + 3  # Perhaps it has said why, before it went.
            while (news := self._news()) is None and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
            self._end(*(news or self._exit_message))
        message, status = told(error) or (f"{type(error).__name__}: {error}", 1)
        self._leaving, self._exit_message = (
            True,
            (message, status),
        )  # Its line, should JAX abort meanwhile.
        news = json.dumps([f"process {self.index} ended: {message}", status])
        with contextlib.suppress(Exception):
            self.client.key_value_set(f"jaxnets/ended/{self.index:06}", news)
        self._exit_barrier()
        if not self._ending.acquire(blocking=False):
            time.sleep(LEAVE_SECONDS)  # The thread that was first is about to end it.
        atexit.register(_exit_now, status)

    def _exit_barrier(self) -> None:
        """Waits until every process has heard of the end, or for some seconds."""
        if self._accounted.acquire(blocking=False):
            with contextlib.suppress(Exception):
                self.client.wait_at_barrier("jaxnets/ended", 1000 * LEAVE_SECONDS)

    def _news(self) -> tuple[str, int] | None:
        """Why another process ended, if one has."""
        with contextlib.suppress(Exception):  # Its keeper may be the one that was lost.
            for key, text in sorted(self.client.key_value_dir_get("jaxnets/ended/")):
                if int(key.rsplit("/", 1)[1]) != self.index:
                    message, status = json.loads(text)
                    return message, status
        return None

    def _watch(self) -> None:
        """Looks for signals and for the end of other processes, in a thread of its own."""
        while not self._finished.wait(TICK_SECONDS):
            if (news := self._news()) is not None:
                if not self._leaving:
                    self._exit_message = news
                time.sleep(LEAVE_SECONDS / 4)  # If all fail alike, the main thread does by itself.
                self._exit_barrier()
                time.sleep(LEAVE_SECONDS)  # Or it notices when the other has gone.
                self._end(*self._exit_message)
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # JAX finds out who is lost.
                if self._stops:
                    self._stops[-1].look()

    def _end_in_a_line(self) -> None:
        """Makes one line of how JAX ends the process where another one is lost.

        It logs a page and aborts, as it does for a coordinator that does not answer: no exception
        comes, and a callback in Python is called with what cannot be converted (jaxlib 0.10.2,
        0.12.0). So the abort's signal is caught, in C, since no Python runs any more in the thread
        that raised it, and what JAX's C++ prints itself goes nowhere, unless TF_CPP_MIN_LOG_LEVEL,
        which says how much to log, is 0. Older versions exit without a signal: their
        page is left as it is.
        """
        version = tuple(int(part) for part in jax.__version__.split(".")[:2])
        if os.name != "posix" or version < (0, 10):
            return
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(
            lambda _: self._end(*self._exit_message)
        )
        ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
            return
        sys.stdout.flush()
        sys.stdout, sys.stderr = (
            os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors)
            for number, stream in ((1, sys.stdout), (2, sys.stderr))
        )
        sys.stderr.reconfigure(line_buffering=True)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)

    def _end(self, message: str, status: int) -> None:
        """Ends the process from any of its threads, with the line of the first that asks."""
        if not self._ending.acquire(blocking=False):
            time.sleep(LEAVE_SECONDS)  # The thread that was first is about to end it.
        else:
            print(f"error: {one_line(message)}", file=sys.stderr)
        _exit_now(status)


class _Stop:
    """Whether to stop, asked by the main thread and found out by the watching one.

    The main threads of all processes ask equally often, each before its n-th step. Where one has
    had a signal, each process holds its main thread's next question back, says how many there were,
    and lets it go on to the largest number and one more, where all stop.
    """

    def __init__(self, process: _Process, ask: Callable[[], int], number: int):
        """Of one loop; `number` tells the run's loops apart."""
        self._process, self._ask, self._name = process, ask, f"stop/{number}"
        self._lock, self._asked = threading.Lock(), 0
        self._signal, self._at = 0, 0

    def __call__(self) -> int:
        with self._lock:
            self._asked += 1
            return self._signal if self._signal and self._asked >= self._at else 0

    def look(self) -> None:
        """Looks for a signal, here or elsewhere, and agrees where to stop."""
        if self._signal:
            return
        client, came = self._process.client, f"jaxnets/{self._name}/signal/"
        if number := self._ask():
            client.key_value_set(f"{came}{self._process.index}", str(number), allow_overwrite=True)
        if client.key_value_dir_get(came):
            with self._lock:
                counts = self._process.gather(f"{self._name}/asked", str(self._asked))
                signals = client.key_value_dir_get(came)
                self._at = max(map(int, counts)) + 1
                self._signal = min(int(number) for _, number in signals)


class _NoTerminal(io.TextIOWrapper):
    """stderr for errors alone: progress bars show themselves on terminals only."""

    def isatty(self) -> bool:
        return False


def _is_lost(error: BaseException) -> bool:
    """Whether a step failed for want of another process, and not of memory."""
    return "RESOURCE_EXHAUSTED" not in str(error)


def _exit_now(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


_here: _Process | None = None
