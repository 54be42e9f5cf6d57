"""The secret that the processes of a run share: the user's or, on one machine, process 0's own."""

import contextlib
import ipaddress
import os
import secrets
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError

VARIABLE = "JAXNETS_SECRET"  # An environment variable.
MIN_BYTES, MAX_BYTES = 16, 4096
HOW = 'make one with: python -c "import secrets; print(secrets.token_hex())"'


def find_secret(secret_file: str | None, coordinator: str) -> bytes | Path:
    """The secret of the file or the environment; on loopback, else, the file of process 0's own."""
    if secret_file is not None:
        return read_secret(Path(secret_file).expanduser(), "secret_file")
    if (text := os.environ.get(VARIABLE)) is not None:
        return _long_enough(os.fsencode(text), VARIABLE)
    with contextlib.suppress(OSError):
        found = addresses(coordinator)
        if all(ipaddress.ip_address(address[0]).is_loopback for _, address in found):
            return own_secret_file(coordinator)
    raise UserError(
        f"coordinator: expected a secret that all processes share, in {VARIABLE} or "
        f"--secret_file=FILE; {HOW}"
    )


def read_secret(path: Path, name: str) -> bytes:
    """Reads a file that no other user can have read or written."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # No pipe's writer.
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and _is_private(status):
                return _long_enough(file.read(MAX_BYTES), name)
            reason = f"it has {stat.filemode(status.st_mode)}"
    except OSError as error:
        reason = error.strerror
    raise UserError(
        f"{name}: expected a file that only you can read (chmod 600), not a link, "
        f"got {path} ({reason}); {HOW}"
    )


def own_secret_file(coordinator: str) -> Path:
    """The file in which process 0 leaves a secret for this user's processes on this machine."""
    folder = Path(tempfile.gettempdir()) / f"jaxnets-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not (stat.S_ISDIR(status.st_mode) and _is_private(status)):
        raise UserError(
            f"{folder}: expected a folder that only you can access, got "
            f"{stat.filemode(status.st_mode)}; remove it or set {VARIABLE}"
        )
    return folder / host_and_port(coordinator)[1]


def write_own_secret(path: Path) -> bytes:
    """Writes a random secret in place of what an earlier run may have left."""
    secret = secrets.token_hex().encode()
    descriptor, partial = tempfile.mkstemp(dir=path.parent)  # 0600, and never through a link.
    with open(descriptor, "wb") as file:
        file.write(secret)
    os.replace(partial, path)
    return secret


def host_and_port(coordinator: str) -> tuple[str, str]:
    """The parts of HOST:PORT or [HOST]:PORT."""
    host, _, port = coordinator.rpartition(":")
    return host.strip("[]"), port


def addresses(coordinator: str) -> list[tuple[int, tuple[Any, ...]]]:
    """Each family and address of the coordinator."""
    found = socket.getaddrinfo(*host_and_port(coordinator), type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _long_enough(secret: bytes, name: str) -> bytes:
    secret = secret.strip()
    if len(secret) < MIN_BYTES:
        raise UserError(f"{name}: expected at least {MIN_BYTES} bytes, got {len(secret)}; {HOW}")
    return secret
