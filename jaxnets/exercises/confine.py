"""Confines this process before it runs a submission: limits, system calls, files.

On Linux on x86-64 a filter (seccomp) refuses system calls that start a process, open a connection,
write or remove a file, or signal another process. Landlock, where the kernel has it, leaves only
Python's own files readable. Elsewhere there are limits alone.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # What a filter returns.
EPERM, ENOSYS = 1, 38
X86_64 = 0xC000003E
CLONE_THREAD = 0x10000
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# System calls by their numbers on x86-64.
REFUSED = {
    "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "bind": 49, "listen": 50,
    "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "truncate": 76,
    "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87,
    "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94,
    "ptrace": 101, "mknod": 133, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166,
    "reboot": 169, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "tkill": 200,
    "tgkill": 234, "utimes": 235, "mkdirat": 258, "mknodat": 259, "fchownat": 260, "unlinkat": 263,
    "renameat": 264, "linkat": 265, "symlinkat": 266, "fchmodat": 268, "unshare": 272,
    "utimensat": 280, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "renameat2": 316, "memfd_create": 319, "bpf": 321, "execveat": 322, "pidfd_send_signal": 424,
    "io_uring_setup": 425, "pidfd_open": 434, "shmget": 29, "setrlimit": 160,
}  # fmt: skip
MISSING = {"clone3": 435, "openat2": 437}  # glibc then takes the older call.


class Filter(ctypes.Structure):
    """One instruction of a filter."""

    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    ]


class Program(ctypes.Structure):
    """A filter's instructions."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]


def can_confine() -> bool:
    """Whether this system has what `confine` needs beyond limits."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def limit(seconds: int, memory: int) -> None:
    """Limits the time and memory that this process takes from now on, and the files it writes.

    Args:
      seconds: Processor time.
      memory: Address space beyond what is in use, in bytes.
    """
    import resource  # Not on Windows.

    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    limits = {
        resource.RLIMIT_CPU: int(used) + 1 + seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, value in limits.items():
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def confine_files(readable: Sequence[str]) -> None:
    """Leaves only some files readable, to this thread and those that it starts.

    Args:
      readable: Files, and folders in which modules may lie that are imported late.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, 1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: it ends with its parent.
    _call(libc.prctl, 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    _landlock(libc, readable)


def confine_calls() -> None:
    """Refuses the system calls above from now on, to every thread of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = _instructions()
    array = (Filter * len(instructions))(*instructions)
    program = Program(len(instructions), array)
    # seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC.
    _call(libc.syscall, 317, 1, 1, ctypes.byref(program))


def _call(function: Any, *arguments: Any) -> None:
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if function(*words):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _instructions() -> list[Filter]:
    load, equal, above, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06

    def refuse(number: int, error: int) -> list[Filter]:
        return [Filter(equal, 0, 1, number), Filter(give, 0, 0, ERRNO | error)]

    def refuse_if(number: int, argument: int, bits: int, error: int) -> list[Filter]:
        """Refuses a call, one of whose argument's bits is set."""
        low = 16 + 8 * argument
        return [
            Filter(equal, 0, 4, number),
            Filter(load, 0, 0, low),
            Filter(any_bit, 0, 1, bits),
            Filter(give, 0, 0, ERRNO | error),
            Filter(give, 0, 0, ALLOW),
        ]

    number = Filter(load, 0, 0, 0)
    filters = [
        Filter(load, 0, 0, 4),  # The architecture.
        Filter(equal, 1, 0, X86_64),
        Filter(give, 0, 0, KILL),
        number,
        Filter(above, 0, 1, 0x40000000),  # Another set of numbers for the same calls.
        Filter(give, 0, 0, KILL),
    ]
    for call in REFUSED.values():
        filters += refuse(call, EPERM)
    for call in MISSING.values():
        filters += refuse(call, ENOSYS)
    filters += refuse_if(2, 1, WRITES, EPERM)  # open
    filters += refuse_if(257, 2, WRITES, EPERM)  # openat
    # prlimit64 may read a limit, not set one: the low half of a pointer is not 0.
    filters += refuse_if(302, 2, 0xFFFFFFFF, EPERM)
    # clone may start a thread, no process.
    filters += [
        Filter(equal, 0, 3, 56),
        Filter(load, 0, 0, 16),
        Filter(any_bit, 1, 0, CLONE_THREAD),
        Filter(give, 0, 0, ERRNO | EPERM),
        Filter(give, 0, 0, ALLOW),
    ]
    return filters


def _landlock(libc: Any, readable: Sequence[str]) -> None:
    execute, read_file, read_dir = 1, 4, 8
    everything = (1 << 13) - 1  # All rights of its first version: to write, remove, make ...
    ruleset = libc.syscall(444, struct.pack("<Q", everything), ctypes.c_size_t(8), 0)
    if ruleset < 0:  # The kernel has no Landlock.
        return
    try:
        for path in filter(os.path.exists, dict.fromkeys(map(os.path.realpath, readable))):
            rights = execute | read_file | read_dir if os.path.isdir(path) else read_file
            opened = os.open(path, os.O_PATH)
            try:
                rule = struct.pack("<Qi", rights, opened)
                _call(libc.syscall, 445, ruleset, 1, rule, 0)
            finally:
                os.close(opened)
        _call(libc.syscall, 446, ruleset, 0)
    finally:
        os.close(ruleset)
