"""The system calls that bubblewrap refuses to a submission, as a program for the kernel's filter.

They take memory of the kernel, which no limit of a process counts: sockets hold what was sent, and
System V's shared memory, queues and semaphores stay when nobody uses them.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; include/uapi/linux/bpf_common.h.
"""

import platform
import struct

# The kernel's name of each machine, and the numbers of these calls there: socket, socketpair,
# shmget, msgget, semget, io_uring_setup (which opens sockets too).
MACHINES = {
    "x86_64": (0xC000003E, (41, 53, 29, 68, 64, 425)),
    "aarch64": (0xC00000B7, (198, 199, 194, 186, 190, 425)),
}
X32 = 0x40000000  # From this number on are x86_64's calls with short pointers.
NUMBER, MACHINE = 0, 4  # Where they are in what the filter reads.
LOAD, IF_EQUAL, IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # Its instructions.
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # The answers; the second is the error EPERM.


def refusing() -> bytes:
    """The filter for this machine; b"" where the calls' numbers are not known."""
    if platform.machine() not in MACHINES:
        return b""
    machine, numbers = MACHINES[platform.machine()]
    # Each is an instruction, how many to skip if it holds and if not, and its number. The last
    # instruction refuses.
    count = len(numbers)
    program = [
        (LOAD, 0, 0, MACHINE),
        (IF_EQUAL, 0, count + 3, machine),
        (LOAD, 0, 0, NUMBER),
        (IF_AT_LEAST, count + 1, 0, X32),
        *((IF_EQUAL, count - place, 0, number) for place, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *one) for one in program)
