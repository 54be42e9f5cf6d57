"""Published files brought to a folder: over https alone, checked, resumed, and never half there.

A download grows as FILE.partial and is renamed when its size and SHA-256 are those of the published
file. What was interrupted goes on where it stopped, if the server can.
"""

import contextlib
import dataclasses
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jaxnets.errors import UserError

# Mirrors that have not answered by then count as out of reach, whatever hangs: names, routes, TLS.
PROBE_SECONDS = 3.0
# For each connection, and for each wait for more bytes.
TIMEOUT = (5.0, 20.0)
# Times that every mirror is tried: a connection that breaks goes on where it broke.
ROUNDS = 3
CHUNK = 1 << 20
# The bytes as they are published; gzip files would otherwise come unpacked from some servers.
AS_IT_IS = {"Accept-Encoding": "identity"}


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file whose content is known before it comes.

    Attributes:
      name: Of the file.
      size: In bytes.
      sha256: Of the whole file.
    """

    name: str
    size: int
    sha256: str


class _MirrorError(Exception):
    """Why a mirror did not do."""


def https_session(certificates: str | bool = True):
    """A session that knows https alone: a redirect to http is refused like any other scheme.

    Args:
      certificates: True for the usual authorities, or a file of the trusted ones.
    """
    import requests

    session = requests.Session()
    session.adapters.pop("http://")
    session.verify = certificates
    session.max_redirects = 5
    return session


def download(
    files: Sequence[PublishedFile],
    mirrors: Sequence[str],
    folder: Path,
    what: str,
    session: Callable[[], Any] = https_session,
) -> None:
    """Downloads files to a folder.

    Args:
      files: What is missing there.
      mirrors: Addresses below which the files lie, each https.
      folder: Made if it does not exist.
      what: The data set's name, for messages.
      session: Makes a requests.Session.

    Raises:
      UserError: No mirror is in reach, none has the right file, or the folder cannot be written;
        the message says which files to place where.
    """
    instead = (
        f"place {', '.join(file.name for file in files)} in {folder}, as published at {mirrors[0]}/"
    )
    reached, failures = _probe_mirrors(mirrors, files[0], session)
    if not reached:
        raise UserError(
            f"{what}: not on this machine, and out of reach ({_joined(failures)}); {instead}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusive_lock(folder):
            for file in files:
                if not (folder / file.name).exists():
                    _fetch(file, folder / file.name, reached, session())
    except _MirrorError as error:
        raise UserError(f"{what}: cannot be downloaded ({error}); or {instead}") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error


def check_digest(path: Path, sha256: str) -> None:
    """Raises UserError if a file is not the published one."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != sha256:
        raise UserError(
            f"{path}: damaged: expected SHA-256 {sha256}, found {found}; delete it, and it is "
            f"downloaded anew"
        )


def _probe_mirrors(
    mirrors: Sequence[str], file: PublishedFile, session: Callable[[], Any]
) -> tuple[list[str], dict[str, str]]:
    """Asks all mirrors for a file; waits for the first to answer, PROBE_SECONDS at most.

    Returns:
      The mirrors that may do, the quickest first, none if none answered; and why the others do not.
    """
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def ask(mirror: str) -> None:
        try:
            timeout = (PROBE_SECONDS, PROBE_SECONDS)
            with _opened(session(), f"{mirror}/{file.name}", {}, timeout):
                answers.put((mirror, None))
        except _MirrorError as error:
            answers.put((mirror, str(error)))

    # Daemons: a name server that never answers must not keep the program from ending.
    for mirror in mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    failures: dict[str, str] = {}
    deadline = time.monotonic() + PROBE_SECONDS
    while len(failures) < len(mirrors):
        try:
            mirror, failure = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return [], {**dict.fromkeys(mirrors, "no answer"), **failures}
        if failure is None:
            rest = [other for other in mirrors if other != mirror and other not in failures]
            return [mirror, *rest], failures
        failures[mirror] = failure
    return [], failures


def _fetch(file: PublishedFile, path: Path, mirrors: Sequence[str], session: Any) -> None:
    """Brings one file, from the mirrors one after the other, and again where a connection broke.

    Raises:
      _MirrorError: None of them did.
    """
    from tqdm import tqdm

    partial = path.with_name(f"{path.name}.partial")
    failures: dict[str, str] = {}
    wrong: set[str] = set()
    # Shown on a terminal only.
    with tqdm(
        desc=file.name, total=file.size, unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        for mirror in [*mirrors] * ROUNDS:
            if mirror in wrong:
                continue
            try:
                begun = _append(file, partial, f"{mirror}/{file.name}", session, bar)
            except _MirrorError as error:
                failures[mirror] = str(error)
                continue
            with partial.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found == file.sha256:
                partial.replace(path)
                return
            failures[mirror] = f"expected SHA-256 {file.sha256}, got {found}"
            partial.unlink()
            if begun == 0:  # All of it came from there: it would come again.
                wrong.add(mirror)
    raise _MirrorError(f"{file.name}: {_joined(failures)}")


def _append(file: PublishedFile, partial: Path, url: str, session: Any, bar: Any) -> int:
    """Adds what is missing to a partial file; returns where it began.

    Raises:
      _MirrorError: The mirror fails, or offers a file of another size.
    """
    import requests
    import urllib3

    begun = partial.stat().st_size if partial.exists() else 0
    if begun > file.size:
        begun = 0
    if begun == file.size:
        return begun
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    with _opened(session, url, headers, TIMEOUT) as response:
        if response.status_code == 206:
            offered = response.headers.get("Content-Range", "nothing")
            if not offered.startswith(f"bytes {begun}-"):
                raise _MirrorError(f"expected bytes {begun}-, offered {offered[:40]!r}")
        else:  # A server that knows no ranges sends the whole.
            begun = 0
            offered = response.headers.get("Content-Length", str(file.size))
            if offered != str(file.size):
                raise _MirrorError(f"expected {file.size} bytes, offered {offered}")
        bar.reset()
        bar.update(begun)
        size = begun
        with partial.open("r+b" if begun else "wb") as stream:
            stream.seek(begun)
            try:
                while piece := response.raw.read(CHUNK, decode_content=False):
                    size += len(piece)
                    if size > file.size:
                        raise _MirrorError(f"expected {file.size} bytes, got more")
                    stream.write(piece)
                    bar.update(len(piece))
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise _MirrorError(_reason(error)) from error
    if size < file.size:
        raise _MirrorError(f"expected {file.size} bytes, got {size}")
    return begun


@contextlib.contextmanager
def _opened(session: Any, url: str, headers: dict[str, str], timeout: Any) -> Iterator[Any]:
    """A response that has come, its body not yet read.

    Raises:
      _MirrorError: There is none, or it is an error.
    """
    import requests

    try:
        response = session.get(
            url,
            headers=headers | AS_IT_IS,
            timeout=timeout,
            stream=True,
            verify=session.verify,  # Else REQUESTS_CA_BUNDLE would replace a session's own.
        )
    except (requests.RequestException, OSError, UnicodeError) as error:
        raise _MirrorError(_reason(error)) from error
    with response:
        if response.status_code not in (200, 206):
            raise _MirrorError(f"HTTP status {response.status_code}")
        yield response


def _reason(error: Exception) -> str:
    """A line that says why, without the objects that the libraries print."""
    import requests

    if isinstance(error, requests.exceptions.InvalidSchema):
        return "not https"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    return type(error).__name__


def _joined(failures: dict[str, str]) -> str:
    """Each mirror's host with its reason."""
    hosts = {urlsplit(mirror).hostname: reason for mirror, reason in failures.items()}
    return "; ".join(f"{host}: {reason}" for host, reason in hosts.items())


@contextlib.contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Waits until no other process downloads to the folder."""
    try:
        import fcntl
    except ImportError:  # Windows. Two at once would spoil each other's partial file, and notice.
        yield
        return
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
