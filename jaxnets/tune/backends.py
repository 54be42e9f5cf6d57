"""The places where cells are trained: this process, other local processes, or a Ray cluster.

A backend has four functions: `submit` a task, `collect` the outcome of one that has ended, `close`
and `kill`. The work, a function of a task, holds the data, and travels once to each worker or
node. A task is one compiled program, so its result has the same bits wherever it runs with the same
number of threads.
"""

import collections
import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from multiprocessing import connection
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from jaxnets.base.errors import (
    RUN_FAILED,
    WRONG_REQUEST,
    RunFailedError,
    UserError,
    first_line,
    message_and_status,
)
from jaxnets.base.language import Text
from jaxnets.machine.ray_cluster import join_ray

Work = Callable[[Any], Any]
RETRIES = 3  # How often a task starts again after its worker has ended: Ray's default.


class Failed(NamedTuple):
    """The outcome of a task without a result: the reason, in one line."""

    message: Text | str
    status: int = RUN_FAILED

    def error(self, more: Text) -> UserError | RunFailedError:
        """The error that ends a command with this."""
        kind = UserError if self.status == WRONG_REQUEST else RunFailedError
        return kind("{}; {}", self.message, more)


class Backend(Protocol):
    """Processes that train; creating a backend starts them."""

    def submit(self, task: Any) -> None:
        """Puts a hashable task in the queue."""
        ...

    def collect(self) -> tuple[Any, Any]:
        """Waits for a task to end; returns it with its result or Failed. A bug raises its error."""
        ...

    def close(self) -> None:
        """Ends the processes."""
        ...

    def kill(self) -> None:
        """Ends them too, when a signal ends this process, maybe in another thread."""
        ...


def attempt(work: Work, task: Any) -> Any:
    """The result of a task, or Failed."""
    try:
        return work(task)
    except Exception as error:
        if (known := message_and_status(error)) is None:
            raise
        return Failed(*known)


class ThisProcess:
    """Trains in this process, one task after the other."""

    def __init__(self, work: Work):
        self._work, self._waiting = work, collections.deque[Any]()

    def submit(self, task: Any) -> None:
        self._waiting.append(task)

    def collect(self) -> tuple[Any, Any]:
        task = self._waiting.popleft()
        return task, attempt(self._work, task)

    def close(self) -> None:
        pass

    def kill(self) -> None:
        pass


class _Bug(NamedTuple):
    """The traceback of an error of our own."""

    text: str


class LocalProcesses:
    """Trains in processes started here, each with its share of the threads.

    A process that ends is replaced, and its task starts again.
    """

    def __init__(self, work: Work, count: int, threads: int):
        self._work, self._count, self._threads = pickle.dumps(work), count, threads
        self._waiting = collections.deque[tuple[Any, int]]()
        self._processes: list[Any] = []  # All that ever started.
        self._idle: list[tuple[Any, Any]] = []  # Processes, each with our end of its pipe.
        self._busy: dict[Any, tuple[Any, Any, int]] = {}  # By the pipe: process, task, try.

    def submit(self, task: Any) -> None:
        self._waiting.append((task, 0))

    def collect(self) -> tuple[Any, Any]:
        while True:
            while self._waiting and len(self._busy) < self._count:
                self._hand_out(*self._waiting.popleft())
            pipe: Any = connection.wait(self._busy)[0]
            process, task, tries = self._busy.pop(pipe)
            try:
                outcome = pipe.recv()
            except (EOFError, OSError):
                process.join()
                if tries < RETRIES:
                    self._waiting.appendleft((task, tries + 1))
                    continue
                how = f"ended with status {process.exitcode}"
                if process.exitcode < 0:
                    how = f"was ended by {signal.Signals(-process.exitcode).name}"
                return task, Failed(f"its process {how}, {tries + 1} times")
            if isinstance(outcome, _Bug):
                raise RuntimeError(outcome.text)
            self._idle.append((process, pipe))
            return task, outcome

    def close(self) -> None:
        self.kill()
        for process in self._processes:
            process.join()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _hand_out(self, task: Any, tries: int) -> None:
        """Gives an idle process or a new one a task."""
        process, pipe = self._idle.pop() if self._idle else self._start()
        with contextlib.suppress(OSError):  # `collect` notices one that has ended.
            pipe.send(task)
        self._busy[pipe] = process, task, tries

    def _start(self) -> tuple[Any, Any]:
        context = multiprocessing.get_context("spawn")  # A fork would copy JAX's locks.
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._threads), daemon=True)
        with _interrupts_blocked():
            process.start()
        self._processes.append(process)
        theirs.close()
        # Not as an argument: a process that is killed while it starts one would leave that behind.
        with contextlib.suppress(OSError):
            ours.send_bytes(self._work)
        return process, ours


@contextlib.contextmanager
def _interrupts_blocked() -> Generator[None]:
    """Lets a process that starts in this block inherit that Ctrl-C is blocked.

    Ctrl-C goes to all processes of a terminal; the new one ends with this one. Windows has no
    signal masks: there the new process ignores Ctrl-C from its first line on.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(pipe: Any, threads: int) -> None:
    """Runs in a local process: trains the tasks that come through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_threads(threads)
    # tqdm's own lock is a semaphore, which would outlive a killed process.
    tqdm.set_lock(threading.RLock())
    try:
        function: Work = pickle.loads(pipe.recv_bytes())  # It imports NumPy and JAX.
    except (EOFError, OSError):  # Our parent has ended.
        return
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            outcome = attempt(function, task)
        except Exception:
            outcome = _Bug(traceback.format_exc())
        pipe.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _limit_threads(count: int) -> None:
    """Limits the threads of XLA, and of what scikit-learn uses, before they start."""
    os.environ |= dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count))


class RayCluster:
    """Trains in Ray's core tasks, each on one CPU and, where the cluster has some, one GPU.

    Ray starts a task again if its worker or node has ended. The results travel back, so the
    machines need no common disk.
    """

    def __init__(self, work: Work, address: str):
        # From its start on, Ray tells of each lost node or worker on stdout, where our table or
        # JSON comes after the search.
        with contextlib.ExitStack() as silenced:
            silenced.enter_context(contextlib.redirect_stdout(io.StringIO()))
            ray = join_ray(address)
            self._silenced = silenced.pop_all()
        self._ray, self._work = ray, ray.put(work)
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        options = dict(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
        self._attempt: Any = ray.remote(**options)(_attempt_on_one_cpu)
        self._running: dict[Any, Any] = {}  # Tasks by their references.

    def submit(self, task: Any) -> None:
        self._running[self._attempt.remote(self._work, task)] = task

    def collect(self) -> tuple[Any, Any]:
        (ended,), _ = self._ray.wait(list(self._running))
        task = self._running.pop(ended)
        try:
            return task, self._ray.get(ended)
        except self._ray.exceptions.RayTaskError:
            raise  # A bug, with its traceback.
        except self._ray.exceptions.RayError as error:
            return task, Failed(first_line(error))

    def close(self) -> None:
        self._ray.shutdown()
        self._silenced.close()

    def kill(self) -> None:
        pass  # Ray does.


def _attempt_on_one_cpu(work: Work, task: Any) -> Any:
    _limit_threads(1)
    return attempt(work, task)
