"""Image classification sets that TensorFlow Datasets has prepared, read without TensorFlow.

Their array_record files are read through `builder_from_directory(...).as_data_source()`, which
needs neither TensorFlow nor a network. Preparing one needs both.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.cache import cache_folder
from jaxnets.data.datasets import Dataset, Pictures, Split, assemble, ensure_within, sha256_of
from jaxnets.data.pictures.folder import natural_size
from jaxnets.data.pictures.store import (
    BadPictures,
    Encoded,
    in_threads,
    open_npy,
    open_pixels,
    save_rows,
)
from jaxnets.data.tfds.prepared import INFO_FILES, Prepared, open_prepared
from jaxnets.errors import UserError, first_line, printable

# What is kept of a data set for the next start.
INDEX = "index.npy"
ROW = np.dtype([("label", "i4"), ("good", "?")])
UNREAD = np.iinfo(np.int32).min  # The label of a record that was not read yet.


def load(
    name: str,
    data_dir: str | None,
    *,
    validation_size: int | None = None,
    decode_size: int | None = None,
    input_size: int | None = None,
    on_bad_image: str = "skip",
) -> Dataset:
    """Loads a prepared data set.

    Its test split is what is tested on; without one, or where its labels are withheld, the
    validation split is; without that, the last tenth of the training split.

    Args:
      name: The set's name, as in `prepared.find`.
      data_dir: The folder to look in, as in `prepared.find`.
      validation_size: Number of training images split off, as in `load_dataset`.
      decode_size: Pixels a side S, as in `load_folder`.
      input_size: The network's input size, as in `load_folder`.
      on_bad_image: "skip" or "fail", as in `load_folder`.

    Returns:
      The data set, images [N, S, S, C] uint8, read when they are asked for. The checksum is over
      the set's description, its files' sizes and its labels.

    Raises:
      UserError: It is not prepared, or cannot be read without TensorFlow, or is damaged, or is no
        image classification set.
    """
    prepared = open_prepared(name, data_dir)
    features = prepared.builder.info.features
    height, width, channels = features[prepared.image].shape
    side = height if height and height == width else 0
    size = decode_size or natural_size(np.array([side]), input_size)
    bad = BadPictures(on_bad_image)
    records = Records(prepared, _sources(prepared))
    source = Encoded(
        content=lambda row: records.read(row)[prepared.image],
        name=lambda row: f"{name}, record {row}",
        shape=(size, size, 1 if channels == 1 else 3),
        bad=bad,
    )
    folder = cache_folder("tfds") / _digest(prepared.folder, times=True)[:16]
    rows = records.rows = _recall(folder / INDEX, len(records.rows))
    form = "x".join(map(str, source.shape))
    pixels, _ = open_pixels(source, rows["good"], [folder], lambda good: f"pixels-{form}.npy")
    if (rows["label"] == UNREAD).any():
        for _ in in_threads(records.read, len(rows), "reading labels"):
            pass
    save_rows(rows, folder / INDEX)
    bad.report()
    labels, splits = rows["label"][rows["good"]], records.splits[rows["good"]]
    parts = {
        part: Split(Pictures(pixels, indices), labels[indices])
        for part, indices in _parts(splits, labels).items()
    }
    description = np.frombuffer(_digest(prepared.folder, times=False).encode(), np.uint8)
    names = tuple(map(printable, features[prepared.label].names))
    return assemble(name, parts, names, sha256_of(description, labels), validation_size)


class Records:
    """The records of a prepared data set; those of its splits follow each other.

    Attributes:
      splits: [N], the name of each record's split.
      rows: [N] of ROW, filled in as the records are read.
    """

    def __init__(self, prepared: Prepared, sources: dict[str, Any]):
        """Sources: the splits that are used, each a sequence of examples."""
        self._prepared, self._sources = prepared, sources
        counts = [len(source) for source in sources.values()]
        self.splits = np.repeat(list(sources), counts)
        self.rows = np.zeros(sum(counts), ROW)
        self._starts = dict(zip(sources, np.cumsum([0, *counts]), strict=False))

    def read(self, row: int) -> dict[str, Any]:
        """Returns an example, its picture still encoded, and notes its label."""
        split = self.splits[row]
        try:
            example = self._sources[split][int(row - self._starts[split])]
            self.rows["label"][row] = example[self._prepared.label]
        except Exception as error:  # Damaged files raise whatever their reader does.
            raise UserError(f"{self._prepared.folder}: damaged: {first_line(error)}") from error
        return example


def _sources(prepared: Prepared) -> dict[str, Any]:
    """Opens the splits that are used, their pictures left encoded.

    Raises:
      UserError: There is no training split, or the files hold another number of records than the
        description says.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    name, folder, builder, image, _ = prepared
    splits = [split for split in ("train", "validation", "test") if split in builder.info.splits]
    if "train" not in splits:
        raise UserError(
            f"dataset {name}: expected a split named train, found {', '.join(builder.info.splits)}"
        )
    sources = {}
    for split in splits:
        info = builder.info.splits[split]
        paths = [Path(path) for path in info.filepaths]
        for path in paths:
            if path.parent.resolve() != folder.resolve() or not path.is_file():
                raise UserError(f"{folder}: expected the file {path.name}, found none")
            ensure_within(path, folder)
        try:
            count = len(ArrayRecordDataSource([str(path) for path in paths]))
            source = builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
        except Exception as error:  # Damaged files raise whatever their reader does.
            raise UserError(f"{folder}: damaged: {first_line(error)}") from error
        if count != len(source):
            raise UserError(
                f"{folder}: expected the {len(source):,} records of {split} that it promises, "
                f"found {count:,}"
            )
        sources[split] = source
    return sources


def _digest(folder: Path, *, times: bool) -> str:
    """The SHA-256 of a data set's description and of its files' sizes (and times of change)."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in INFO_FILES:
            digest.update(path.read_bytes())
        elif path.is_file():
            found = path.stat()
            digest.update(f"{path.name} {found.st_size} {times and found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _recall(path: Path, count: int) -> np.ndarray:
    """[N] of ROW as they were kept, or all good and unread."""
    with contextlib.suppress(OSError, ValueError):
        rows = np.array(open_npy(path))
        if (rows.shape, rows.dtype) == ((count,), ROW):
            return rows
    rows = np.ones(count, ROW)
    rows["label"] = UNREAD
    return rows


def _parts(splits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each part, from the split and the label of each row."""
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
    if not len(rows["test"]) or (labels[rows["test"]] < 0).all():  # Withheld, as ImageNet's.
        rows["test"] = rows.pop("validation")
    if not len(rows["test"]):
        count = len(rows["train"]) - len(rows["train"]) // 10
        rows["train"], rows["test"] = rows["train"][:count], rows["train"][count:]
    return {part: indices for part, indices in rows.items() if len(indices) or part != "validation"}
