"""Downloads from a server of the test's own: whole, broken, wrong, out of reach."""

import contextlib
import hashlib
import http.server
import socket
import threading

import pytest

from jaxnets.base.errors import UserError
from jaxnets.data import download as module
from jaxnets.data.download import download
from jaxnets.data.idx import PublishedFile

CONTENT = bytes(range(256)) * 9000  # Two chunks and a bit.
NAME = "file.bin"
FILE = PublishedFile(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@contextlib.contextmanager
def serving(*bodies, status=200):
    """Answers the n-th request with the n-th of some bodies, then always the last; yields where."""
    waiting = list(bodies)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Encoding", "gzip")  # Some servers say so of a .gz file.
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
            self.close_connection = True

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def asking_once(monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 0)


def test_a_file_comes_whole_and_is_not_asked_for_again(tmp_path):
    with serving(CONTENT) as mirror:
        download([FILE], [mirror], tmp_path / "new", "it")
    download([FILE], [mirror], tmp_path / "new", "it")  # The server is gone.
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]
    assert (tmp_path / "new" / NAME).read_bytes() == CONTENT


def test_a_broken_connection_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRIES", 1)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with serving(CONTENT[:1000], CONTENT) as mirror:
        download([FILE], [mirror], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (CONTENT[:-1] + b"x", 200, "localhost: SHA256 hash .*"),
        (CONTENT[:1000], 200, "localhost: SHA256 hash .*"),
        (b"", 404, "localhost: HTTPError"),
    ],
)
def test_a_mirror_that_is_wrong_is_named_and_the_next_one_asked(tmp_path, body, status, why):
    with serving(body, status=status) as mirror:
        where = rf"place file.bin in {tmp_path}, as published at {mirror}/$"
        with pytest.raises(UserError, match=rf"cannot be downloaded \({why}\); {where}"):
            download([FILE], [mirror], tmp_path, "it")
        assert list(tmp_path.iterdir()) == []
        with serving(CONTENT) as second:
            download([FILE], [mirror, second], tmp_path, "it")
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_closed_port_and_a_folder_that_cannot_be_written_are_named(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        mirror = f"http://localhost:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=r"cannot be downloaded \(localhost: ConnectionError\)"):
        download([FILE], [mirror], tmp_path, "it")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken: cannot be written: "):
        download([FILE], [mirror], tmp_path / "taken", "it")
