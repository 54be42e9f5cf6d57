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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from jaxnets.data.pictures.decode import BadPictureError, read_picture, to_square
from jaxnets.errors import UserError, one_line, printable

# Pillow decodes without Python's lock, so threads share the work.
WORKERS = min(16, os.cpu_count() or 1)
# The most pictures that are decoded before the first of them is used.
CHUNK = 256
# A set that is larger when decoded is not stored.
MAX_STORED = 8 << 30
# Stored files that are kept in a folder: of other sizes, or of its former content.
KEPT = 2
STALE_AFTER = 24 * 3600.0
NAMED = 5


class BadPictures:
    """Collects bad pictures, which are reported and skipped, or ends the run at the first one."""

    def __init__(self, policy: str):
        """Policy: "skip" or "fail"."""
        self._fail, self._lock = policy == "fail", threading.Lock()
        self._count, self._named = 0, []

    def add(self, name: str, reason: str) -> None:
        """Notes a bad picture.

        Raises:
          UserError: The policy is "fail".
        """
        line = f"{printable(name)}: {printable(reason)}"
        if self._fail:
            raise UserError(f"{line} (--on_bad_image=skip leaves bad pictures out)")
        with self._lock:
            self._count += 1
            if len(self._named) < NAMED:
                self._named.append(line)

    def report(self) -> None:
        """Prints one line on stderr about what was skipped since the last report."""
        with self._lock:
            count, named = self._count, self._named
            self._count, self._named = 0, []
        if count:
            more = f"; and {count - len(named):,} more" if count > len(named) else ""
            noun = "picture is" if count == 1 else "pictures are"
            note(f"{count:,} bad {noun} skipped: {'; '.join(named)}{more}")


def note(line: str) -> None:
    """Prints a note on stderr."""
    print(one_line(f"note: {line}"), file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Encoded pictures, wherever they come from, and the shape to which they are decoded.

    Attributes:
      content: Returns the file or the bytes of a row's picture.
      name: Returns the name of a row's picture, for messages.
      shape: [S, S, C] of a decoded picture.
      bad: Collects the bad ones.
    """

    content: Callable[[int], Path | bytes]
    name: Callable[[int], str]
    shape: tuple[int, int, int]
    bad: BadPictures

    def decode(self, row: int) -> np.ndarray | None:
        """Returns a picture [S, S, C] uint8, or None if it is bad, which is noted.

        Raises:
          OSError: Its file is gone.
        """
        content = self.content(row)
        try:
            return to_square(read_picture(content, side=self.shape[0]), self.shape)
        except BadPictureError as error:
            if isinstance(content, Path) and not content.is_file():
                raise OSError(f"{printable(str(content))}: gone while in use") from error
            self.bad.add(self.name(row), str(error))
            return None


class Stored:
    """The rows of a .npy file."""

    bad_rows: frozenset[int] = frozenset()

    def __init__(self, path: Path, shape: tuple[int, ...]):
        """Opens the file, which must hold an array of this shape [N, S, S, C], uint8.

        Raises:
          ValueError: It holds something else, or is not whole.
          OSError: It cannot be read.
        """
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
    """Maps the array of a .npy file, which may be anybody's.

    Raises:
      ValueError: It is no such file, or is shorter or longer than its header says.
      OSError: It cannot be read.
    """
    if path.is_symlink() or not path.is_file():  # Opening a pipe would wait for ever.
        raise ValueError("expected a file")
    try:
        array: Any = np.load(path, mmap_mode="r")
        whole = array.offset + array.nbytes == path.stat().st_size
    except OSError:
        raise
    except Exception as error:  # The header is a literal of Python: it may be anything at all.
        raise ValueError(f"no .npy file: {error}") from error
    if not whole:
        raise ValueError("not whole")
    return array


def save_rows(rows: np.ndarray, path: Path) -> None:
    """Writes a .npy file for the next start; a full disk is no reason to stop."""
    with contextlib.suppress(OSError), whole_file(path.parent, lambda: path.name) as stream:
        np.save(stream, rows)


class Streamed:
    """Pictures that several threads decode when they are asked for."""

    def __init__(self, source: Encoded, rows: np.ndarray):
        """Offers these rows [N] of a source."""
        self._source, self._rows, self.shape = source, rows, source.shape
        self.bad_rows: set[int] = set()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[B] → [B, S, S, C]; bad pictures are black, and reported once."""
        images = np.zeros((len(rows), *self.shape), np.uint8)

        def fill(place: int) -> None:
            row = int(rows[place])
            if row in self.bad_rows:
                return
            image = self._source.decode(int(self._rows[row]))
            if image is None:
                self.bad_rows.add(row)
            else:
                images[place] = image

        # Threads of this call alone: none is left behind when a run ends, however it ends.
        with ThreadPoolExecutor(WORKERS) as threads:
            for _ in threads.map(fill, range(len(rows))):
                pass
        self._source.bad.report()
        return images


def open_pixels(
    source: Encoded, good: np.ndarray, places: Sequence[Path], name_of: Callable[[np.ndarray], str]
) -> tuple[Stored | Streamed, Path | None]:
    """Opens the pixels of the good pictures: from a stored file, stored now, or streamed.

    Args:
      source: All N pictures.
      good: [N] bool, which to take; those that prove bad while they are stored become False.
      places: Folders that may hold the file; it is written to the first that can be written.
      name_of: Returns the file's name for those that are good.

    Returns:
      The good pictures in their order; the folder that can be written, None if nothing had to be.
    """
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            path = place / name_of(good)
            stored = Stored(path, (int(good.sum()), *source.shape))
            with contextlib.suppress(OSError):
                os.utime(path)  # The least recently used file is removed first.
            return stored, None
    place = next(filter(_is_writable, places), None)
    size = int(good.sum()) * math.prod(source.shape)
    # Half of the disk's free space is left.
    if place and size <= MAX_STORED and size <= shutil.disk_usage(place).free // 2:
        try:
            return _store(source, good, place, name_of), place
        except OSError as error:
            reason = error.strerror or error
            note(f"{place}: {reason}; the pictures are decoded in every epoch")
    return Streamed(source, np.flatnonzero(good)), place


def _is_writable(place: Path) -> bool:
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        return os.access(place, os.W_OK)
    return False


def _store(
    source: Encoded, good: np.ndarray, place: Path, name_of: Callable[[np.ndarray], str]
) -> Stored:
    """Decodes the good pictures into a file, and marks those that prove bad.

    Raises:
      OSError: The disk is full, or cannot be written.
    """
    rows = np.flatnonzero(good)

    def decode(number: int) -> np.ndarray | None:
        return source.decode(int(rows[number]))

    with whole_file(place, lambda: name_of(good)) as stream:
        _write_header(stream, (len(rows), *source.shape))
        images = in_threads(decode, len(rows), "decoding pictures")
        for row, image in zip(rows, images, strict=True):
            if image is None:
                good[row] = False
            else:
                stream.write(image.data)
        stream.seek(0)  # NumPy's header has room for any number of rows.
        _write_header(stream, (int(good.sum()), *source.shape))
    _remove_old(place)
    return Stored(place / name_of(good), (int(good.sum()), *source.shape))


def _write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def in_threads(work: Callable[[int], Any], count: int, title: str) -> Iterator[Any]:
    """Yields work(0), work(1), ... in order; threads do it, a bounded number ahead."""
    bar = tqdm(total=count, desc=title, unit="img", disable=None, leave=False, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(WORKERS) as threads:
        for first in range(0, count, CHUNK):
            for result in threads.map(work, range(first, min(first + CHUNK, count))):
                yield result
                bar.update()


@contextlib.contextmanager
def whole_file(place: Path, name: Callable[[], str]) -> Iterator[IO[bytes]]:
    """Opens a file that gets its name when it is whole, and is removed otherwise."""
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
