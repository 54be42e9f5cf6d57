"""What each picture file of a folder is: its content's digest, its size, whether it is good.

Every file is read once. What was found is kept, and used again while a file's size and time of
change stay the same (as git does), so that a second start reads no picture at all.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnets.data.pictures.decode import BadPictureError, read_header, read_picture
from jaxnets.data.pictures.store import BadPictures, in_threads, open_npy

INDEX = "files.npy"
FIELDS = [
    ("bytes", "i8"),
    ("changed", "i8"),
    ("digest", "u8", 2),  # BLAKE2b of the content, 128 bits.
    ("side", "i4"),  # Pixels, 0 if the picture is not square.
    ("grey", "?"),
    ("good", "?"),
]


def examine(root: Path, paths: np.ndarray, places: Sequence[Path], bad: BadPictures) -> np.ndarray:
    """Looks at every file that is new or has changed.

    Args:
      root: The data set's folder.
      paths: [N] bytes, relative to the root.
      places: Folders that may hold the index.
      bad: Collects bad pictures.

    Returns:
      [N] of FIELDS and the path; "good" is False for bad pictures.
    """
    records = np.zeros(len(paths), [("path", paths.dtype), *FIELDS])
    records["path"] = paths
    start = os.fsencode(root)
    for row, path in enumerate(paths):  # One by one: a list of all would take much memory.
        with contextlib.suppress(OSError):  # Reported when the file is looked at.
            found = os.stat(os.path.join(start, bytes(path)))
            records["bytes"][row], records["changed"][row] = found.st_size, found.st_mtime_ns
    known = _recall(records, places)
    unknown, doubtful = np.flatnonzero(~records["good"]), known & ~records["good"]

    def look(number: int) -> tuple | str:
        row = unknown[number]
        path = root / os.fsdecode(bytes(paths[row]))
        try:
            header = read_header(path)
            if doubtful[row]:  # Its header may not show what was wrong with it.
                read_picture(path)
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        except (BadPictureError, OSError) as error:
            return str(error)
        side = header.width if header.width == header.height else 0
        return np.frombuffer(digest.digest(), "u8"), side, header.grey, True

    found = in_threads(look, len(unknown), "looking at pictures")
    for row, facts in zip(unknown, found, strict=True):
        if isinstance(facts, str):
            bad.add(os.fsdecode(paths[row]), facts)
        else:
            for name, value in zip(("digest", "side", "grey", "good"), facts, strict=True):
                records[name][row] = value
    return records


def _recall(records: np.ndarray, places: Sequence[Path]) -> np.ndarray:
    """Fills in what an index knows of unchanged files; returns [N] bool, which those are."""
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            index = np.array(open_npy(place / INDEX))
            if index.ndim != 1 or not len(index) or not _has_fields(index.dtype):
                continue
            index = index[np.argsort(index["path"])]
            at = np.searchsorted(index["path"], records["path"]) % len(index)
            same = [index[name][at] == records[name] for name in ("path", "bytes", "changed")]
            known = np.logical_and.reduce(same)
            for name, *_ in FIELDS:
                records[name][known] = index[name][at[known]]
            return known
    return np.zeros(len(records), bool)


def _has_fields(dtype: np.dtype) -> bool:
    """Whether it is a path of any length and FIELDS."""
    if not dtype.names or dtype.names[0] != "path" or dtype["path"].kind != "S":
        return False
    return dtype == np.dtype([("path", dtype["path"]), *FIELDS])
