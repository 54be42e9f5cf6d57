"""Strangers at the port of a run of several processes: nothing they do changes the run.

In place of JAX's coordinator there is a server that sends back what it gets.
"""

import contextlib
import hmac
import os
import resource
import secrets
import socket
import stat
import struct
import tempfile
import threading
import time

import psutil
import pytest
from conftest import HANGS

from jaxnets.errors import UserError
from jaxnets.machine import admission
from jaxnets.machine.admission import Place, Tunnel
from jaxnets.machine.secret import find_secret, own_secret_file, read_secret

CHALLENGE, REQUEST, ANSWER = 8 + 32, 4 + 4 + 32 + 32, 1 + 32  # Bytes.
# What a client of gRPC sends first: HTTP/2's preface and an empty SETTINGS frame.
GRPC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def receive(connection, size):
    """So many bytes, or those that come before the end."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while len(received) < size and (chunk := connection.recv(size - len(received))):
            received += chunk
    return received


def request(secret, challenge, process_id=1, num_processes=3):
    """What a process sends, by the protocol as it is written down."""
    content = struct.pack("!II", process_id, num_processes) + secrets.token_bytes(32)
    return content + hmac.new(secret, b"join" + challenge + content, "sha256").digest()


class EchoRun:
    """A run of three processes on this machine."""

    def __init__(self):
        self.place = Place(f"127.0.0.1:{free_port()}", 3, 0)
        self.first = Tunnel(self.place, None, HANGS)
        self.secret = read_secret(own_secret_file(self.place.coordinator), "test")
        self.others, self.ends, self.accepted = [], [], []
        self.coordinator = socket.socket(socket.AF_UNIX)
        self.coordinator.bind(self.first.address.removeprefix("unix:"))
        self.coordinator.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                self.accepted.append(self.coordinator.accept()[0])
                threading.Thread(target=self._echo, args=self.accepted[-1:], daemon=True).start()

    def _echo(self, end):
        with contextlib.suppress(OSError):
            while data := end.recv(1 << 16):
                end.sendall(data)

    def connect(self):
        """A stranger's connection, which has read the challenge, and that."""
        host, port = self.place.coordinator.split(":")
        connection = socket.create_connection((host, int(port)), HANGS)
        return connection, receive(connection, CHALLENGE)

    def join(self, process_id, seconds=HANGS, **changes):
        place = self.place._replace(process_id=process_id, **changes)
        self.others.append(Tunnel(place, None, seconds))
        return self.others[-1]

    def jax(self, tunnel):
        """The end that JAX has in that process."""
        self.ends.append(socket.socket(socket.AF_UNIX))
        self.ends[-1].settimeout(HANGS)
        self.ends[-1].connect(tunnel.address.removeprefix("unix:"))
        return self.ends[-1]

    def assert_goes_on(self):
        """Both others join and reach the coordinator; then nobody listens any more."""
        for process_id in (1, 2):
            end, sent = self.jax(self.join(process_id)), secrets.token_bytes(1 << 20)
            threading.Thread(target=end.sendall, args=(sent,), daemon=True).start()
            assert receive(end, len(sent)) == sent
        admitting = self.first._threads[0]
        admitting.join(HANGS)
        with pytest.raises(ConnectionRefusedError):
            self.connect()

    def close(self):
        for tunnel in (self.first, *self.others):
            tunnel.remove_files()
        for end in (self.coordinator, *self.accepted, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """The folder for temporary files; no secret is set."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("JAXNETS_SECRET", raising=False)
    return tmp_path


@pytest.fixture
def run(temporary):
    run = EchoRun()
    yield run
    for process_id in (1, 2):  # Ends the thread that admits, if it has not ended.
        with contextlib.suppress(UserError):
            run.join(process_id, seconds=0)
    run.close()


def test_the_processes_of_a_user_find_each_other_and_leave_nothing(run, temporary):
    secret_file = own_secret_file(run.place.coordinator)
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret_file.parent.stat().st_mode) == 0o700
    assert run.first.host == "127.0.0.1"
    run.assert_goes_on()
    run.close()
    assert list(temporary.iterdir()) == [secret_file.parent]
    assert list(secret_file.parent.iterdir()) == []


def test_the_end_of_one_side_is_the_end_of_the_other(run):
    end = run.jax(run.join(1))
    end.sendall(b"x")
    assert receive(end, 1) == b"x"
    run.accepted[0].shutdown(socket.SHUT_RDWR)
    assert receive(end, 1) == b""
    other = run.jax(run.join(2))
    other.sendall(b"x")
    assert receive(other, 1) == b"x"
    other.close()
    run.first.drain(HANGS)
    assert not any(thread.is_alive() for thread in run.first._threads)


# Strangers


def test_another_secret_is_refused(run, monkeypatch, tmp_path):
    with monkeypatch.context() as environment:
        environment.setenv("JAXNETS_SECRET", "f" * 64)
        with pytest.raises(UserError, match="has another secret"):
            run.join(1)
    connection, challenge = run.connect()
    with connection:
        connection.sendall(request(b"f" * 64, challenge))
        assert receive(connection, ANSWER + 1) == bytes(ANSWER)
    run.assert_goes_on()


def test_the_bytes_of_another_connection_are_worth_nothing(run):
    (first, challenge), (second, _) = run.connect(), run.connect()
    with first, second:
        second.sendall(request(run.secret, challenge))
        assert receive(second, ANSWER + 1) == bytes(ANSWER)
        # Process 0's own challenge, sent back, and a proof of the other direction.
        content = struct.pack("!II", 1, 3) + challenge[8:]
        proof = hmac.new(run.secret, b"admit" + challenge + content, "sha256").digest()
        first.sendall(content + proof)
        assert receive(first, ANSWER + 1) == bytes(ANSWER)
    run.assert_goes_on()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n\r\n", GRPC, bytes(REQUEST), b"\xff" * REQUEST, b"x" * (1 << 20)],
    ids=["silence", "HTTP", "gRPC", "zeros", "ones", "a megabyte"],
)
def test_garbage_half_a_message_and_too_long_a_one_change_nothing(run, sent):
    connection, _ = run.connect()
    with connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(sent)
        run.assert_goes_on()  # While it is still connected.


def test_who_proves_nothing_is_cut_off(run, monkeypatch):
    monkeypatch.setattr(admission, "HANDSHAKE_SECONDS", 0.05)
    connection, _ = run.connect()
    with connection:
        connection.sendall(b"half")
        assert receive(connection, 1) == b""


def test_two_thousand_idle_connections_keep_nobody_out(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    before = psutil.Process().num_fds()
    with contextlib.ExitStack() as idle:
        for _ in range(2000):
            idle.enter_context(run.connect()[0])
        assert psutil.Process().num_fds() < before + 2000 + 150  # Process 0 keeps 128.
        run.assert_goes_on()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_used_process_id_and_another_number_of_processes_are_refused(run):
    run.join(1)
    for process_id in (1, 3, 2**32 - 1):
        with pytest.raises(UserError, match="process_id: expected one that no other process has"):
            run.join(process_id)
    connection, challenge = run.connect()  # Process 0's own.
    with connection:
        connection.sendall(request(run.secret, challenge, process_id=0))
        assert receive(connection, ANSWER + 1)[0] == 2
    for number in (2, 4):
        with pytest.raises(UserError, match=f"num_processes: expected .*, got {number}"):
            run.join(2, num_processes=number)
    end = run.jax(run.join(2))
    end.sendall(b"here")
    assert receive(end, 4) == b"here"


def test_only_one_process_0_listens_and_only_on_its_own_address(run, monkeypatch):
    port = run.place.coordinator.split(":")[1]
    monkeypatch.setenv("JAXNETS_SECRET", run.secret.decode())
    hosts = "127.0.0.1", "203.0.113.9", "0.0.0.0", "[::]", "no.such.host.invalid"
    for host in hosts:  # A used port; another machine's; all interfaces.
        with pytest.raises(UserError, match="coordinator: cannot listen on .*expected an"):
            Tunnel(Place(f"{host}:{port}", 3, 0), None, HANGS)
    for address in {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)}:
        if address != "127.0.0.1":
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, int(port)), HANGS)
    run.assert_goes_on()


# A false process 0


@pytest.fixture
def false_process_0(temporary, monkeypatch):
    """Starts a server on loopback that does something with each connection."""
    monkeypatch.setenv("JAXNETS_SECRET", "s" * 32)
    listener = socket.create_server(("127.0.0.1", 0))

    def start(behave):
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        behave(connection)

        threading.Thread(target=serve, daemon=True).start()
        return Place(f"127.0.0.1:{listener.getsockname()[1]}", 2, 1)

    yield start
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_process_joins_only_who_proves_the_secret(false_process_0):
    def reflect(connection):
        connection.sendall(b"jaxnets1" + bytes(32))
        connection.sendall(b"\1" + receive(connection, REQUEST)[-32:])

    with pytest.raises(UserError, match="has another secret"):
        Tunnel(false_process_0(reflect), None, HANGS)


def test_another_service_is_named(false_process_0):
    place = false_process_0(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2" * 9))
    with pytest.raises(UserError, match="is not process 0"):
        Tunnel(place, None, HANGS)


@pytest.mark.parametrize("bytes_first", [0, 8, 40])
def test_silence_is_not_waited_for(false_process_0, monkeypatch, bytes_first):
    def drip(connection):
        with contextlib.suppress(OSError):
            connection.sendall((b"jaxnets1" + bytes(32))[:bytes_first])
            receive(connection, 1 << 20)

    monkeypatch.setattr(admission, "HANDSHAKE_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(UserError, match="process 0 did not answer at 127.0.0.1:.* within 0.2 s"):
        Tunnel(false_process_0(drip), None, 0.2)
    assert time.monotonic() - started < HANGS


# The secret


def test_a_secret_is_asked_for_where_strangers_may_reach_the_port(temporary, monkeypatch):
    for host in ("203.0.113.9", "[2001:db8::1]", "no.such.host.invalid"):
        with pytest.raises(UserError, match="coordinator: expected a secret .*token_hex"):
            find_secret(None, f"{host}:8476")
    monkeypatch.setenv("JAXNETS_SECRET", "fifteen bytes..")
    with pytest.raises(UserError, match="JAXNETS_SECRET: expected at least 16 bytes, got 15"):
        find_secret(None, "203.0.113.9:8476")
    monkeypatch.setenv("JAXNETS_SECRET", "sixteen bytes...\n")
    assert find_secret(None, "203.0.113.9:8476") == b"sixteen bytes..."
    file = temporary / "file"
    file.write_text("a secret of the file\n")
    file.chmod(0o600)
    assert find_secret(str(file), "127.0.0.1:8476") == b"a secret of the file"


def test_a_secret_that_others_may_know_is_refused(temporary):
    file, link = temporary / "file", temporary / "link"
    file.write_text("a secret of the file\n")
    link.symlink_to(file)
    os.mkfifo(temporary / "pipe", 0o600)
    (temporary / "short").write_text("short")
    (temporary / "short").chmod(0o600)
    for mode in (0o644, 0o640, 0o620, 0o602):
        file.chmod(mode)
        with pytest.raises(UserError, match="expected a file that only you can read .*it has -r"):
            find_secret(str(file), "127.0.0.1:8476")
    file.chmod(0o600)
    for name in ("link", "pipe", "short", "none", "."):
        with pytest.raises(UserError, match="secret_file: expected "):
            find_secret(str(temporary / name), "127.0.0.1:8476")


def test_a_secret_is_kept_in_a_folder_of_ones_own(temporary):
    folder, elsewhere = temporary / f"jaxnets-{os.geteuid()}", temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    for make in (
        lambda: folder.symlink_to(elsewhere),
        lambda: (folder.write_text("a file"), folder.chmod(0o600)),
        lambda: (folder.mkdir(), folder.chmod(0o755)),
    ):
        make()
        with pytest.raises(UserError, match="expected a folder that only you can access"):
            Tunnel(Place(f"127.0.0.1:{free_port()}", 2, 0), None, HANGS)
        folder.rmdir() if folder.is_dir() and not folder.is_symlink() else folder.unlink()
    assert list(temporary.iterdir()) == [elsewhere] and not any(elsewhere.iterdir())


def test_a_link_in_place_of_the_secret_is_replaced_and_never_read(temporary):
    victim, place = temporary / "victim", Place(f"127.0.0.1:{free_port()}", 1, 0)
    victim.write_text("v" * 64)
    secret_file = own_secret_file(place.coordinator)
    secret_file.symlink_to(victim)
    with pytest.raises(UserError, match="expected a file that only you can read .*not a link"):
        read_secret(secret_file, "coordinator")
    tunnel = Tunnel(place, None, HANGS)  # Of a single process: it admits nobody.
    assert not secret_file.is_symlink() and len(read_secret(secret_file, "coordinator")) == 64
    tunnel.drain(HANGS)
    tunnel.remove_files()
    assert victim.read_text() == "v" * 64
