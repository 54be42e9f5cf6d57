"""Sandboxes in which `grade` runs submissions: bubblewrap, or a container.

bubblewrap gives a process separate namespaces: no network, no other process, and no files except
Python, JAX, NumPy and the system's libraries, read-only. The package jaxnets, which holds the
answers, is not in it. The process in it (child.py) limits itself. Under root, each sandbox runs as
a different user, so its limits count only its processes.
"""

import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from jaxnets.base.errors import UserError, before_end
from jaxnets.base.language import Text
from jaxnets.course.exercises.seccomp import refusing

BUBBLEWRAP, PODMAN, DOCKER, TRUST = "bwrap", "podman", "docker", "trust"
NOBODY = 65534
FIRST_USER = 1 << 30  # The first of the users from which a sandbox under root draws one.
IMAGE = "jaxnets-grade"
STARTED = b"started\n"  # A child says it when the submission's time begins.
START = 300  # Seconds until then, on a busy machine.
KILLED = (137, -9)  # The status after SIGKILL: that of bubblewrap, and that of Python.
# The packages that a sandbox has: JAX, and those that JAX needs.
PACKAGES = ("jax", "jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy")
# The program of the process: it makes modules of the sources on stdin, and the last one runs.
BEGIN = """
import pickle, sys, types
import jax
sources, task = pickle.load(sys.stdin.buffer)
for name, source in sources.items():
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        part = ".".join(parts[:count])
        module = sys.modules.setdefault(part, types.ModuleType(part))
        module.__path__ = []  # Nothing is found beside them.
    exec(compile(source, name, "exec"), vars(module))
sys.modules["jaxnets.course.exercises.child"].main(task, *sys.argv[1:])
"""
COUNTS_ALONE = (5, 14)  # The first Linux that counts the processes of each sandbox.
MOST_ANSWER = 1 << 23  # Bytes; the largest right answer has 0.4 MB.

INSTALL = Text(
    "expected bubblewrap, in which submissions run; install it (Debian, Ubuntu: sudo apt install "
    "bubblewrap; Fedora: sudo dnf install bubblewrap)"
)
OTHERWISE = Text(
    "or use a container (--sandbox=podman or docker, see docs/teachers/grading.md), "
    "or --trust if the submissions are your own"
)


class Limits(NamedTuple):
    """The time and memory that a submission may use."""

    seconds: int = 20  # Of processor time.
    memory: int = 2048  # MiB.
    wait: float = 200.0  # Seconds until it is stopped, even if it only waits.


class Outcome(NamedTuple):
    """What a process in a sandbox has printed, and how it ended."""

    said: bytes  # The output after STARTED; if the process did not start, the reason.
    started: bool
    timed_out: bool = False
    killed: bool = False  # By itself, or by the kernel, for example when memory runs out.


class Sandbox:
    """A kind of sandbox in which submissions run, and the processes that run now.

    Args:
      kind: BUBBLEWRAP, PODMAN, DOCKER or TRUST.
      image: The image of a container.
      prints: Whether what a submission prints is shown, on stderr.
    """

    def __init__(self, kind: str = BUBBLEWRAP, image: str = IMAGE, *, prints: bool = False):
        self.kind = kind
        self.image = image
        self.prints = prints
        self._running: set[subprocess.Popen] = set()
        self._ended = False

    def check(self) -> None:
        """Checks that Python starts in it.

        Raises:
          UserError: The sandbox is not installed, or cannot start.
        """
        if self.kind == BUBBLEWRAP and sys.platform != "linux":
            raise UserError("expected Linux, where bubblewrap runs submissions; {}", OTHERWISE)
        if self.kind != TRUST and shutil.which(self.kind) is None:
            missing = Text("expected {}, which is not installed", self.kind)
            raise UserError("{}; {}", INSTALL if self.kind == BUBBLEWRAP else missing, OTHERWISE)
        release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
        if self.kind == BUBBLEWRAP and os.getuid() != 0 and release < COUNTS_ALONE:
            raise UserError(
                "expected Linux 5.14, which counts the processes of each sandbox, got {}; {}",
                platform.release(),
                OTHERWISE,
            )
        found = subprocess.run(
            self.command(["-c", "print('ready')"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
        )
        lines = found.stdout.decode(errors="replace").splitlines() or ["it said nothing"]
        if lines[-1] != "ready":
            raise UserError("{} cannot start: {}; {}", self.kind, lines[-1], OTHERWISE)

    def run(self, task: bytes, limits: Limits) -> Outcome:
        """Runs what `apart.task_of` has written."""
        try:
            with self.started(limits) as process:
                return self.outcome(process, task, limits)
        except OSError as error:
            return Outcome(str(error).encode(), started=False)

    @contextmanager
    def started(self, limits: Limits) -> Iterator[subprocess.Popen]:
        """A process that loads JAX and then waits for its task; it ends with the block."""
        user = ""
        if self.kind == BUBBLEWRAP and os.getuid() == 0:
            user = str(FIRST_USER + secrets.randbelow(FIRST_USER))
        name = f"jaxnets-{uuid.uuid4().hex}"
        child = ["-c", BEGIN, user]
        with (
            self._filter() as refused,
            subprocess.Popen(
                self.command(child, name, limits.memory, refused),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Else the child holds no file of this machine.
                stderr=None if self.prints else subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                pass_fds=refused,
            ) as process,
            before_end(lambda: self._end(process, name)),
        ):
            try:
                yield process
            finally:
                self._running.discard(process)
                self._end(process, name)

    def _end(self, process: subprocess.Popen, name: str) -> None:
        process.kill()  # With bubblewrap, this also ends everything that it has started.
        if self.kind in (PODMAN, DOCKER):
            subprocess.run([self.kind, "rm", "--force", name], capture_output=True)

    @contextmanager
    def _filter(self) -> Iterator[tuple[int, ...]]:
        """The file from which bubblewrap reads which calls to refuse; none for other kinds."""
        content = refusing() if self.kind == BUBBLEWRAP else b""
        if not content:
            yield ()
            return
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            yield (file.fileno(),)

    def outcome(self, process: subprocess.Popen, task: bytes, limits: Limits) -> Outcome:
        """Gives a started process its task; what it has printed, and how it ended."""
        assert process.stdin and process.stdout
        with _killed_after(START, process):
            with suppress(BrokenPipeError):  # Its output says why.
                process.stdin.write(task)
            with suppress(BrokenPipeError):  # Closing flushes the rest of the task.
                process.stdin.close()
            begun = process.stdout.readline(len(STARTED))
            if begun != STARTED:
                return Outcome(begun + process.stdout.read(MOST_ANSWER), started=False)
        # Not earlier: a killed bubblewrap might leave its child running.
        self._running.add(process)
        if self._ended:
            process.kill()
        with _killed_after(limits.wait, process) as over:
            said = process.stdout.read(MOST_ANSWER + 1)
            if len(said) > MOST_ANSWER:
                process.kill()
                return Outcome(said, started=True)
            status = process.wait()
        return Outcome(said, True, over.is_set(), not over.is_set() and status in KILLED)

    def end(self) -> None:
        """Ends all processes that run, and each that starts later."""
        self._ended = True
        for process in list(self._running):
            process.kill()

    @property
    def limits_processes(self) -> bool:
        """Whether a limit counts only one sandbox's processes; a container has a limit anyway."""
        return self.kind == BUBBLEWRAP

    def command(
        self, arguments: Sequence[str], name: str = "", memory: int = 0, refused: Sequence[int] = ()
    ) -> list[str]:
        """The command that runs Python with these arguments in this sandbox.

        Args:
          arguments: Python's arguments.
          name: A container's name.
          memory: MiB that a submission in a container may take, JAX itself not included.
          refused: The open file that holds bubblewrap's filter of calls, if there is one.
        """
        python = os.path.realpath(sys.executable)
        arguments = ["-P", "-B", *arguments]  # Neither a module of the current folder nor bytecode.
        if self.kind == TRUST:
            return [python, *arguments]
        if self.kind == BUBBLEWRAP:
            calls = [word for file in refused for word in ("--seccomp", str(file))]
            return [*_bubblewrap(python), *calls, python, *arguments]
        most = f"{memory + 1024}m"
        return [
            *(self.kind, "run", "--rm", "--interactive", f"--name={name}", "--pull=never"),
            *("--network=none", "--read-only", "--cap-drop=ALL"),
            *("--security-opt=no-new-privileges", f"--user={NOBODY}:{NOBODY}", "--ipc=private"),
            *("--pids-limit=256", f"--memory={most}", f"--memory-swap={most}"),
            *("--workdir=/", "--env=JAX_PLATFORMS=cpu", "--entrypoint=python", self.image),
            *arguments,
        ]

    def _environment(self) -> dict[str, str] | None:
        if self.kind in (PODMAN, DOCKER):
            return None  # They need your environment; the container gets none of it.
        kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
        return {**kept, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(_folders())}


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen) -> Iterator[threading.Event]:
    """Kills a process that still runs after this many seconds; the event says whether it did."""
    over = threading.Event()
    timer = threading.Timer(seconds, lambda: (over.set(), process.kill()))
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def _folders() -> list[str]:
    """The folders of installed packages; Debian's are called dist-packages."""
    return [path for path in sys.path if path.endswith("-packages")]


def _packages() -> list[str]:
    """The folders of PACKAGES, and of the libraries that come with them."""
    names = [name for package in PACKAGES for name in (package, f"{package}.libs")]
    return [
        path
        for folder in _folders()
        for name in names
        if os.path.exists(path := os.path.join(folder, name))
    ]


def _bubblewrap(python: str) -> list[str]:
    shown = {"/usr", "/lib", "/lib64", sys.base_prefix, str(Path(python).parents[1])}
    # Python's own folder may hold those of the packages: they are emptied, then filled.
    hidden = _folders()
    parents = {str(parent) for path in (*shown, *hidden) for parent in Path(path).parents} - {"/"}
    # Root becomes another user once Python runs, which needs two rights until then; see child.py.
    as_root = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    as_user = ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    return [
        shutil.which(BUBBLEWRAP) or BUBBLEWRAP,
        *("--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent", "--new-session"),
        *(as_root if os.getuid() == 0 else as_user),
        *("--proc", "/proc", "--dev", "/dev"),
        *(word for path in sorted(parents) for word in ("--perms", "0755", "--dir", path)),
        *(word for path in sorted(shown) for word in ("--ro-bind-try", path, path)),
        *(word for path in hidden for word in ("--tmpfs", path)),
        *(word for path in _packages() for word in ("--ro-bind", path, path)),
        *(word for path in (*hidden, "/dev", "/") for word in ("--remount-ro", path)),
        *("--chdir", "/"),
    ]
