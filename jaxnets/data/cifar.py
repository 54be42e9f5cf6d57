"""CIFAR-10 and CIFAR-100 in their binary versions, from the archive or unpacked.

A file is records of a label, of CIFAR-100 a coarse and a fine one, and 3072 bytes: the red, the
green and the blue plane of 32x32 pixels, row by row. Source: A. Krizhevsky,
https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version".
"""

import dataclasses
import gzip
import tarfile
from pathlib import Path
from typing import IO

import numpy as np

from jaxnets.data.datasets import Dataset, Split, assemble, ensure_within, sha256_of
from jaxnets.errors import UserError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
# The most bytes that an archive may unpack to; CIFAR's are 184 million.
MAX_BYTES = 1 << 28
CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Form:
    """The files of a version.

    Attributes:
      folder: The archive's folder of files.
      train: Files of the training images, in order.
      test: The file of the test images.
      names: The file of the class names, a line each.
      label_bytes: The bytes before the pixels of a record; the last of them is the label.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read."""
        return (*self.train, self.test, self.names)


FORMS = {
    "cifar10": Form(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        label_bytes=1,
    ),
    "cifar100": Form(
        "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", label_bytes=2
    ),
}


def is_unpacked(name: str, folder: Path) -> bool:
    """Whether a folder holds the unpacked files, directly or in the archive's folder."""
    return any((home / FORMS[name].test).is_file() for home in _homes(name, folder))


def load_cifar(name: str, path: Path, validation_size: int | None) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100.

    Args:
      name: A key of FORMS.
      path: The archive (.tar.gz or .tar), or a folder of its unpacked files.
      validation_size: The number of validation images, as load_dataset takes it.

    Returns:
      The data set, images [N, 32, 32, 3] uint8.

    Raises:
      UserError: A file is missing, damaged or of another form.
    """
    form = FORMS[name]
    try:
        contents = _unpacked(name, path) if path.is_dir() else _archived(form, path)
    except UserError:
        raise
    except Exception as error:  # Damaged archives make the libraries raise anything.
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        raise UserError(f"{path}: damaged archive: {error}") from error
    missing = [file for file in form.files if file not in contents]
    if missing:
        raise UserError(f"{path}: expected {', '.join(form.files)}, missing {', '.join(missing)}")
    parts = {
        "train": _split(form, path, contents, form.train),
        "test": _split(form, path, contents, (form.test,)),
    }
    class_names = _names(path, contents[form.names])
    arrays = [array for part in parts.values() for array in (part.images, part.labels)]
    return assemble(name, parts, class_names, sha256_of(*arrays), validation_size)


def _homes(name: str, folder: Path) -> tuple[Path, Path]:
    """The folders in which the unpacked files may lie."""
    return folder, folder / FORMS[name].folder


def _unpacked(name: str, folder: Path) -> dict[str, bytes]:
    """The content of those files that a folder has."""
    form = FORMS[name]
    home = next(home for home in _homes(name, folder) if (home / form.test).is_file())
    contents = {}
    for file in form.files:
        if (home / file).is_file():
            ensure_within(home / file, folder)
            with (home / file).open("rb") as stream:
                contents[file] = _Limited(stream).read()
    return contents


def _archived(form: Form, path: Path) -> dict[str, bytes]:
    """The content of the form's files in an archive; nothing is written anywhere."""
    wanted = {f"{form.folder}/{file}": file for file in form.files}
    contents = {}
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        # Read from front to back, so that no more than MAX_BYTES are ever unpacked.
        limited = _Limited(gzip.GzipFile(fileobj=raw) if packed else raw)
        with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                file = wanted.get(member.name)
                # A sparse file's size is made up: it may have holes larger than any memory.
                if file is None or not member.isreg() or member.issparse():
                    continue
                stream = archive.extractfile(member)
                assert stream is not None  # Only what is not regular has none.
                contents[file] = stream.read()
        while limited.read(CHUNK):  # To the end, where gzip's checksum is.
            pass
    return contents


class _Limited:
    """A stream that gives MAX_BYTES at most, and stops a reader that continues beyond its end.

    tarfile reads to the end of a member, even if the member declares 10^26 bytes.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile):
        self.stream = stream
        self.left, self.ends = MAX_BYTES, 0

    def read(self, size: int = MAX_BYTES + 1) -> bytes:
        """The next bytes, none at the end."""
        piece = self.stream.read(min(size, self.left + 1))
        self.left -= len(piece)
        if self.left < 0:
            raise OSError(f"expected at most {MAX_BYTES} bytes, found more")
        self.ends += not piece
        if self.ends > 10:
            raise EOFError("expected more than it holds")
        return piece


def _split(form: Form, path: Path, contents: dict[str, bytes], files: tuple[str, ...]) -> Split:
    """The images and labels of some files, in order; removes the files from `contents`."""
    size = form.label_bytes + PIXELS
    for file in files:
        if not contents[file] or len(contents[file]) % size:
            raise UserError(
                f"{path}: expected records of {size} bytes in {file}, "
                f"found {len(contents[file])} bytes"
            )
    count = sum(len(contents[file]) for file in files) // size
    images, labels = np.empty((count, 32, 32, 3), np.uint8), np.empty(count, np.int32)
    first = 0
    for file in files:
        records = np.frombuffer(contents.pop(file), np.uint8).reshape(-1, size)
        last = first + len(records)
        planes = records[:, form.label_bytes :].reshape(-1, *SHAPE)
        images[first:last] = planes.transpose(0, 2, 3, 1)
        labels[first:last] = records[:, form.label_bytes - 1]
        first = last
    return Split(images, labels)


def _names(path: Path, content: bytes) -> tuple[str, ...]:
    """The class names, a line each."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected class names in UTF-8") from None
    return tuple(line.strip() for line in lines if line.strip())
