"""Downloads published files with pooch: over https alone, checked, by one process at a time."""

import contextlib
import functools
import os
import shutil
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
import pooch
import requests
import urllib3
from tqdm import tqdm

from jaxnets.data.idx import PublishedFile
from jaxnets.errors import UserError, first_line

# A mirror that has not answered by then is out of reach, whatever hangs: names, routes or TLS.
PROBE_SECONDS = 3.0
TIMEOUT = (5.0, 20.0)  # Seconds to wait for a connection, and for the next bytes.
RETRIES = 2  # Further requests to a mirror for a file that came damaged or not whole.
CHUNK = 1 << 20
REASONS = {
    requests.exceptions.InvalidSchema: "not https",
    requests.exceptions.SSLError: "its certificate is not trusted",
    requests.exceptions.Timeout: "no answer",
    requests.exceptions.ConnectionError: "no connection",
}

pooch.get_logger().setLevel("ERROR")  # The progress bar says enough.


class _MirrorError(ValueError):
    """The failure of a mirror. It is a ValueError, because pooch asks again after one."""


def download(
    files: Sequence[PublishedFile], mirrors: Sequence[str], folder: Path, dataset: str
) -> None:
    """Downloads the missing files of a data set, each named only when its content is checked.

    If that fails, the UserError says which files to place where.
    """
    try:
        mirrors_in_reach = _probe_mirrors(mirrors, files[0].name)
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            for file in files:
                if not (folder / file.name).exists():  # Another process may have downloaded it.
                    _fetch(file, mirrors_in_reach, folder)
    except _MirrorError as error:
        raise UserError(
            "{}: not on this machine, and cannot be downloaded ({}); place {} in {}, as "
            "published at {}/",
            dataset,
            error,
            ", ".join(file.name for file in files),
            folder,
            mirrors[0],
        ) from None
    except OSError as error:
        raise UserError("{}: cannot be written: {}", folder, first_line(error)) from error


def _probe_mirrors(mirrors: Sequence[str], name: str) -> list[str]:
    """Asks all mirrors for a file at once; returns those to use, the first that answers first."""
    reached: list[str] = []
    failures: dict[str, str] = {}
    decided = threading.Event()

    def probe(mirror: str) -> None:
        try:
            with _opened(f"{mirror}/{name}", (PROBE_SECONDS, PROBE_SECONDS)):
                reached.append(mirror)
        except _MirrorError as error:
            failures[mirror] = str(error)
        if reached or len(failures) == len(mirrors):
            decided.set()

    for mirror in mirrors:  # Daemons: one that hangs must not keep the program from ending.
        threading.Thread(target=probe, args=(mirror,), daemon=True).start()
    decided.wait(PROBE_SECONDS)
    if not reached:
        raise _MirrorError(_joined(dict.fromkeys(mirrors, "no answer") | failures))
    return [*reached, *(mirror for mirror in mirrors if mirror not in (*reached, *failures))]


def _fetch(file: PublishedFile, mirrors: Sequence[str], folder: Path) -> None:
    """Downloads one file from the first mirror that has it."""
    failures = {}
    save: Any = functools.partial(_save, file)  # pooch's type of it names other arguments.
    partial, known = folder / ".partial", {file.name: file.sha256}
    try:
        for mirror in mirrors:
            source = pooch.create(partial, mirror, registry=known, retry_if_failed=RETRIES)
            try:
                path = source.fetch(file.name, downloader=save)
            except ValueError as error:
                failures[mirror] = str(error).partition(". ")[0]  # Without pooch's advice.
            else:
                os.chmod(path, 0o644)  # pooch lets its owner alone read it.
                with open(path, "rb") as checked:  # A power cut must not leave zeros in its place.
                    os.fsync(checked.fileno())
                os.replace(path, folder / file.name)
                return
        raise _MirrorError(f"{file.name}: {_joined(failures)}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # A killed process leaves it to the next one.


def _save(file: PublishedFile, url: str, path: str, _: pooch.Pooch) -> None:
    """Saves what a mirror sends: pooch's downloader, with limits on size and time."""
    size = 0
    bar = {"desc": file.name, "leave": False, "disable": None}  # Shown on a terminal only.
    with (
        _opened(url, TIMEOUT) as response,
        open(path, "wb") as whole,
        tqdm.wrapattr(whole, "write", file.size, **bar) as stream,
        contextlib.suppress(urllib3.exceptions.HTTPError),  # The connection broke.
    ):
        # Not decoded: some servers take the .gz of a file for an encoding.
        for piece in response.raw.stream(CHUNK, decode_content=False):
            size += len(piece)
            if size > file.size:
                break
            stream.write(piece)
    if size != file.size:
        raise _MirrorError(f"expected {file.size} bytes, got {size}")


@contextlib.contextmanager
def _opened(url: str, timeout: tuple[float, float]) -> Generator[requests.Response]:
    """A response whose body is not yet read; raises _MirrorError if there is none."""
    with requests.Session() as session:
        session.adapters.pop("http://")  # A redirect to http is refused too.
        try:
            response = session.get(
                url, headers={"Accept-Encoding": "identity"}, timeout=timeout, stream=True
            )
        except (requests.RequestException, OSError, UnicodeError) as error:
            reasons = (text for kind, text in REASONS.items() if isinstance(error, kind))
            raise _MirrorError(next(reasons, type(error).__name__)) from error
        with response:
            if response.status_code != 200:
                raise _MirrorError(f"HTTP status {response.status_code}")
            yield response


def _joined(failures: dict[str, str]) -> str:
    """Each mirror's host with its reason."""
    return "; ".join(f"{urlsplit(mirror).hostname}: {why}" for mirror, why in failures.items())
