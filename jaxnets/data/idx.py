"""IDX files, the format of MNIST and of the data sets modelled on it.

A file is a big-endian header (magic number 0x0000 0x08 rank, then one 32-bit size per dimension)
followed by unsigned bytes. Source: Y. LeCun, "The MNIST database", section "File formats".
"""

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnets.base.display import printable
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import Text
from jaxnets.data.datasets import Dataset, Split, assemble, ensure_within, sha256_of

IMAGE_SHAPE = (28, 28, 1)
# The standard names, without .gz, and the SHA-256 of the files in the package.
FILES = {
    "train-images-idx3-ubyte": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "train-labels-idx1-ubyte": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "t10k-images-idx3-ubyte": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "t10k-labels-idx1-ubyte": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}
UNSIGNED_BYTE = 0x08
MAX_GZIP_RATIO = 1032  # Deflate packs no more bytes into one.


class PublishedFile(NamedTuple):
    """A file whose content is known before it is downloaded; its size is in bytes."""

    name: str
    size: int
    sha256: str


def load_mnist(data_dir: str | None, validation_size: int | None, as_bytes: bool) -> Dataset:
    """Loads MNIST from the package, or four IDX files from a folder, which names the data set."""
    if data_dir is None:
        folder = Path(str(resources.files("jaxnets.data"))) / "mnist"
        for file, sha256 in FILES.items():
            check_digest(folder / f"{file}.gz", sha256)
        return load_idx("mnist", folder, (), validation_size, as_bytes)
    folder = Path(os.path.expanduser(data_dir))
    if not folder.is_dir():
        what = Text("not a folder") if folder.exists() else Text("no such folder")
        raise UserError("data_dir: {}: {}; expected a folder of four IDX files", what, folder)
    return load_idx(printable(folder.resolve().name), folder, (), validation_size, as_bytes)


def load_idx(
    name: str,
    folder: Path,
    class_names: Sequence[str],
    validation_size: int | None,
    as_bytes: bool = False,
) -> Dataset:
    """Loads the four IDX files of a folder, pixels [N, H, W, 1] float32 in [0, 1], or as bytes.

    Without class names, the classes are digits: every one up to the greatest must occur.
    """
    parts, arrays = {}, []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(_existing(folder, f"{prefix}-images-idx3-ubyte"), rank=3)
        path = _existing(folder, f"{prefix}-labels-idx1-ubyte")
        labels = read_idx(path, rank=1)
        if len(images) != len(labels):
            raise UserError(
                "{}: expected {} labels for as many images, found {}",
                path,
                len(images),
                len(labels),
            )
        class_names = class_names or _digits(labels, path)
        pixels = images[..., None]
        pixels = pixels if as_bytes else np.divide(pixels, np.float32(255), dtype=np.float32)
        parts[part] = Split(pixels, labels.astype(np.int32))
        arrays += [images, labels]
    return assemble(name, parts, class_names, sha256_of(*arrays), validation_size)


def find(folder: Path, file: str) -> Path | None:
    """Returns the file, gzip or plain, or None if there is neither; no link leads out."""
    for path in (folder / f"{file}.gz", folder / file):
        if path.is_file():
            ensure_within(path, folder)
            return path
    return None


def _existing(folder: Path, file: str) -> Path:
    """The file, gzip or plain; raises UserError if there is neither."""
    path = find(folder, file)
    if path is None:
        raise UserError("{}: expected {} or {}.gz, found neither", folder, file, file)
    return path


def _digits(labels: np.ndarray, path: Path) -> tuple[str, ...]:
    """The names "0" to "K-1" of the labels in a file, every one of which must occur."""
    num_classes = int(labels.max()) + 1
    missing = sorted(set(range(num_classes)) - set(labels.tolist()))
    if missing:
        raise UserError(
            "{}: expected every label from 0 to {}, found none of {}",
            path,
            num_classes - 1,
            missing[:5],
        )
    return tuple(map(str, range(num_classes)))


def check_digest(path: Path, sha256: str, advice: Text | str = "") -> None:
    """Raises UserError, whose message ends with the advice, if a file is not the published one."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError("{}: cannot be read: {}", path, first_line(error)) from error
    if found != sha256:
        raise UserError("{}: damaged: expected SHA-256 {}, found {}{}", path, sha256, found, advice)


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzip, whatever its name says.

    The file must have as many dimensions as `rank` says: 3 for images, 1 for labels.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            most = path.stat().st_size * (MAX_GZIP_RATIO if is_gzip else 1)
            return _parse(path, stream, rank, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError("{}: damaged gzip file: {}", path, error) from error
    except OSError as error:
        raise UserError("{}: cannot be read: {}", path, first_line(error)) from error


def _parse(path: Path, stream: io.BufferedIOBase, rank: int, most: int) -> np.ndarray:
    """Reads the header and exactly as many bytes as it promises, at most `most`."""
    size = 4 + 4 * rank
    header = stream.read(size)
    if len(header) < size:
        raise UserError("{}: expected an IDX header of {} bytes, found {}", path, size, len(header))
    zeros, kind, dimensions = struct.unpack(">HBB", header[:4])
    if (zeros, kind, dimensions) != (0, UNSIGNED_BYTE, rank):
        raise UserError(
            "{}: expected an IDX file of unsigned bytes with {} dimension(s) (magic number "
            "{}), found {}",
            path,
            rank,
            f"{UNSIGNED_BYTE << 8 | rank:#06x}",
            header[:4].hex(),
        )
    shape = struct.unpack(f">{rank}I", header[4:])
    if 0 in shape:
        raise UserError("{}: empty: its header gives the shape {}", path, shape)
    wanted = math.prod(shape)
    promise = Text("{}: its header promises {}, {} bytes", path, shape, wanted)
    if wanted > most:  # More than the machine may have memory for.
        raise UserError("{}; it cannot hold so many", promise)
    content = stream.read(wanted + 1)
    if len(content) != wanted:
        found = "more" if len(content) > wanted else len(content)
        raise UserError("{}; it holds {}", promise, found)
    return np.frombuffer(content, np.uint8).reshape(shape)
