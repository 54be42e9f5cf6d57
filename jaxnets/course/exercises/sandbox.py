"""Sandboxes in which `grade` runs submissions: bubblewrap, or a container.

bubblewrap gives a process namespaces of its own, so that nothing of the machine is in its sight: no
network, no other process, no IPC, no user but `nobody`, and no files but these, read-only: Python's
standard library, the system's libraries that Python and JAX use, NumPy, jaxlib, and the copy of JAX
without differentiation. The submission and its numbers come over a pipe; arrays go back over
another one.

A filter of system calls closes what namespaces leave open. It refuses new processes, so that the
limits of one process (child.py) are those of all; memory and keys that belong to no process;
sockets, whose buffers no limit counts; and new namespaces. It is no wall: that is bubblewrap.
"""

import contextlib
import glob
import os
import platform
import re
import secrets
import shutil
import struct
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxnets.course.exercises import child
from jaxnets.course.exercises.without_autodiff import needed_folders, packages_folder, site_folders
from jaxnets.errors import UserError

BUBBLEWRAP, PODMAN, DOCKER, TRUST = "bwrap", "podman", "docker", "trust"
NOBODY = 65534
FIRST_USER = 1 << 30  # As root each sandbox has a user of its own, whose threads are limited.
IMAGE = "jaxnets-grade"
START = 300  # Seconds until a child has imported JAX, on a busy machine.

INSTALL = (
    "expected bubblewrap, in which submissions run; install it (Debian, Ubuntu: sudo apt install "
    "bubblewrap; Fedora: sudo dnf install bubblewrap)"
)
OTHERWISE = (
    "or use a container (--sandbox=podman or docker, see docs/teachers/grading.md), "
    "or --trust if the submissions are your own"
)

# System calls by their numbers on x86-64 and on ARM64.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSED = {
    "x86_64": {
        "fork": 57, "vfork": 58, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
        "memfd_create": 319, "memfd_secret": 447, "add_key": 248, "request_key": 249,
        "keyctl": 250, "ptrace": 101, "unshare": 272, "setns": 308, "io_uring_setup": 425,
        "socket": 41, "socketpair": 53,
    },
    "aarch64": {
        "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "memfd_create": 279,
        "memfd_secret": 447, "add_key": 217, "request_key": 218, "keyctl": 219, "ptrace": 117,
        "unshare": 97, "setns": 268, "io_uring_setup": 425, "socket": 198, "socketpair": 199,
    },
}  # fmt: skip
CLONE = {"x86_64": 56, "aarch64": 220}  # It may start a thread, no process.
CLONE3 = 435  # Without it, glibc uses clone, whose arguments a filter sees.
CLONE_THREAD = 0x10000


class Running:
    """The processes that run, so that all can be ended."""

    def __init__(self):
        self._processes: set[subprocess.Popen] = set()
        self._ended = False

    def add(self, process: subprocess.Popen) -> None:
        """Adds a process, which ends at once if all were ended."""
        self._processes.add(process)
        if self._ended:
            process.kill()

    def end(self) -> None:
        """Ends all processes."""
        self._ended = True
        for process in list(self._processes):
            process.kill()


class Sandbox(NamedTuple):
    """The kind of sandbox in which submissions run."""

    kind: str = BUBBLEWRAP  # Or PODMAN, DOCKER, TRUST.
    image: str = IMAGE  # Of a container.

    def check(self) -> None:
        """Starts Python in it.

        Raises:
          UserError: It is not installed, or cannot start.
        """
        if self.kind == BUBBLEWRAP and sys.platform != "linux":
            raise UserError("expected Linux, where bubblewrap runs submissions; {}", OTHERWISE)
        if self.kind == BUBBLEWRAP and platform.machine() not in ARCHITECTURES:
            raise UserError("expected x86-64 or ARM64, got {}; {}", platform.machine(), OTHERWISE)
        if self.kind != TRUST and shutil.which(self.kind) is None:
            missing = f"expected {self.kind}, which is not installed"
            raise UserError("{}; {}", INSTALL if self.kind == BUBBLEWRAP else missing, OTHERWISE)
        said = self.run("print('ready')", b"", errors=subprocess.STDOUT) or b""
        lines = said.decode(errors="replace").splitlines() or ["it said nothing"]
        if lines[-1] != "ready":
            raise UserError("{} cannot start: {}; {}", self.kind, lines[-1], OTHERWISE)

    def run(
        self,
        program: str,
        task: bytes,
        *,
        memory: int = 1024,
        wait: float = START,
        most: int = 10_000,
        errors: int = subprocess.DEVNULL,
        running: Running | None = None,
    ) -> bytes | None:
        """Runs a Python program; what it writes, at most so much, None if its time is over.

        What has not begun within START seconds is ended, too.

        Args:
          program: The program's text.
          task: The bytes on its stdin.
          memory: MiB that a container may take.
          wait: Seconds from child.STARTED on.
          most: Bytes of an answer; beyond them the program is ended.
          errors: The destination of stderr.
          running: Gets the process, to end it from another thread.
        """
        name = f"jaxnets-{uuid.uuid4().hex}"
        over = threading.Event()

        def kill_after(seconds: float) -> threading.Timer:
            timer = threading.Timer(seconds, lambda: (over.set(), process.kill()))
            timer.daemon = True
            timer.start()
            return timer

        with contextlib.ExitStack() as stack:
            calls = stack.enter_context(_filter_of_calls()) if self.kind == BUBBLEWRAP else None
            if calls is not None:  # A file of this machine, as /dev/null, would be within reach.
                errors = subprocess.STDOUT
            process = subprocess.Popen(
                self.command(program, memory, name, calls),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment(),
                pass_fds=() if calls is None else (calls,),
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(self._end, process, name)
            assert process.stdin and process.stdout
            timer, content, started = kill_after(START), b"", False
            try:
                with contextlib.suppress(BrokenPipeError):  # What it says tells why.
                    process.stdin.write(task)
                with contextlib.suppress(BrokenPipeError):  # Of what is left of it.
                    process.stdin.close()
                while len(content) <= most and (part := os.read(process.stdout.fileno(), 1 << 20)):
                    content += part
                    if not started and content.startswith(child.STARTED):
                        started = True
                        timer.cancel()
                        timer = kill_after(wait)
                        if running:  # Earlier, bubblewrap might not yet take its child with it.
                            running.add(process)
            finally:
                timer.cancel()
        return None if over.is_set() and started else content

    def command(self, program: str, memory: int, name: str, calls: int | None = None) -> list[str]:
        """The command that runs a Python program in this sandbox.

        Args:
          program: The program's text.
          memory: MiB that a container may take, JAX itself included.
          name: A container's name.
          calls: The file from which bubblewrap reads its filter of system calls.
        """
        python = ["-I", "-S", "-B", "-c", program]
        if self.kind == TRUST:
            return [sys.executable, *python, "", str(packages_folder()), *site_folders()]
        if self.kind == BUBBLEWRAP:
            user = FIRST_USER + secrets.randbelow(FIRST_USER) if os.getuid() == 0 else NOBODY
            return [*_bubblewrap(calls), *python, str(user), "/packages"]
        return [
            *(self.kind, "run", "--rm", "--interactive", f"--name={name}", "--pull=never"),
            *("--network=none", "--read-only", "--cap-drop=ALL"),
            *("--security-opt=no-new-privileges", f"--user={NOBODY}:{NOBODY}", "--ipc=private"),
            *("--pids-limit=256", f"--memory={memory}m", f"--memory-swap={memory}m"),
            *("--workdir=/", "--entrypoint=python", self.image, *python, "", "/packages"),
        ]

    @property
    def counts_alone(self) -> bool:
        """Whether the kernel counts the threads of each sandbox alone.

        As root each has a user of its own. Else its namespace counts them, since Linux 5.14.
        """
        release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
        return self.kind == BUBBLEWRAP and (os.getuid() == 0 or release >= (5, 14))

    def _environment(self) -> dict[str, str] | None:
        if self.kind in (PODMAN, DOCKER):  # They need yours; the container gets none of it.
            return None
        return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}

    def _end(self, process: subprocess.Popen, name: str) -> None:
        process.kill()  # With bubblewrap, all that it has started ends.
        if self.kind in (PODMAN, DOCKER):
            subprocess.run([self.kind, "rm", "--force", name], capture_output=True)


def _bubblewrap(calls: int | None) -> list[str]:
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    library = os.path.dirname(os.__file__)
    dynamic = str(sysconfig.get_config_var("DESTSHARED") or library)
    packages = {"jax": packages_folder() / "jax", **needed_folders()}
    shown = {path: path for path in (library, dynamic, python)} | _system_libraries()
    shown |= {f"/packages/{name}": str(path) for name, path in packages.items()}
    folders = {str(parent) for path in shown for parent in Path(path).parents} - {"/"}
    others = [f"{library}/{name}" for name in ("site-packages", "dist-packages")]
    others = [path for path in others if os.path.isdir(path)]
    # Root becomes nobody once Python runs, which needs two rights until then; see child.py.
    as_root = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    as_user = ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    return [
        *("bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent", "--new-session"),
        *(as_root if os.getuid() == 0 else as_user),
        *("--seccomp", str(calls), "--proc", "/proc", "--dev", "/dev"),
        *_words("--perms", "0755", "--dir", each=sorted(folders)),
        *(word for path, source in shown.items() for word in ("--ro-bind", source, path)),
        *_words("--tmpfs", each=others),
        *_words("--remount-ro", each=[*others, "/proc", "/dev", "/"]),
        *("--chdir", "/", python),
    ]


def _words(*words: str, each: Sequence[str]) -> list[str]:
    return [word for path in each for word in (*words, path)]


def _system_libraries() -> dict[str, str]:
    """The libraries that this process has loaded with JAX, by all of their names."""
    import jax  # noqa: F401

    places = (*site_folders(), os.path.dirname(os.__file__))
    loaded = set(re.findall(r"(/\S+\.so\S*)$", Path("/proc/self/maps").read_text(), re.MULTILINE))
    found = {name: os.path.realpath(name) for name in glob.glob("/lib*/ld-linux*.so*")}
    for path in sorted(loaded):
        if path.startswith(places) or not os.path.isfile(path):
            continue
        names = glob.glob(glob.escape(path[: path.index(".so") + 3]) + "*")
        found |= {name: path for name in names if os.path.realpath(name) == os.path.realpath(path)}
    return found


@contextlib.contextmanager
def _filter_of_calls() -> Iterator[int]:
    """A file with the filter, as the kernel reads it (BPF)."""
    end, file = os.pipe()
    with open(file, "wb") as writing:
        writing.write(filter_of_calls(platform.machine()))
    try:
        yield end
    finally:
        os.close(end)


def filter_of_calls(machine: str) -> bytes:
    """The instructions of the filter for an architecture."""
    load, equal, above, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow, refuse, missing = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026

    def unless(number: int, answer: int) -> list[tuple[int, int, int, int]]:
        return [(equal, 0, 1, number), (give, 0, 0, answer)]

    instructions = [
        (load, 0, 0, 4),  # The architecture.
        (equal, 1, 0, ARCHITECTURES[machine]),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # The call's number.
        (above, 0, 1, 0x40000000),  # Another set of numbers for the same calls.
        (give, 0, 0, refuse),
    ]
    for number in REFUSED[machine].values():
        instructions += unless(number, refuse)
    instructions += unless(CLONE3, missing)
    instructions += [
        (equal, 0, 3, CLONE[machine]),
        (load, 0, 0, 16),  # Its flags.
        (any_bit, 1, 0, CLONE_THREAD),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
