"""A folder's pictures as an array that need not fit into memory: from one file, or from their own.

A small set is decoded once into a .npy file, which is read by its rows (and not mapped: pages that
were looked at would count as the program's own memory). A large set is decoded anew by every epoch.
"""

import contextlib
import dataclasses
import io
import math
import os
import shutil
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from jaxnets.data.pictures.decode import BadPictureError, fit_square, read_picture
from jaxnets.errors import UserError, one_line, printable

# Pillow decodes without Python's lock, so threads share the work.
WORKERS = min(16, os.cpu_count() or 1)
# Pictures that wait for their turn to be written, at most.
CHUNK = 256
# A set that is larger when decoded is not stored.
MAX_STORED = 8 << 30
# Stored sets that are kept beside a folder: of another size, or of its former content.
KEPT = 2
STALE_AFTER = 24 * 3600.0
NAMED = 5


class BadPictures:
    """What becomes of bad pictures: they are named and skipped, or the first one ends the run."""

    def __init__(self, policy: str):
        """With "skip" or "fail"."""
        self._fail, self._lock = policy == "fail", threading.Lock()
        self._count, self._named = 0, []

    def add(self, path: bytes, reason: str) -> None:
        """Notes a bad picture.

        Args:
          path: Relative to the data set's folder.
          reason: What is wrong with it.

        Raises:
          UserError: The policy is "fail".
        """
        name = f"{printable(os.fsdecode(path))}: {printable(reason)}"
        if self._fail:
            raise UserError(f"{name} (--on_bad_image=skip leaves bad pictures out)")
        with self._lock:
            self._count += 1
            if len(self._named) < NAMED:
                self._named.append(name)

    def report(self) -> None:
        """Tells on stderr, in a line, what was skipped since the last report."""
        with self._lock:
            count, named = self._count, self._named
            self._count, self._named = 0, []
        if count:
            more = f"; and {count - len(named):,} more" if count > len(named) else ""
            noun = "picture is" if count == 1 else "pictures are"
            note(f"{count:,} bad {noun} skipped: {'; '.join(named)}{more}")


def note(line: str) -> None:
    """Tells the user a line on stderr."""
    print(one_line(f"note: {line}"), file=sys.stderr, flush=True)


class Encoded(Protocol):
    """Pictures that are yet to be decoded, wherever they come from.

    Attributes:
      bad: Where bad pictures are told.
    """

    bad: BadPictures

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """[S, S, C] of a picture."""
        ...

    def decode(self, row: int) -> np.ndarray | None:
        """A picture [S, S, C] uint8, or None if it is bad, which is noted."""
        ...


@dataclasses.dataclass
class Folder:
    """The picture files of a data set, and the form in which they are wanted.

    Attributes:
      root: The data set's folder.
      paths: [N] of bytes, relative to it: a few dozen bytes a picture, where a list of Path would
        take hundreds.
      size: Pixels a side.
      channels: 1 or 3.
      bad: Where bad pictures are told.
    """

    root: Path
    paths: np.ndarray
    size: int
    channels: int
    bad: BadPictures

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[S, S, C] of a picture."""
        return self.size, self.size, self.channels

    def decode(self, row: int) -> np.ndarray | None:
        """A picture [S, S, C] uint8, or None if it is bad, which is noted."""
        path = self.root / os.fsdecode(self.paths[row])
        try:
            picture = read_picture(path, side=self.size)
        except BadPictureError as error:
            if not path.is_file():
                raise OSError(f"{printable(str(path))}: gone while in use") from error
            self.bad.add(self.paths[row], str(error))
            return None
        return to_square(picture, self.shape)


def to_square(picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture of any size, grey or not, as pixels of a shape [S, S, C] uint8."""
    picture = fit_square(picture.convert("L" if shape[2] == 1 else "RGB"), shape[0])
    return np.asarray(picture).reshape(shape)


class Stored:
    """The rows of a .npy file [N, S, S, C] uint8."""

    bad_rows: frozenset[int] = frozenset()

    def __init__(self, path: Path):
        """Opens it.

        Raises:
          ValueError: It is no such file, or not whole.
          OSError: It cannot be read.
        """
        # Held open: another run may remove the file, but not what this one reads.
        self._file, shape, dtype = _open_npy(path)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        if dtype != np.uint8 or len(shape) != 4:
            raise ValueError(f"{shape} of {dtype}")
        self._start = self._file.tell()
        self.count, self.shape = shape[0], shape[1:]
        self._bytes = math.prod(self.shape)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[B] → [B, S, S, C]."""
        images = np.empty((len(rows), *self.shape), np.uint8)
        with self._lock:  # The file has one position.
            for row, image in zip(rows.tolist(), images, strict=True):
                self._file.seek(self._start + row * self._bytes)
                if self._file.readinto(image) != self._bytes:  # type: ignore[union-attr]
                    raise OSError("the stored pictures were cut short while in use")
        return images


def load_rows(path: Path) -> np.ndarray:
    """The array [N] of a .npy file, perhaps anybody's.

    Raises:
      ValueError: It is no such file, or not whole.
      OSError: It cannot be read.
    """
    file, shape, dtype = _open_npy(path)
    with file:
        if len(shape) != 1:
            raise ValueError(f"{shape} of {dtype}")
        return np.frombuffer(bytearray(file.read()), dtype)


def _open_npy(path: Path) -> tuple[io.FileIO, tuple[int, ...], np.dtype]:
    """A .npy file, read up to its numbers, of which it has as many as it declares.

    Raises:
      ValueError: It is another kind of file, or not whole.
      OSError: It cannot be opened; it is a link.
    """
    flags = ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK")  # Opening a pipe must not wait.
    handle = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(io.FileIO(handle))
        try:
            if np.lib.format.read_magic(file) != (1, 0):  # type: ignore[arg-type]
                raise ValueError("another version of the format")
            header = np.lib.format.read_array_header_1_0(file)  # type: ignore[arg-type]
            shape, fortran, dtype = header
        except Exception as error:  # The header is a literal of Python: it may be anything at all.
            raise ValueError(f"no .npy file: {error}") from error
        if fortran or dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"{shape} of {dtype}")
        if os.fstat(handle).st_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError("not whole")
        stack.pop_all()
        return file, shape, dtype


class Streamed:
    """A folder's pictures, decoded by some threads when they are asked for."""

    def __init__(self, folder: Encoded):
        """Of every picture of the folder."""
        self._folder, self.shape = folder, folder.shape
        self.bad_rows: set[int] = set()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[B] → [B, S, S, C]; bad pictures are black, and told once."""
        images = np.zeros((len(rows), *self.shape), np.uint8)

        def fill(place: int) -> None:
            row = int(rows[place])
            if row in self.bad_rows:
                return
            image = self._folder.decode(row)
            if image is None:
                self.bad_rows.add(row)
            else:
                images[place] = image

        # Threads of this call alone: none is left behind when a run ends, however it ends.
        with ThreadPoolExecutor(WORKERS) as threads:
            for _ in threads.map(fill, range(len(rows))):
                pass
        self._folder.bad.report()
        return images


def open_stored(places: Sequence[Path], name: str, shape: tuple[int, ...]) -> Stored | None:
    """The stored pictures of this name in the first place that has them whole.

    Args:
      places: Folders.
      name: Of the file.
      shape: [N, S, S, C] that it must have.
    """
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            stored = Stored(place / name)
            if (stored.count, *stored.shape) == shape:
                with contextlib.suppress(OSError):
                    os.utime(place / name)  # The least recently used goes first.
                return stored
    return None


def has_room(folder: Encoded, place: Path) -> bool:
    """Whether a folder's decoded pictures may be stored in a place and leave half of it free."""
    size = len(folder) * int(np.prod(folder.shape))
    return size <= MAX_STORED and size <= shutil.disk_usage(place).free // 2


def store(folder: Encoded, place: Path, name_of: Callable[[np.ndarray], str]) -> Stored:
    """Decodes all pictures into a file.

    Args:
      folder: The pictures.
      place: The folder of the file; the oldest others in it are removed.
      name_of: Told which [N] bool have proved to be good, whose rows alone the file has; returns
        the file's name.

    Raises:
      OSError: The disk is full, or cannot be written.
    """
    good = np.ones(len(folder), bool)
    with whole_file(place) as (stream, finish):
        _write_header(stream, (len(good), *folder.shape))
        start = stream.tell()
        for row, image in enumerate(in_threads(folder.decode, len(good), "decoding pictures")):
            if image is None:
                good[row] = False
            else:
                stream.write(image.data)
        stream.seek(0)
        _write_header(stream, (int(good.sum()), *folder.shape))
        assert stream.tell() == start  # NumPy leaves room for the number of rows to grow.
        name = name_of(good)
        finish(name)
    _remove_old(place)
    return Stored(place / name)


def in_threads(work: Callable[[int], Any], count: int, title: str) -> Iterator[Any]:
    """Yields work(0), work(1), ... in order, done by threads a bounded number ahead."""
    bar = tqdm(total=count, desc=title, unit="img", disable=None, leave=False, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(WORKERS) as threads:
        for first in range(0, count, CHUNK):
            rows = range(first, min(first + CHUNK, count))
            for result in threads.map(work, rows):
                yield result
                bar.update()


@contextlib.contextmanager
def whole_file(place: Path) -> Iterator[tuple[Any, Callable[[str], None]]]:
    """A file that gets its name when it is whole, or is gone."""
    partial = place / f"{uuid.uuid4().hex}.partial"
    try:
        with partial.open("xb") as stream:

            def finish(name: str) -> None:
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(partial, place / name)

            yield stream, finish
    finally:
        partial.unlink(missing_ok=True)


def _write_header(stream: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def _remove_old(place: Path) -> None:
    """Removes all but the latest files, and what a crash left half written."""
    with contextlib.suppress(OSError):
        files = sorted(place.glob("*-*x*.npy"), key=lambda path: path.stat().st_mtime, reverse=True)
        half = [p for p in place.glob("*.partial") if p.stat().st_mtime < time.time() - STALE_AFTER]
        for path in files[KEPT:] + half:
            path.unlink(missing_ok=True)
