"""Files that are written whole or not at all, and that are on the disk before their name is."""

import contextlib
import os
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """Yields a new file, which takes the path's place if the block raises nothing.

    The content is on the disk before the rename, and the rename before this returns.
    """
    partial = path.with_name(path.name + ".partial")
    # A crash left it; or it is somebody's link, which must not be followed.
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # The error that came first says more.
            partial.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows opens no folders.
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or leaves the old one."""
    with naming(path), replacing(path) as stream:
        stream.write(text.encode())


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets an OSError name the file, which a failed write, unlike a failed open, does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
