"""What each picture file of a folder is: its content's digest, its size, whether it is good.

Every file is read once; what was found is kept, and taken again while a file's size and time of
change stay the same (as git does), so that a second start reads no picture at all.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnets.data.pictures.decode import BadPictureError, read_header, read_picture
from jaxnets.data.pictures.store import BadPictures, in_threads, load_rows, whole_file

INDEX = "files.npy"
# digest: BLAKE2b of the content, 128 bits; side: pixels, 0 if it is not square.
FIELDS = [
    ("bytes", "i8"), ("changed", "i8"), ("digest", "u8", 2), ("side", "i4"), ("grey", "?"),
    ("good", "?"),
]  # fmt: skip


def examine(root: Path, paths: np.ndarray, places: Sequence[Path], bad: BadPictures) -> np.ndarray:
    """Looks at every file that is new or has changed.

    Args:
      root: The data set's folder.
      paths: [N] of bytes, relative to it.
      places: Where the index may be kept.
      bad: Where bad pictures are told.

    Returns:
      [N] of FIELDS and the path; "good" is False for bad pictures.
    """
    records = np.zeros(len(paths), [("path", paths.dtype), *FIELDS])
    records["path"] = paths
    start = os.fsencode(root)
    for row, path in enumerate(paths):  # One by one: a list of all would take much memory.
        with contextlib.suppress(OSError):  # Told when it is looked at.
            found = os.stat(os.path.join(start, bytes(path)))
            records["bytes"][row], records["changed"][row] = found.st_size, found.st_mtime_ns
    known = _recall(records, places)
    unknown, doubtful = np.flatnonzero(~records["good"]), known & ~records["good"]

    def look(number: int) -> tuple | str:
        row = unknown[number]
        path = root / os.fsdecode(bytes(paths[row]))
        try:
            header = read_header(path)
            if doubtful[row]:  # What was wrong with it its header may not show.
                read_picture(path)
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        except (BadPictureError, OSError) as error:
            return str(error)
        side = header.width if header.width == header.height else 0
        return np.frombuffer(digest.digest(), "u8"), side, header.grey

    found = in_threads(look, len(unknown), "looking at pictures")
    for row, facts in zip(unknown, found, strict=True):
        if isinstance(facts, str):
            bad.add(paths[row], facts)
        else:
            for name, value in zip(("digest", "side", "grey"), facts, strict=True):
                records[name][row] = value
            records["good"][row] = True
    return records


def keep(records: np.ndarray, place: Path) -> None:
    """Keeps what was found for the next start; a full disk is no reason to stop."""
    with contextlib.suppress(OSError), whole_file(place) as (stream, finish):
        np.save(stream, records)
        finish(INDEX)


def _recall(records: np.ndarray, places: Sequence[Path]) -> np.ndarray:
    """Fills in what the index has of unchanged files; returns [N] bool, which those are."""
    known = np.zeros(len(records), bool)
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            index = load_rows(place / INDEX)
            if not len(index) or not _has_fields(index.dtype):
                continue
            index = index[np.argsort(index["path"])]
            at = np.searchsorted(index["path"], records["path"]) % len(index)
            known[:] = True
            for name in ("path", "bytes", "changed"):
                known &= index[name][at] == records[name]
            for name, *_ in FIELDS:
                records[name][known] = index[name][at[known]]
            break
    return known


def _has_fields(dtype: np.dtype) -> bool:
    """Whether it is FIELDS and a path of any length."""
    if not dtype.names or dtype.names[0] != "path" or dtype["path"].kind != "S":
        return False
    return dtype == np.dtype([("path", dtype["path"]), *FIELDS])
