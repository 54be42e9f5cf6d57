"""The admission of processes to a run, and how messages travel between processes.

JAX's coordinator takes messages from any sender. So its socket is a Unix one in a private folder.
The other processes connect to process 0's listener at --coordinator, where

    process 0 sends   "jaxnets1", a nonce
    process I sends   I, the number of processes, a nonce of its own, MAC("join", all of this)
    process 0 sends   a verdict, MAC("admit", the verdict and all of this)

and then the connection carries what JAX in process I and the coordinator send each other. MAC is
HMAC-SHA256 with the secret that the processes share. A connection that does not authenticate within
some seconds is closed; so is the oldest of too many. Each process_id is admitted once. When all are
there, the listener closes. No process connects again: JAX ends a run whose connection breaks.
Nothing is encrypted.
"""

import contextlib
import functools
import hmac
import ipaddress
import secrets
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxnets.display import show
from jaxnets.errors import UserError
from jaxnets.machine.secret import (
    addresses,
    find_secret,
    host_and_port,
    read_secret,
    write_own_secret,
)

MAGIC, NONCE_BYTES, MAC_BYTES = b"jaxnets1", 32, 32
PROCESS = struct.Struct("!II")  # process_id, num_processes
JOIN_BYTES = PROCESS.size + NONCE_BYTES + MAC_BYTES
ADMITTED, USED_ID, OTHER_NUMBER = b"\1", b"\2", b"\3"  # The verdicts.
NO_VERDICT = bytes(1 + MAC_BYTES)  # The answer to a process that does not prove the secret.

HANDSHAKE_SECONDS = 5
MAX_VISITORS = 128  # Connections that have not authenticated yet.
RETRY_SECONDS = 0.1


class Place(NamedTuple):
    """The place of this process in its run."""

    coordinator: str
    num_processes: int
    process_id: int


class Tunnel:
    """A tunnel from this process to JAX's coordinator. JAX itself connects to `address`.

    `host` is the address of this machine that the run's other machines reach.
    """

    def __init__(self, place: Place, secret_file: str | None, seconds: float):
        """Joins the run or, in process 0, lets a thread wait for the others.

        Raises:
          UserError: There is no secret, process 0 cannot listen, or it refuses this process.
        """
        if not hasattr(socket, "AF_UNIX"):
            raise UserError("coordinator: expected a system with Unix sockets")
        secret = find_secret(secret_file, place.coordinator)
        short = None if len(tempfile.gettempdir()) < 80 else "/tmp"  # A path may have 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="jaxnets-", dir=short))
        path = str(folder / "jax")
        self.address = f"unix:{path}"
        self._files, self._threads = [folder], list[threading.Thread]()
        try:
            if place.process_id == 0:
                listener = listen(place.coordinator)
                self.host = listener.getsockname()[0]
                _say_who_is_awaited(place, seconds)
                if isinstance(secret, Path):
                    self._files.append(secret)
                    secret = write_own_secret(secret)

                def admitted(connection: socket.socket) -> None:
                    jax_side = functools.partial(_connect_unix, path)
                    self._start(_forward, connection, lambda: _retry(jax_side, seconds))

                self._start(admit, listener, place.num_processes, secret, admitted)
            else:
                _say_who_is_awaited(place, seconds)
                connection = join(place, secret, seconds)
                self.host = connection.getsockname()[0]
                jax_side = socket.socket(socket.AF_UNIX)
                jax_side.bind(path)
                jax_side.listen(1)
                self._start(_forward, connection, lambda: _accept_one(jax_side))
        except BaseException:
            self.remove_files()
            raise

    def remove_files(self) -> None:
        """Removes the socket and process 0's own secret: once JAX has connected."""
        for path in self._files:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def drain(self, seconds: float) -> None:
        """Waits, after JAX has disconnected, until its last messages are sent."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()


def _say_who_is_awaited(place: Place, seconds: float) -> None:
    """Prints which processes this one waits for, and until when at the latest."""
    coordinator, count, number = place
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    whom = f"process 0 at {coordinator}"
    if number == 0:
        others = "process 1" if count == 2 else f"processes 1 to {count - 1}"
        whom = f"{others} to come to {coordinator}"
    if count > 1:
        show(f"note: process {number} of {count} waits for {whom} until {until}", sys.stderr)


def listen(coordinator: str) -> socket.socket:
    """Process 0's listener, on the coordinator's address and on no other."""
    reason = "it stands for all addresses"
    try:
        for family, address in addresses(coordinator):
            if not ipaddress.ip_address(address[0]).is_unspecified:
                return socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror
    raise UserError(
        f"coordinator: cannot listen on {coordinator} ({reason}): expected an address of the "
        "machine of process 0 and a free port"
    )


class _Visitor:
    """A connection that has not authenticated yet."""

    def __init__(self, connection: socket.socket):
        self.connection, self.received = connection, b""
        self.until = time.monotonic() + HANDSHAKE_SECONDS
        self.challenge = MAGIC + secrets.token_bytes(NONCE_BYTES)
        connection.setblocking(False)
        self.send(self.challenge)

    def send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # It may have gone; a short message fits at once.
            self.connection.send(message)

    def has_asked(self) -> bool:
        """Whether the request is complete, or can no longer come."""
        chunk = b""
        with contextlib.suppress(OSError):
            chunk = self.connection.recv(JOIN_BYTES - len(self.received))
        self.received += chunk
        return not chunk or len(self.received) == JOIN_BYTES


def admit(
    listener: socket.socket,
    num_processes: int,
    secret: bytes,
    admitted: Callable[[socket.socket], None],
) -> None:
    """Calls `admitted` with the connection of each process but 0, once; then it closes."""
    missing = set(range(1, num_processes))
    visitors: list[_Visitor] = []  # The oldest first.
    with listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        while missing:
            for key, _ in selector.select(timeout=1):
                visitor = key.data
                if visitor is None:
                    with contextlib.suppress(OSError):
                        visitors.append(_Visitor(listener.accept()[0]))
                        selector.register(
                            visitors[-1].connection, selectors.EVENT_READ, visitors[-1]
                        )
                elif visitor in visitors and visitor.has_asked():
                    visitors.remove(visitor)
                    selector.unregister(visitor.connection)
                    answer, process_id = judge(
                        visitor.challenge, visitor.received, secret, num_processes, missing
                    )
                    visitor.send(answer)
                    if process_id is None:
                        visitor.connection.close()
                    else:
                        missing.remove(process_id)
                        admitted(visitor.connection)
            while visitors and (
                len(visitors) > MAX_VISITORS or visitors[0].until < time.monotonic()
            ):
                selector.unregister(visitors[0].connection)
                visitors.pop(0).connection.close()
        for visitor in visitors:
            visitor.connection.close()


def judge(
    challenge: bytes, received: bytes, secret: bytes, num_processes: int, missing: set[int]
) -> tuple[bytes, int | None]:
    """The answer to a process that wants to join, and its process_id if it is admitted."""
    content, mac = received[:-MAC_BYTES], received[-MAC_BYTES:]
    proof = _mac(secret, b"join", challenge, content)
    if len(received) != JOIN_BYTES or not hmac.compare_digest(mac, proof):
        return NO_VERDICT, None
    process_id, number = PROCESS.unpack_from(content)
    if number != num_processes:
        verdict = OTHER_NUMBER
    else:
        verdict = ADMITTED if process_id in missing else USED_ID
    answer = verdict + _mac(secret, b"admit", verdict, challenge, content)
    return answer, process_id if verdict == ADMITTED else None


def join(place: Place, secret: bytes | Path, seconds: float) -> socket.socket:
    """This process's connection to process 0, which may start some seconds later."""
    try:  # Again if process 0 has not started, or too many have connected.
        return _retry(lambda: _join_once(place, secret), seconds)
    except OSError as error:
        raise UserError(
            f"coordinator: process 0 did not answer at {place.coordinator} within "
            f"{seconds:g} s ({error.strerror or error}): expected it to be at work, its "
            "address to be reachable, and not all processes to have joined"
        ) from error


def _retry(connect: Callable[[], socket.socket], seconds: float) -> socket.socket:
    """Connects, again and again for so long; then the last OSError is raised."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _join_once(place: Place, secret: bytes | Path) -> socket.socket:
    connection = socket.create_connection(host_and_port(place.coordinator), HANDSHAKE_SECONDS)
    try:
        verdict = _ask(connection, place, secret)
        if verdict == OTHER_NUMBER:
            raise UserError(
                f"num_processes: expected as many as for process 0, got {place.num_processes}"
            )
        if verdict != ADMITTED:
            raise UserError(
                f"process_id: expected one that no other process has, got {place.process_id}"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _ask(connection: socket.socket, place: Place, secret: bytes | Path) -> bytes:
    """Process 0's verdict. A secret that process 0 makes is there once it sends its challenge."""
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    challenge = _receive(connection, len(MAGIC) + NONCE_BYTES, deadline)
    if not challenge.startswith(MAGIC):
        raise UserError(f"coordinator: {place.coordinator} is not process 0 of a run of jaxnets")
    if isinstance(secret, Path):
        secret = read_secret(secret, "coordinator")
    content = PROCESS.pack(place.process_id, place.num_processes)
    content += secrets.token_bytes(NONCE_BYTES)
    connection.sendall(content + _mac(secret, b"join", challenge, content))
    answer = _receive(connection, 1 + MAC_BYTES, deadline)
    verdict = answer[:1]
    if not hmac.compare_digest(answer[1:], _mac(secret, b"admit", verdict, challenge, content)):
        raise UserError(f"coordinator: process 0 at {place.coordinator} has another secret")
    return verdict


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly so many bytes, in time."""
    received = b""
    while len(received) < size:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionResetError("it closed the connection")
        received += chunk
    return received


def _mac(secret: bytes, label: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256; a label's parts always have the same lengths."""
    return hmac.digest(secret, label + b"".join(parts), "sha256")


def _forward(connection: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Copies both ways between another process and JAX in this one, until either ends."""
    with connection, contextlib.suppress(OSError), connect() as jax_side:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inward = threading.Thread(target=_copy, args=(connection, jax_side), daemon=True)
        inward.start()
        _copy(jax_side, connection)
        inward.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copies until one of the two is closed, and closes the other."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _accept_one(listener: socket.socket) -> socket.socket:
    with listener:
        return listener.accept()[0]


def _connect_unix(path: str) -> socket.socket:
    """A connection to JAX's coordinator, which starts meanwhile."""
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(path)
    except OSError:
        end.close()
        raise
    return end
