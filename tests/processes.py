"""What tests of processes share: how long one may take, and a port that is free."""

import socket

HANGS = 600  # Seconds after which a process hangs, however slow the machine.


def free_port() -> int:
    """The number of a port at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
