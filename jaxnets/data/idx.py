"""IDX files, the format of MNIST and of the data sets modelled on it.

A file is a big-endian header (magic number 0x0000 0x08 rank, then one 32-bit size per dimension)
followed by unsigned bytes. Source: Y. LeCun, "The MNIST database", section "File formats".
"""

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from jaxnets.data.datasets import (
    MAX_CLASSES,
    Dataset,
    Split,
    assemble,
    ensure_within,
    sha256_of,
)
from jaxnets.errors import UserError, printable

# The standard names (without .gz) and, for the files in the package, their SHA-256.
FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
MNIST_SHA256 = {
    "train_images": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "train_labels": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "test_images": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "test_labels": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}

UNSIGNED_BYTE = 0x08
CHUNK = 1 << 20
MAX_GZIP_RATIO = 1032  # Deflate packs no more bytes into one.


def load_mnist(data_dir: str | None, validation_size: int | None) -> Dataset:
    """Loads MNIST from the package, or four IDX files from a folder, which names the data set."""
    if data_dir is None:
        folder = Path(str(resources.files("jaxnets.data"))) / "mnist"
        return load_idx("mnist", folder, (), validation_size, MNIST_SHA256)
    folder = Path(os.path.expanduser(data_dir))
    if not folder.is_dir():
        found = f"a file: {folder}" if folder.exists() else f"nothing at {folder}"
        raise UserError(f"data_dir: expected a folder of IDX files, found {found}")
    return load_idx(printable(folder.resolve().name), folder, (), validation_size)


def load_idx(
    name: str,
    folder: Path,
    class_names: Sequence[str],
    validation_size: int | None,
    sha256: Mapping[str, str] | None = None,
) -> Dataset:
    """Loads the four IDX files of a folder.

    Args:
      name: The data set's name.
      folder: A folder with the files named in FILES, plain or gzip.
      class_names: K texts; if there are none, every label from 0 to the greatest must occur.
      validation_size: Number of training images split off, as in `load_dataset`.
      sha256: The digests that the files must have, by the keys of FILES.

    Returns:
      The data set, pixels [N, H, W, 1] float32 in [0, 1].

    Raises:
      UserError: A file is missing, damaged or does not fit the others.
    """
    paths: dict[str, Path] = {}
    for key, file in FILES.items():
        path = find(folder, file)
        if path is None:
            raise UserError(f"{folder}: expected {file} or {file}.gz, found neither")
        paths[key] = path
    arrays = {
        key: read_idx(path, 3 if key.endswith("images") else 1, (sha256 or {}).get(key))
        for key, path in paths.items()
    }
    parts = {}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if len(images) != len(labels):
            raise UserError(
                f"{paths[f'{part}_labels']}: expected {len(images)} labels for as many images, "
                f"found {len(labels)}"
            )
        floats = np.divide(images[..., None], np.float32(255), dtype=np.float32)
        parts[part] = Split(floats, labels.astype(np.int32))
    class_names = class_names or _digits(parts["train"].labels, paths["train_labels"])
    checksum = sha256_of(*arrays.values())
    return assemble(name, parts, class_names, checksum, validation_size)


def find(folder: Path, file: str) -> Path | None:
    """Returns the file, gzip or plain, or None if there is neither.

    Raises:
      UserError: It is a link that leads out of the folder.
    """
    paths = (folder / f"{file}.gz", folder / file)
    found = next((path for path in paths if path.is_file()), None)
    if found is not None:
        ensure_within(found, folder)
    return found


def _digits(labels: np.ndarray, path: Path) -> tuple[str, ...]:
    """The names "0" to "K-1" of the labels in a file, every one of which must occur."""
    num_classes = int(labels.max()) + 1
    if not 2 <= num_classes <= MAX_CLASSES:
        raise UserError(
            f"{path}: expected labels of 2 to {MAX_CLASSES} classes, found {num_classes}"
        )
    missing = sorted(set(range(num_classes)) - set(np.unique(labels).tolist()))
    if missing:
        raise UserError(
            f"{path}: expected every label from 0 to {num_classes - 1}, found none of {missing[:5]}"
        )
    return tuple(map(str, range(num_classes)))


def read_idx(path: Path, rank: int, sha256: str | None = None) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzip.

    Args:
      path: The file; gzip is recognised by its first two bytes, not by its name.
      rank: The number of dimensions that the file must have: 3 for images, 1 for labels.
      sha256: The digest that the file on the disk must have, if known.

    Returns:
      A uint8 array with the dimensions of the header.

    Raises:
      UserError: The file is missing, unreadable, truncated, too long, of another form, or its
        digest differs.
    """
    try:
        if sha256 is not None:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != sha256:
                raise UserError(f"{path}: damaged: expected SHA-256 {sha256}, found {digest}")
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            most = path.stat().st_size * (MAX_GZIP_RATIO if is_gzip else 1)
            return _parse(path, stream, rank, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(path: Path, stream, rank: int, most: int) -> np.ndarray:
    """Reads the header and exactly as many bytes as it promises, at most `most`."""
    size = 4 + 4 * rank
    header = stream.read(size)
    if len(header) < size:
        raise UserError(f"{path}: expected an IDX header of {size} bytes, found {len(header)}")
    zeros, kind, dimensions = struct.unpack(">HBB", header[:4])
    if zeros != 0 or kind != UNSIGNED_BYTE or dimensions != rank:
        raise UserError(
            f"{path}: expected an IDX file of unsigned bytes with {rank} dimension(s) "
            f"(magic number {UNSIGNED_BYTE << 8 | rank:#06x}), found {header[:4].hex()}"
        )
    shape = struct.unpack(f">{rank}I", header[4:])
    if 0 in shape:
        raise UserError(f"{path}: empty: its header gives the shape {shape}")
    wanted, found = math.prod(shape), 0
    promise = f"{path}: its header promises {shape}, {wanted} bytes"
    if wanted > most:  # More than the machine may have memory for.
        raise UserError(f"{promise}; it cannot hold so many")
    array = np.empty(wanted, np.uint8)  # The system grants its pages as they are filled.
    while piece := stream.readinto(array[found : found + CHUNK]):
        found += piece
    if found != wanted:
        raise UserError(f"{promise}; it holds {found}")
    if stream.read(1):
        raise UserError(f"{promise}; it holds more")
    return array.reshape(shape)
