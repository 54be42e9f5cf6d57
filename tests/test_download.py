"""Downloads from a server of the test's own: resumed, refused, out of reach."""

import contextlib
import hashlib
import http.server
import re
import socket
import ssl
import threading
import time

import pytest
import trustme

from jaxnets.data import download as module
from jaxnets.data.download import PublishedFile, check_digest, download, https_session
from jaxnets.errors import UserError

CONTENT = bytes(range(256)) * 9000  # Two chunks and a bit.
NAME = "file.bin"


class Server:
    """Serves CONTENT under every path; what it does wrong is set by a test.

    Attributes:
      content: What it serves.
      ranges: Whether it knows Range.
      breaks_after: Bytes after which it closes the connection, promising the rest.
      redirect: Where it sends everyone instead.
      requests: The Range header of every request so far.
    """

    def __init__(self):
        self.content, self.ranges, self.breaks_after = CONTENT, True, []
        self.redirect, self.status, self.length = None, 200, None
        self.requests = []


def handler_of(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            server.requests.append(self.headers.get("Range"))
            if server.redirect:
                self.send_response(302)
                self.send_header("Location", server.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = len(server.content)
            begin = int(wanted[1]) if wanted and server.ranges else 0
            if begin >= size:
                self.send_error(416)
                return
            self.send_response(206 if begin else server.status)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            if server.length != "none":
                self.send_header("Content-Length", server.length or str(size - begin))
            self.end_headers()
            body = server.content[begin:]
            if server.breaks_after and len(server.requests) > 1:  # The first request is the probe.
                body = body[: server.breaks_after.pop(0)]
            with contextlib.suppress(OSError):  # The probe does not read it.
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
            running.shutdown()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority that the test's sessions trust, and nobody else."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context, lambda: https_session(str(path))


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def mirror(server, authority):
    with serving(server, authority[0]) as address:
        yield address


@pytest.fixture
def session(authority):
    return authority[1]


FILE = PublishedFile(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_comes_whole_and_leaves_nothing_else(tmp_path, mirror, session):
    download([FILE], [mirror], tmp_path / "new" / "folder", "it", session)
    assert files_in(tmp_path / "new" / "folder") == [NAME]
    assert (tmp_path / "new" / "folder" / NAME).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path, server, mirror, session):
    (tmp_path / NAME).write_bytes(b"the user's")
    download([FILE], [mirror], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == b"the user's"
    assert len(server.requests) == 1  # The probe.


def test_a_broken_connection_goes_on_where_it_broke(tmp_path, server, mirror, session):
    server.breaks_after = [1_000_000, 300_000]
    download([FILE], [mirror], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == [None, None, "bytes=1000000-", "bytes=1300000-"]


def test_what_came_is_kept_and_the_next_run_goes_on(tmp_path, server, mirror, session):
    server.breaks_after = [1000] * module.ROUNDS
    with pytest.raises(UserError, match="cannot be downloaded .*localhost.* place file.bin in"):
        download([FILE], [mirror], tmp_path, "it", session)
    assert files_in(tmp_path) == [f"{NAME}.partial"]
    server.requests.clear()
    download([FILE], [mirror], tmp_path, "it", session)
    assert server.requests == [None, "bytes=3000-"]
    assert files_in(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(tmp_path, server, mirror, session):
    server.ranges = False
    server.breaks_after = [1_000_000]
    download([FILE], [mirror], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == [None, None, "bytes=1000000-"]


def test_a_spoiled_beginning_is_thrown_away(tmp_path, server, mirror, session):
    (tmp_path / f"{NAME}.partial").write_bytes(b"spoiled")
    download([FILE], [mirror], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=7-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 1], ids=["as large", "larger"])
def test_a_partial_file_of_wrong_bytes_as_large_as_the_file_is_replaced(
    tmp_path, mirror, session, size
):
    (tmp_path / f"{NAME}.partial").write_bytes(bytes(size))
    download([FILE], [mirror], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_file_with_a_wrong_digest_never_gets_its_name(tmp_path, server, mirror, session):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match="expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        download([FILE], [mirror], tmp_path, "it", session)
    assert files_in(tmp_path) == []
    assert server.requests == [None, None]  # It is not asked again for what it has not.


@pytest.mark.parametrize("length", [None, "none"], ids=["announced", "not announced"])
@pytest.mark.parametrize("size", [-1, 1], ids=["shorter", "longer"])
def test_a_file_of_another_size_is_refused(tmp_path, server, mirror, session, size, length):
    server.content, server.length = (CONTENT + b"x")[: len(CONTENT) + size], length
    with pytest.raises(UserError, match=f"expected {len(CONTENT)} bytes|HTTP status 416"):
        download([FILE], [mirror], tmp_path, "it", session)
    assert NAME not in files_in(tmp_path)


def test_an_endless_file_stops_at_its_published_size(tmp_path, server, mirror, session):
    server.content, server.length = CONTENT * 20, "none"
    with pytest.raises(UserError, match="got more"):
        download([FILE], [mirror], tmp_path, "it", session)
    partial = tmp_path / f"{NAME}.partial"
    assert not partial.exists() or partial.stat().st_size <= len(CONTENT)


def test_the_next_mirror_is_asked_when_one_has_another_file(tmp_path, mirror, session, authority):
    wrong = Server()
    wrong.content = bytes(len(CONTENT))
    with serving(wrong, authority[0]) as address:
        download([FILE], [address, mirror], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_redirect_over_https_is_followed(tmp_path, mirror, session, authority):
    moved = Server()
    moved.redirect = f"{mirror}/{NAME}"
    with serving(moved, authority[0]) as address:
        download([FILE], [address], tmp_path, "it", session)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_plain_http_is_never_spoken(tmp_path, server, session, authority):
    plain = Server()
    with serving(plain) as address:
        with pytest.raises(UserError, match="localhost: not https"):
            download([FILE], [address], tmp_path, "it", session)
        server.redirect = f"{address}/{NAME}"
        with serving(server, authority[0]) as secure, pytest.raises(UserError, match="not https"):
            download([FILE], [secure], tmp_path, "it", session)
    assert len(server.requests) == 1
    assert plain.requests == []
    assert files_in(tmp_path) == []


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, mirror):
    with pytest.raises(UserError, match="certificate is not trusted"):
        download([FILE], [mirror], tmp_path, "it")
    assert files_in(tmp_path) == []


def test_an_error_page_is_no_file(tmp_path, server, mirror, session):
    server.status = 404
    with pytest.raises(UserError, match="localhost: HTTP status 404"):
        download([FILE], [mirror], tmp_path, "it", session)
    assert files_in(tmp_path) == []


# Out of reach


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_closed_port_is_noticed_at_once(tmp_path):
    started = time.perf_counter()
    mirror = f"https://localhost:{closed_port()}"
    with pytest.raises(UserError) as raised:
        download([FILE], [mirror], tmp_path / "folder", "it")
    assert time.perf_counter() - started < 2
    message = str(raised.value)
    assert message.startswith("it: not on this machine, and out of reach (localhost: no connection")
    assert f"place file.bin in {tmp_path / 'folder'}" in message
    assert "\n" not in message
    assert not (tmp_path / "folder").exists()


def test_a_name_server_that_never_answers_is_noticed_within_five_seconds(tmp_path, monkeypatch):
    asked = threading.Event()

    def never(*arguments, **keywords):
        asked.set()
        time.sleep(8)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    started = time.perf_counter()
    with pytest.raises(UserError, match="one.invalid: no answer; two.invalid: no answer"):
        download([FILE], ["https://one.invalid", "https://two.invalid"], tmp_path, "it")
    assert asked.is_set()
    assert time.perf_counter() - started < 5


def test_a_server_that_accepts_and_says_nothing_is_noticed_within_five_seconds(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.perf_counter()
        with pytest.raises(UserError, match="out of reach"):
            download([FILE], [f"https://localhost:{silent.getsockname()[1]}"], tmp_path, "it")
        assert time.perf_counter() - started < 5


def test_a_mirror_out_of_reach_does_not_hold_up_one_that_answers(tmp_path, mirror, session):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.perf_counter()
        slow = f"https://localhost:{silent.getsockname()[1]}"
        download([FILE], [slow, mirror], tmp_path, "it", session)
        assert time.perf_counter() - started < module.PROBE_SECONDS
    assert (tmp_path / NAME).read_bytes() == CONTENT


# The folder


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path, mirror, session):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken: cannot be written: File exists"):
        download([FILE], [mirror], tmp_path / "taken", "it", session)


def test_two_at_once_download_it_once(tmp_path, server, mirror, session):
    threads = [
        threading.Thread(target=download, args=([FILE], [mirror], tmp_path, "it", session))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert len(server.requests) == 3  # Two probes, one download.


def test_a_digest_is_checked(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    check_digest(path, hashlib.sha256(CONTENT).hexdigest())
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="damaged: expected SHA-256 .*found .*delete it"):
        check_digest(path, hashlib.sha256(CONTENT).hexdigest())
    with pytest.raises(UserError, match="cannot be read"):
        check_digest(tmp_path / "nowhere", "")
