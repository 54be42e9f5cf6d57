"""Pictures decoded once, into a file of the user's cache that the system maps into memory."""

import contextlib
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, overload

import filelock
import numpy as np
from numpy.typing import DTypeLike

from jaxnets.base.bar import progress_bar
from jaxnets.base.display import one_line, printable
from jaxnets.base.errors import UserError, before_end, first_line
from jaxnets.base.files import replacing, write_text
from jaxnets.base.language import N_, Text, _, said
from jaxnets.base.system import cache_folder
from jaxnets.data.pictures.decode import BadPictureError, read_square

WORKERS = min(16, os.cpu_count() or 1)  # Pillow decodes without Python's lock.
CHUNK = 256  # The most pictures that are decoded before the first of them is written.
NAMED = 5  # Bad pictures that a report names.

Index = int | np.ndarray  # A row, or several.
Facts = dict[str, Any]  # Of decoded pictures: their "shape", and others.
ABSENT = (OSError, ValueError, KeyError, TypeError)  # Of a cache without the pictures.


class BadPictures:
    """Collects bad pictures, which are reported and skipped."""

    def __init__(self, name: Callable[[int], str]):
        """Takes the function that gives a row's name."""
        self._name = name
        self.reasons: dict[int, Text] = {}

    def add(self, row: int, reason: Text) -> None:
        """Notes a bad picture, once."""
        self.reasons[row] = reason

    def good(self, count: int) -> np.ndarray:
        """[N] bool: which of N rows are not bad."""
        return ~np.isin(np.arange(count), list(self.reasons))

    def report(self) -> None:
        """Prints one line on stderr about what is skipped."""
        if not self.reasons:
            return
        count = len(self.reasons)
        rows = itertools.islice(self.reasons.items(), NAMED)
        first = [said(self._line(*row)) for row in rows]
        text = N_("note: {} bad pictures are skipped: {}")
        if count == 1:
            text = N_("note: {} bad picture is skipped: {}")
        more = _("; and {} more", f"{count - NAMED:,}") if count > NAMED else ""
        note(_(text, f"{count:,}", _("; ").join(first) + more))

    def _line(self, row: int, reason: Text) -> Text:
        return Text("{}: {}", printable(self._name(row)), reason)


def note(line: str) -> None:
    """Prints a note on stderr, in one line."""
    print(one_line(line), file=sys.stderr, flush=True)


class Pictures:
    """Rows of decoded pictures: an array [N, S, S, C] uint8, read when it is asked for.

    A slice gives another view, any other index a NumPy array.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, pixels: np.ndarray, rows: np.ndarray):
        """Offers rows [N] of the pixels."""
        self._pixels, self._rows = pixels, rows
        self.shape = (len(rows), *pixels.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """The bytes of all pictures."""
        return math.prod(self.shape)

    @overload
    def __getitem__(self, index: slice) -> "Pictures": ...
    @overload
    def __getitem__(self, index: Index) -> np.ndarray: ...
    def __getitem__(self, index: Index | slice) -> "np.ndarray | Pictures":
        if isinstance(index, slice):
            return self.select(index)
        return np.asarray(self._pixels[self._rows[index]])

    def select(self, rows: np.ndarray | slice) -> "Pictures":
        """Another view, of some of the pictures."""
        return Pictures(self._pixels, self._rows[rows])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._pixels[self._rows], dtype)


def decode_once(
    kind: str, key: str, decode: Callable[[IO[bytes]], Facts], bad: BadPictures
) -> tuple[np.ndarray, Facts]:
    """Pixels [N, S, S, C] and their facts: those kept in the user's cache, else made there.

    `decode` writes the pixels to a stream, adds to the bad pictures, and returns facts that JSON
    can hold. If the cache cannot be written, the pixels are made for this run only, in the
    temporary folder.
    """

    def decode_and_note(stream: IO[bytes]) -> Facts:
        facts = decode(stream)
        return facts | {"bad": {row: reason.args for row, reason in bad.reasons.items()}}

    pixels, facts = _find_or_make(kind, key, decode_and_note)
    for row, reason in facts["bad"].items():
        bad.add(int(row), Text(*reason))
    return pixels, facts


def _find_or_make(
    kind: str, key: str, decode: Callable[[IO[bytes]], Facts]
) -> tuple[np.ndarray, Facts]:
    path = None
    with contextlib.suppress(OSError, UserError):  # A file in its place; a user without a home.
        folder = cache_folder(kind)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / key
    if path is not None:
        with contextlib.suppress(*ABSENT):
            return _open(path)
    if path is not None and os.access(path.parent, os.W_OK):
        with filelock.FileLock(path.with_suffix(".lock")):
            with contextlib.suppress(*ABSENT):  # Another process may have made them.
                return _open(path)
            return _make(path, decode)
    # A mapped file outlives its name, but not on Windows, where it stays in the folder.
    folder = tempfile.TemporaryDirectory(prefix="jaxnets-", ignore_cleanup_errors=True)
    with before_end(folder.cleanup), folder as temporary:
        return _make(Path(temporary) / "pixels", decode)


def _open(path: Path) -> tuple[np.ndarray, Facts]:
    """The pixels and facts at a path; raises one of ABSENT if they are not there and whole."""
    facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
    shape = tuple(facts["shape"])
    if path.stat().st_size != math.prod(shape):
        raise ValueError(f"{path}: not whole")
    if not math.prod(shape):  # All are bad; an empty file cannot be mapped.
        return np.zeros(shape, np.uint8), facts
    return np.memmap(path, np.uint8, "r", shape=shape), facts


def _make(path: Path, decode: Callable[[IO[bytes]], Facts]) -> tuple[np.ndarray, Facts]:
    try:
        with replacing(path) as stream:
            facts = decode(stream)
        write_text(path.with_suffix(".json"), json.dumps(facts))
        return _open(path)
    except OSError as error:
        raise UserError(
            "{}: cannot keep the decoded pictures: {}; XDG_CACHE_HOME names another folder, "
            "decode_size=N makes them smaller",
            path.parent,
            first_line(error),
        ) from error


def write_pixels(
    stream: IO[bytes],
    content: Callable[[int], Path | bytes],
    rows: Sequence[int],
    shape: tuple[int, int, int],
    bad: BadPictures,
) -> list[int]:
    """Decodes the pictures of some rows to [S, S, C] and writes those that are good, in order.

    `content` gives a row's picture: its file or its bytes. Returns the shape of what was written.
    """

    def read(number: int) -> np.ndarray | Text:
        try:
            return read_square(content(rows[number]), shape)
        except BadPictureError as error:
            return Text(*error.args)

    count = 0
    for row, found in zip(rows, in_threads(read, len(rows), "decoding pictures"), strict=True):
        if isinstance(found, Text):
            bad.add(row, found)
        else:
            stream.write(found.data)
            count += 1
    return [count, *shape]


def in_threads(work: Callable[[int], Any], count: int, title: str) -> Iterator[Any]:
    """Yields work(0), work(1), ... in order; threads do it, a bounded number ahead."""
    with (
        progress_bar(count, desc=title, unit="img") as bar,
        ThreadPoolExecutor(WORKERS) as threads,
    ):
        for first in range(0, count, CHUNK):
            for result in threads.map(work, range(first, min(first + CHUNK, count))):
                yield result
                bar.update()
