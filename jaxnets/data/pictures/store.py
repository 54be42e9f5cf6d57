"""Pictures as an array that need not fit into memory: read from one file, or decoded when needed.

A small set is decoded once into a .npy file, which is read by its rows (and not mapped: pages that
were looked at would count as the program's own memory). A large set is decoded in every epoch.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import DTypeLike
from tqdm import tqdm

from jaxnets.data.pictures.decode import BadPictureError, read_square
from jaxnets.display import one_line, printable
from jaxnets.errors import UserError, first_line, interruptible

WORKERS = min(16, os.cpu_count() or 1)  # Pillow decodes without Python's lock.
CHUNK = 256  # The most pictures that are decoded before the first of them is used.
MAX_STORED = 8 << 30  # A set that is larger when decoded is not stored.
KEPT = 2  # Stored files that are kept in a folder: of other sizes, or of its former content.
STALE_AFTER = 24 * 3600.0  # Seconds; a younger file may be another run's, half written.
NAMED = 5  # Bad pictures that a report names.

Index = int | np.ndarray  # A row, or several.


class BadPictures:
    """Collects bad pictures, which are reported and skipped, or ends the run at the first one."""

    def __init__(self, policy: str):
        """Policy: "skip" or "fail"."""
        self._fail, self._lines = policy == "fail", []

    def add(self, name: str, reason: str) -> None:
        """Notes a bad picture; raises UserError if the policy is "fail"."""
        line = f"{printable(name)}: {printable(reason)}"
        if self._fail:
            raise UserError(f"{line} (on_bad_image=skip leaves bad pictures out)")
        self._lines.append(line)

    def report(self) -> None:
        """Prints one line on stderr about what was skipped since the last report."""
        lines, self._lines = self._lines, []
        if lines:
            more = f"; and {len(lines) - NAMED:,} more" if len(lines) > NAMED else ""
            noun = "picture is" if len(lines) == 1 else "pictures are"
            _note(f"{len(lines):,} bad {noun} skipped: {'; '.join(lines[:NAMED])}{more}")


def _note(line: str) -> None:
    """Prints a note on stderr."""
    print(one_line(f"note: {line}"), file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Encoded pictures, wherever they come from, and the shape to which they are decoded."""

    content: Callable[[int], Path | bytes]  # The file or the bytes of a row's picture.
    name: Callable[[int], str]  # The name of a row's picture, for messages.
    key: Callable[[], str]  # A name for the pictures that are good so far.
    shape: tuple[int, int, int]  # [S, S, C]
    bad: BadPictures

    def file(self) -> str:
        """Returns the name of the file in which the good pictures are stored."""
        return f"{self.key()}-{'x'.join(map(str, self.shape))}.npy"

    def decode(self, row: int) -> np.ndarray | None:
        """Returns a picture [S, S, C] uint8, or None if it is bad; OSError if its file is gone."""
        content = self.content(row)
        try:
            return read_square(content, self.shape)
        except BadPictureError as error:
            if isinstance(content, Path) and not content.is_file():
                raise OSError(f"{printable(str(content))}: gone while in use") from error
            self.bad.add(self.name(row), str(error))
            return None


class Stored:
    """The rows of a .npy file; ValueError if it does not hold a shape [N, S, S, C] of uint8."""

    bad_rows: frozenset[int] = frozenset()

    def __init__(self, path: Path, shape: tuple[int, ...]):
        array = open_npy(path)
        if (array.shape, array.dtype, array.flags.c_contiguous) != (shape, np.uint8, True):
            raise ValueError(f"{array.shape} of {array.dtype}")
        self.shape, self._start, self._size = shape[1:], array.offset, math.prod(shape[1:])
        # Held open: another run may remove the file, but not what this one reads.
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[B] → [B, S, S, C]."""
        images = np.empty((len(rows), *self.shape), np.uint8)
        with self._lock:  # The file has one position.
            for row, image in zip(rows.tolist(), images, strict=True):
                self._file.seek(self._start + row * self._size)
                if self._file.readinto(image) != self._size:  # type: ignore[arg-type]
                    raise OSError("the stored pictures were cut short while in use")
        return images


def open_npy(path: Path) -> np.memmap:
    """Maps the array of a .npy file, which may be untrusted; ValueError if it is damaged."""
    if path.is_symlink() or not path.is_file():  # Opening a pipe would wait for ever.
        raise ValueError("expected a file")
    try:
        array: Any = np.load(path, mmap_mode="r")
        whole = array.offset + array.nbytes == path.stat().st_size
    except Exception as error:  # The header is a literal of Python: it may be anything at all.
        raise ValueError(f"no .npy file: {error}") from error
    if not whole:
        raise ValueError("not whole")
    return array


class Streamed:
    """Rows [N] of encoded pictures, which several threads decode when they are asked for."""

    def __init__(self, source: Encoded, rows: np.ndarray):
        self._source, self._rows, self.shape = source, rows, source.shape
        self.bad_rows: set[int] = set()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[B] → [B, S, S, C]; bad pictures are black, and reported once."""
        images = np.zeros((len(rows), *self.shape), np.uint8)

        def fill(image: np.ndarray, row: int) -> None:
            if row in self.bad_rows:
                return
            pixels = self._source.decode(int(self._rows[row]))
            if pixels is None:
                self.bad_rows.add(row)
            else:
                image[...] = pixels

        # Threads of this call alone: none is left behind when a run ends, however it ends.
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(fill, images, rows.tolist()))  # It raises what a thread did.
        self._source.bad.report()
        return images


class Pictures:
    """An array [N, S, S, C] uint8 whose pictures are read when they are asked for.

    A slice gives another view, any other index a NumPy array.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Stored | Streamed, rows: np.ndarray):
        """Offers rows [N] of a source."""
        self._source, self._rows = source, rows
        self.shape = (len(rows), *source.shape)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """The bytes of all pictures, decoded."""
        return int(np.prod(self.shape))

    @overload
    def __getitem__(self, index: slice) -> "Pictures": ...
    @overload
    def __getitem__(self, index: Index) -> np.ndarray: ...
    def __getitem__(self, index: Index | slice) -> "np.ndarray | Pictures":
        if isinstance(index, slice):
            return self.select(index)
        rows = self._rows[index]
        images = self._source.read(np.atleast_1d(rows))
        return images if np.ndim(rows) else images[0]

    def select(self, rows: np.ndarray | slice) -> "Pictures":
        """Another view, of some of the pictures."""
        return Pictures(self._source, self._rows[rows])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self._source.read(self._rows).astype(dtype or self.dtype, copy=False)

    def readable(self, index: Index) -> np.ndarray:
        """Returns 1.0 for each picture of the index, 0.0 for those that proved bad when read."""
        bad = list(self._source.bad_rows)
        return 1 - np.isin(self._rows[index], bad).astype(np.float32)


def open_pixels(
    source: Encoded, good: np.ndarray, places: Sequence[Path]
) -> tuple[Stored | Streamed, Path | None]:
    """Opens the good pictures, in their order: from a stored file, stored now, or streamed.

    `good` [N] bool says which to take; those that prove bad while they are stored become False. The
    file is looked for in all places and written to the first that can be written, which is returned
    too; None if nothing had to be written.
    """
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            path = place / source.file()
            stored = Stored(path, (int(good.sum()), *source.shape))
            with contextlib.suppress(OSError):
                os.utime(path)  # The least recently used file is removed first.
            return stored, None
    place = next(filter(_is_writable, places), None)
    size = int(good.sum()) * math.prod(source.shape)
    # Half of the disk's free space is left.
    if place and size <= MAX_STORED and size <= shutil.disk_usage(place).free // 2:
        try:
            return _store(source, good, place), place
        except OSError as error:
            _note(f"{place}: {first_line(error)}; the pictures are decoded in every epoch")
    return Streamed(source, np.flatnonzero(good)), place


def _is_writable(place: Path) -> bool:
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        return os.access(place, os.W_OK)
    return False


def _store(source: Encoded, good: np.ndarray, place: Path) -> Stored:
    """Decodes the good pictures into a file, and marks those that prove bad."""
    rows = np.flatnonzero(good)

    def write_header(stream: IO[bytes]) -> None:  # NumPy's has room for any number of rows.
        shape = (int(good.sum()), *source.shape)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)

    with interruptible(), whole_file(place, source.file) as stream:
        write_header(stream)
        decoded = in_threads(lambda n: source.decode(int(rows[n])), len(rows), "decoding pictures")
        for row, image in zip(rows, decoded, strict=True):
            if image is None:
                good[row] = False
            else:
                stream.write(image.data)
        stream.seek(0)
        write_header(stream)
    _remove_old(place)
    return Stored(place / source.file(), (int(good.sum()), *source.shape))


def in_threads(work: Callable[[int], Any], count: int, title: str) -> Iterator[Any]:
    """Yields work(0), work(1), ... in order; threads do it, a bounded number ahead."""
    bar = tqdm(total=count, desc=title, unit="img", disable=None, leave=False, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(WORKERS) as threads:
        for first in range(0, count, CHUNK):
            for result in threads.map(work, range(first, min(first + CHUNK, count))):
                yield result
                bar.update()


def save_rows(rows: np.ndarray, path: Path) -> None:
    """Writes a .npy file for the next start; a full disk does not stop the run."""
    with contextlib.suppress(OSError), whole_file(path.parent, lambda: path.name) as stream:
        np.save(stream, rows)


@contextlib.contextmanager
def whole_file(place: Path, name: Callable[[], str]) -> Generator[IO[bytes]]:
    """Opens a file that gets its name when it is whole, and is removed otherwise.

    A power cut may lose the name; the file is then made again.
    """
    partial = place / f"{uuid.uuid4().hex}.partial"
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, place / name())
    finally:
        partial.unlink(missing_ok=True)


def _remove_old(place: Path) -> None:
    """Removes all but the latest files, and what a crash left half written."""
    with contextlib.suppress(OSError):
        files = sorted(place.glob("*-*x*.npy"), key=lambda path: path.stat().st_mtime, reverse=True)
        half = [p for p in place.glob("*.partial") if p.stat().st_mtime < time.time() - STALE_AFTER]
        for path in files[KEPT:] + half:
            path.unlink(missing_ok=True)
