"""CIFAR-10 and CIFAR-100 in their binary versions, from the archive or unpacked.

A file consists of records. Each has a label (in CIFAR-100 a coarse and a fine one) and 3072 bytes:
the red, the green and the blue plane of 32x32 pixels, row by row. Source: A. Krizhevsky,
https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version".
"""

import gzip
import io
import tarfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import Text
from jaxnets.data.datasets import Dataset, Split, assemble, ensure_within, sha256_of

IMAGE_SHAPE = (32, 32, 3)
MAX_BYTES = 1 << 28  # The most that an archive may unpack to; CIFAR's are 184 million.


class Form(NamedTuple):
    """The files of a version."""

    folder: str  # The archive's folder.
    train: tuple[str, ...]  # In order.
    test: str
    names: str  # The file of the classes' names, a line each.
    label_bytes: int  # Before the pixels of a record; the last of them is the label.

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


def find_unpacked(name: str, folder: Path) -> Path | None:
    """Returns the folder of the unpacked files, which may be the archive's inside this one."""
    homes = (folder, folder / FORMS[name].folder)
    return next((home for home in homes if (home / FORMS[name].test).is_file()), None)


def load_cifar(name: str, path: Path, validation_size: int | None) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100, images [N, 32, 32, 3] uint8.

    The path is the archive (.tar.gz or .tar), or a folder of its unpacked files.
    """
    form = FORMS[name]
    try:
        contents = _unpacked(name, path) if path.is_dir() else _archived(form, path)
    except UserError:
        raise
    except OverflowError as error:  # A member may declare 10^26 bytes.
        raise UserError("{}: damaged archive: expected more than it holds", path) from error
    except Exception as error:  # Damaged archives make the libraries raise anything.
        is_damaged = not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile)
        what = Text("damaged archive") if is_damaged else Text("cannot be read")
        raise UserError("{}: {}: {}", path, what, first_line(error)) from error
    missing = [file for file in form.files if file not in contents]
    if missing:
        raise UserError(
            "{}: expected {}, missing {}", path, ", ".join(form.files), ", ".join(missing)
        )
    parts = {
        "train": _split(form, path, contents, form.train),
        "test": _split(form, path, contents, (form.test,)),
    }
    try:
        lines = contents[form.names].decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError("{}: expected class names in UTF-8", path) from None
    names = [line.strip() for line in lines if line.strip()]
    arrays = [array for part in parts.values() for array in (part.images, part.labels)]
    return assemble(name, parts, names, sha256_of(*arrays), validation_size)


def _unpacked(name: str, folder: Path) -> dict[str, bytes]:
    """The content of those files that a folder has."""
    home = find_unpacked(name, folder) or folder
    contents = {}
    for file in FORMS[name].files:
        if (home / file).is_file():
            ensure_within(home / file, folder)
            with (home / file).open("rb") as stream:
                contents[file] = _read(stream)
    return contents


def _archived(form: Form, path: Path) -> dict[str, bytes]:
    """The content of the form's files in an archive; nothing is written anywhere."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        whole = io.BytesIO(_read(gzip.GzipFile(fileobj=raw) if packed else raw))
    wanted = {f"{form.folder}/{file}": file for file in form.files}
    contents = {}
    with tarfile.open(fileobj=whole, mode="r:") as archive:
        for member in archive:
            # A sparse file's size is made up: it may have holes larger than any memory.
            if member.name in wanted and member.isreg() and not member.issparse():
                stream = archive.extractfile(member)
                assert stream is not None  # Only what is not regular has none.
                contents[wanted[member.name]] = stream.read()
    return contents


def _read(stream: IO[bytes] | gzip.GzipFile) -> bytes:
    """The whole content, to its end, where gzip's checksum is."""
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"expected at most {MAX_BYTES} bytes, found more")
    return content


def _split(form: Form, path: Path, contents: dict[str, bytes], files: tuple[str, ...]) -> Split:
    """The images and labels of some files, in order; removes the files from `contents`."""
    size = form.label_bytes + 3 * 32 * 32
    for file in files:
        if not contents[file] or len(contents[file]) % size:
            raise UserError(
                "{}: expected records of {} bytes in {}, found {} bytes",
                path,
                size,
                file,
                len(contents[file]),
            )
    content = b"".join(contents.pop(file) for file in files)
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    planes = records[:, form.label_bytes :].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Split(images, records[:, form.label_bytes - 1].astype(np.int32))
