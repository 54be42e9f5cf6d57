"""Downloads from a server of the test's own: whole, broken, wrong, out of reach."""

import contextlib
import hashlib
import http.server
import os
import signal
import socket
import ssl
import threading
import time

import pytest
import trustme

from jaxnets.data import download as module
from jaxnets.data.download import download
from jaxnets.data.published import PublishedFile, check_digest
from jaxnets.errors import UserError

CONTENT = bytes(range(256)) * 9000  # Two chunks and a bit.
NAME = "file.bin"
FILE = PublishedFile(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server:
    """Serves CONTENT under every path; what it does wrong is set by a test.

    Attributes:
      content: What it serves.
      sends: For each request after the probe, how many bytes come before the connection breaks.
      redirect: Where it sends everyone instead.
      status: The HTTP status.
      headers: Of every answer.
      waits: Whether it stops in the middle, with the connection open, until the test ends.
      requests: How many came so far.
    """

    def __init__(self):
        self.content, self.sends, self.redirect, self.status = CONTENT, [], None, 200
        self.headers = {"Content-Length": str(len(CONTENT))}
        self.waits, self.half_sent, self.ended = False, threading.Event(), threading.Event()
        self.requests = 0


def handler_of(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests += 1
            is_probe, body = server.requests == 1, server.content
            self.send_response(302 if server.redirect else server.status)
            if server.redirect:
                self.send_header("Location", server.redirect)
            for header in server.headers.items():
                self.send_header(*header)
            self.end_headers()
            if server.sends and not is_probe:
                body = body[: server.sends.pop(0)]
            with contextlib.suppress(OSError):  # The probe does not read it.
                if server.waits and not is_probe:
                    self.wfile.write(body[: len(body) // 2])
                    server.half_sent.set()
                    server.ended.wait(60)
                else:
                    self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format, *arguments):
            pass

    return Handler


@contextlib.contextmanager
def serving(server, context=None):
    """Runs a server; yields its address."""

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # A client that does not trust the certificate, or hangs up.

    with Quiet(("127.0.0.1", 0), handler_of(server)) as running:
        if context is not None:
            running.socket = context.wrap_socket(
                running.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        scheme = "http" if context is None else "https"
        try:
            yield f"{scheme}://localhost:{running.server_address[1]}"
        finally:
            server.ended.set()
            running.shutdown()


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
    """Trusts the authority, and asks a mirror once."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[0]))
    monkeypatch.setattr(module, "RETRIES", 0)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def mirror(server, authority):
    with serving(server, authority[1]) as address:
        yield address


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def assert_fails(match, folder, *mirrors):
    """Demands that nothing is downloaded, and one line that says why."""
    with pytest.raises(UserError, match=match) as raised:
        download([FILE], mirrors, folder, "it")
    assert "\n" not in str(raised.value)
    assert not folder.is_dir() or files_in(folder) == []


def test_a_file_comes_whole_and_leaves_nothing_else(tmp_path, server, mirror):
    folder = tmp_path / "new" / "folder"
    # Some servers add it to what is packed already.
    server.headers["Content-Encoding"] = "gzip"
    download([FILE], [mirror], folder, "it")
    assert files_in(folder) == [NAME]
    assert (folder / NAME).read_bytes() == CONTENT
    assert (folder / NAME).stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path, server, mirror):
    (tmp_path / NAME).write_bytes(b"the user's")
    download([FILE], [mirror], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == b"the user's"
    assert server.requests == 1  # The probe.


def test_a_broken_connection_is_tried_again(tmp_path, server, mirror, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 1)
    server.sends = [1_000_000]
    download([FILE], [mirror], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == 3


def test_a_connection_that_always_breaks_leaves_nothing(tmp_path, server, mirror):
    server.sends = [1000]
    expected = f"expected {len(CONTENT)} bytes, got 1000.*; place file.bin in {tmp_path}, as"
    assert_fails(f"cannot be downloaded .*localhost: {expected}", tmp_path, mirror)


def test_what_a_killed_process_left_goes(tmp_path, mirror):
    (tmp_path / ".partial").mkdir()
    for name in ("tmp1", NAME):
        (tmp_path / ".partial" / name).write_bytes(b"spoiled")
    download([FILE], [mirror], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert files_in(tmp_path) == [NAME]


def test_a_file_with_a_wrong_digest_never_gets_its_name(tmp_path, server, mirror):
    server.content = CONTENT[:-1] + b"x"
    assert_fails("SHA256 hash .*expected [0-9a-f]{64} but got [0-9a-f]{64}[);]", tmp_path, mirror)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
@pytest.mark.parametrize("size", [-1, 1], ids=["shorter", "longer"])
def test_a_file_of_another_size_is_refused(tmp_path, server, mirror, size, announced):
    server.content = (CONTENT + b"x")[: len(CONTENT) + size]
    server.headers = {"Content-Length": str(len(server.content))} if announced else {}
    assert_fails(f"expected {len(CONTENT)} bytes, got {len(server.content)}", tmp_path, mirror)


def test_an_endless_file_stops_at_its_published_size(tmp_path, server, mirror, monkeypatch):
    server.content, server.headers = CONTENT * 20, {}
    monkeypatch.setattr(module, "CHUNK", 1 << 16)
    assert_fails(f"got {(1 + len(CONTENT) // module.CHUNK) * module.CHUNK}", tmp_path, mirror)


def test_the_next_mirror_is_asked_when_one_has_another_file(tmp_path, mirror, authority):
    wrong = Server()
    wrong.content = bytes(len(CONTENT))
    with serving(wrong, authority[1]) as address:
        download([FILE], [address, mirror], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_redirect_over_https_is_followed(tmp_path, mirror, authority):
    moved = Server()
    moved.redirect, moved.content, moved.headers = f"{mirror}/{NAME}", b"", {"Content-Length": "0"}
    with serving(moved, authority[1]) as address:
        download([FILE], [address], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_plain_http_is_never_spoken(tmp_path, server, authority):
    plain = Server()
    with serving(plain) as address:
        assert_fails("localhost: not https", tmp_path, address)
        server.redirect, server.content = f"{address}/{NAME}", b""
        server.headers = {"Content-Length": "0"}
        with serving(server, authority[1]) as secure:
            assert_fails("localhost: not https", tmp_path, secure)
    assert (server.requests, plain.requests) == (1, 0)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, mirror, monkeypatch):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    assert_fails("certificate is not trusted", tmp_path / "folder", mirror)


def test_an_error_page_is_no_file(tmp_path, server, mirror):
    server.status = 404
    assert_fails("localhost: HTTP status 404", tmp_path, mirror)


# Out of reach: a line within five seconds, and the folder is not even created.


def test_a_closed_port_is_noticed_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        mirror = f"https://localhost:{free.getsockname()[1]}"
    expected = r"^it: not on this machine, and cannot be downloaded \(localhost: no connection\); "
    folder = tmp_path / "folder"
    assert_fails(f"{expected}place file.bin in {folder}, as published at {mirror}/", folder, mirror)
    assert not folder.exists()


def test_a_name_server_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    asked, ended = threading.Event(), threading.Event()

    def never(*arguments, **keywords):
        asked.set()
        ended.wait(60)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    mirrors = ("https://one.invalid", "https://two.invalid")
    assert_fails("one.invalid: no answer; two.invalid: no answer", tmp_path, *mirrors)
    assert asked.is_set() and not ended.is_set()
    ended.set()


def test_a_server_that_accepts_and_says_nothing_is_passed_over(tmp_path, mirror, monkeypatch):
    assert module.PROBE_SECONDS < 5
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


def test_a_server_that_stops_in_the_middle_is_given_up(tmp_path, server, mirror, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", (5.0, 0.2))
    server.waits = True
    assert_fails(f"expected {len(CONTENT)} bytes, got ", tmp_path, mirror)


# The folder


def test_a_folder_that_cannot_be_written_is_named_in_a_line(tmp_path, mirror):
    (tmp_path / "taken").write_text("a file")
    assert_fails("taken: cannot be written: File exists", tmp_path / "taken", mirror)


def test_a_full_disk_is_named_in_a_line(tmp_path, mirror, monkeypatch):
    save = module._save

    def save_to_full_disk(file, url, path, pooch):
        os.remove(path)
        os.symlink("/dev/full", path)  # Writing fails as on a disk without room.
        save(file, url, path, pooch)

    monkeypatch.setattr(module, "_save", save_to_full_disk)
    assert_fails("cannot be written: No space left on device", tmp_path, mirror)


def test_two_at_once_download_it_once(tmp_path, server, mirror):
    threads = [
        threading.Thread(target=download, args=([FILE], [mirror], tmp_path, "it")) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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
        assert server.half_sent.wait(60)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert files_in(tmp_path) == []


def test_a_digest_is_checked(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    check_digest(path, FILE.sha256)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="damaged: expected SHA-256 .*found .*delete it"):
        check_digest(path, FILE.sha256)
    with pytest.raises(UserError, match="cannot be read"):
        check_digest(tmp_path / "nowhere", "")
