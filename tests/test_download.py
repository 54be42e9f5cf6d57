"""Downloads from a server of the test's own: whole, broken, wrong, out of reach."""

import contextlib
import hashlib
import http.server
import os
import resource
import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from jaxnets.data import download as module
from jaxnets.data.download import download
from jaxnets.data.idx import PublishedFile
from jaxnets.errors import UserError

CONTENT = bytes(range(256)) * 9000  # Two chunks and a bit.
NAME = "file.bin"
FILE = PublishedFile(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def length(size):
    return {"Content-Length": size}


class Server:
    """Serves CONTENT under every path; what it does wrong is set by a test.

    Without a length in the headers, the end of the connection ends the content. `sends` has, for
    each request after the probe, how many bytes come before the connection breaks. A server that
    `waits` stops in the middle, with the connection open, until the test ends.
    """

    def __init__(self, **wrong):
        self.content, self.headers, self.status = CONTENT, length(len(CONTENT)), 200
        self.sends, self.waits, self.requests = [], False, 0
        self.half_sent, self.ended = threading.Event(), threading.Event()
        vars(self).update(wrong)

    def answer(self, handler):
        self.requests += 1
        is_probe, body = self.requests == 1, self.content
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        if self.sends and not is_probe:
            body = body[: self.sends.pop(0)]
        with contextlib.suppress(OSError):  # The probe does not read it.
            if self.waits and not is_probe:
                handler.wfile.write(body[: len(body) // 2])
                self.half_sent.set()
                self.ended.wait(300)
            else:
                handler.wfile.write(body)
        handler.close_connection = True

    @contextlib.contextmanager
    def running(self, context=None):
        """Runs it; yields its address."""
        methods = {"do_GET": lambda it: self.answer(it), "log_message": lambda *_: None}
        handler = type("Handler", (http.server.BaseHTTPRequestHandler,), methods)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
            # Of a client that does not trust the certificate, or hangs up.
            vars(http_server)["handle_error"] = lambda *_: None
            http_server.daemon_threads = True
            if context is not None:
                http_server.socket = context.wrap_socket(
                    http_server.socket, server_side=True, do_handshake_on_connect=False
                )
            threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
            scheme = "http" if context is None else "https"
            try:
                yield f"{scheme}://localhost:{http_server.server_address[1]}"
            finally:
                self.ended.set()
                http_server.shutdown()


def redirect(address):
    return Server(status=302, content=b"", headers=length(0) | {"Location": f"{address}/{NAME}"})


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The certificate of an authority, and a server's from it."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return path, context


@pytest.fixture(autouse=True)
def trusting(authority, monkeypatch):
    """Trusts the authority, asks a mirror once, and waits for the slowest machine."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[0]))
    monkeypatch.setattr(module, "PROBE_SECONDS", 60)
    monkeypatch.setattr(module, "TIMEOUT", (60, 60))
    monkeypatch.setattr(module, "RETRIES", 0)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def mirror(server, authority):
    with server.running(authority[1]) as address:
        yield address


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def assert_fails(match, folder, *mirrors):
    """Demands that nothing is downloaded, and one line that says why."""
    with pytest.raises(UserError, match=match) as raised:
        download([FILE], mirrors, folder, "it")
    assert "\n" not in str(raised.value)
    assert not folder.is_dir() or files_in(folder) == []


def test_a_file_comes_whole_whatever_a_killed_process_left(tmp_path, server, mirror):
    folder = tmp_path / "new" / "folder"
    server.headers["Content-Encoding"] = "gzip"  # Some servers say so of what is a .gz already.
    for left in ((), ("tmp1", NAME)):
        for name in left:
            (folder / NAME).unlink(missing_ok=True)
            (folder / ".partial").mkdir(exist_ok=True)
            (folder / ".partial" / name).write_bytes(b"spoiled")
        download([FILE], [mirror], folder, "it")
        assert files_in(folder) == [NAME]
        assert (folder / NAME).read_bytes() == CONTENT
        assert (folder / NAME).stat().st_mode & 0o777 == 0o644
    (folder / NAME).write_bytes(b"the user's")
    download([FILE], [mirror], folder, "it")  # What is there is not downloaded again.
    assert (folder / NAME).read_bytes() == b"the user's"
    assert server.requests == 5  # Three probes, two downloads.


def test_a_file_is_on_the_disk_before_its_name(tmp_path, mirror, monkeypatch):
    """Else a power cut may leave zeros of its length, which no later start would replace."""
    synced, fsync, replace = [], os.fsync, os.replace

    def named(source, target):
        assert os.stat(source).st_ino in synced
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda f: (synced.append(os.fstat(f).st_ino), fsync(f)))
    monkeypatch.setattr(module.os, "replace", named)
    download([FILE], [mirror], tmp_path, "it")
    assert files_in(tmp_path) == [NAME]


def test_a_broken_connection_is_tried_again(tmp_path, server, mirror, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 1)
    server.sends = [1_000_000]
    download([FILE], [mirror], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == 3


SIZE, CHUNK = len(CONTENT), 1 << 16
DIGESTS = "expected [0-9a-f]{64} but got [0-9a-f]{64}"
WRONG = {
    "breaks off": (Server(sends=[1000]), f"expected {SIZE} bytes, got 1000"),
    "stops": (Server(waits=True), f"(expected {SIZE} bytes, got|no answer)"),
    "other bytes": (Server(content=CONTENT[:-1] + b"x"), f"SHA256 hash .*{DIGESTS}"),
    "shorter": (Server(content=CONTENT[:-1], headers=length(SIZE - 1)), f"got {SIZE - 1}"),
    "longer": (Server(content=CONTENT + b"x", headers=length(SIZE + 1)), f"got {SIZE + 1}"),
    "shorter, not announced": (Server(content=CONTENT[:-1], headers={}), f"got {SIZE - 1}"),
    "endless": (Server(content=CONTENT * 20, headers={}), f"got {(SIZE // CHUNK + 1) * CHUNK}"),
    "an error page": (Server(status=404), "localhost: HTTP status 404"),
}


@pytest.mark.parametrize("server, why", WRONG.values(), ids=WRONG)
def test_what_a_mirror_does_wrong_is_said_in_a_line(tmp_path, server, mirror, why, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", CHUNK)
    if server.waits:
        monkeypatch.setattr(module, "TIMEOUT", (60, 0.5))
    by_hand = rf"; place file.bin in {tmp_path}, as published at {mirror}/$"
    assert_fails(rf"cannot be downloaded \(.*{why}.*\){by_hand}", tmp_path, mirror)


def test_the_next_mirror_is_asked_a_redirect_followed(tmp_path, mirror, authority):
    for server, mirrors in ((Server(content=bytes(SIZE)), [mirror]), (redirect(mirror), [])):
        with server.running(authority[1]) as first:
            download([FILE], [first, *mirrors], tmp_path, "it")
        assert (tmp_path / NAME).read_bytes() == CONTENT
        (tmp_path / NAME).unlink()


def test_plain_http_and_certificates_of_strangers_are_refused(
    tmp_path, mirror, authority, monkeypatch
):
    plain = Server()
    with plain.running() as address:
        assert_fails("localhost: not https", tmp_path, address)
        with redirect(address).running(authority[1]) as secure:
            assert_fails("localhost: not https", tmp_path, secure)
    assert plain.requests == 0
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    assert_fails("certificate is not trusted", tmp_path / "folder", mirror)


# Out of reach: a line within five seconds, and the folder is not even created.


def test_a_closed_port_is_noticed_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        mirror = f"https://localhost:{free.getsockname()[1]}"
    expected = r"^it: not on this machine, and cannot be downloaded \(localhost: no connection\); "
    assert_fails(f"{expected}place file.bin in {tmp_path / 'new'}, as ", tmp_path / "new", mirror)
    assert not (tmp_path / "new").exists()


def test_a_server_that_accepts_and_says_nothing_is_passed_over(tmp_path, mirror, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = f"https://localhost:{silent.getsockname()[1]}"
        monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
        assert_fails("localhost: no answer", tmp_path / "folder", slow)
        assert not (tmp_path / "folder").exists()
        monkeypatch.setattr(module, "PROBE_SECONDS", 60)
        started = time.monotonic()
        download([FILE], [slow, mirror], tmp_path, "it")
        assert time.monotonic() - started < 50  # It does not hold up one that answers.
    assert (tmp_path / NAME).read_bytes() == CONTENT


# The folder


def test_a_folder_that_cannot_be_written_is_named(tmp_path, mirror):
    (tmp_path / "taken").write_text("a file")
    assert_fails("taken: cannot be written: File exists", tmp_path / "taken", mirror)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # As a disk without room.
    try:
        assert_fails("cannot be written: File too large", tmp_path / "new", mirror)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_two_at_once_download_it_once(tmp_path, server, mirror):
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: download([FILE], [mirror], tmp_path, "it"), range(2)))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == 3  # Two probes, one download.


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path, server, mirror, start_python):
    server.waits = True
    known = f"[PublishedFile({NAME!r}, {len(CONTENT)}, {FILE.sha256!r})]"
    process = start_python(
        "-c",
        "import pathlib\n"
        "from jaxnets.data.download import PublishedFile, download\n"
        f"download({known}, [{mirror!r}], pathlib.Path({str(tmp_path)!r}), 'it')",
    )
    with process:
        assert server.half_sent.wait(300)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=300)[1]
    assert files_in(tmp_path) == []
