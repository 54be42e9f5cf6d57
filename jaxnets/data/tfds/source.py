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
from jaxnets.data.pictures.decode import BadPictureError, read_picture
from jaxnets.data.pictures.folder import natural_size
from jaxnets.data.pictures.store import (
    BadPictures,
    Stored,
    Streamed,
    has_room,
    in_threads,
    load_rows,
    note,
    open_stored,
    store,
    to_square,
    whole_file,
)
from jaxnets.data.tfds.prepared import INFO_FILES, Prepared, first_line, open_prepared
from jaxnets.errors import UserError, printable

# What is kept of a data set for the next start.
INDEX = "index.npy"
ROW = np.dtype([("label", "i4"), ("good", "?")])


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
      name: As for find.
      data_dir: As for find.
      validation_size: As for load_dataset.
      decode_size: As for load_folder.
      input_size: As for load_folder.
      on_bad_image: As for load_folder.

    Returns:
      The data set, images [N, S, S, C] uint8, read when they are asked for. The checksum is over
      what TensorFlow Datasets says of it, its files' sizes and its labels.

    Raises:
      UserError: It is not prepared, or cannot be read without TensorFlow, or is damaged, or is no
        image classification set.
    """
    prepared = open_prepared(name, data_dir)
    bad = BadPictures(on_bad_image)
    shape = tuple(prepared.builder.info.features[prepared.image].shape)
    side = shape[0] if shape[0] == shape[1] else None
    size = decode_size or natural_size(np.array([side or 0]), input_size)
    records = Records(prepared, _sources(prepared), size, 1 if shape[2] == 1 else 3, bad)
    place = cache_folder("tfds") / _digest(prepared.folder, times=True)[:16]
    rows, source = _read(records, place)
    bad.report()
    splits = np.repeat(list(records.sources), [len(s) for s in records.sources.values()])
    splits, labels = splits[rows["good"]], rows["label"][rows["good"]]
    parts = {
        part: Split(Pictures(source, indices), labels[indices])
        for part, indices in _parts(splits, labels).items()
    }
    class_names = prepared.builder.info.features[prepared.label].names
    said = np.frombuffer(_digest(prepared.folder, times=False).encode(), np.uint8)
    names = tuple(map(printable, class_names))
    return assemble(name, parts, names, sha256_of(said, labels), validation_size)


class Records:
    """The records of a prepared data set, as what picture_store decodes.

    Attributes:
      prepared: The data set.
      sources: Its splits that are used, each a sequence of examples.
      size: Pixels a side.
      channels: 1 or 3.
      bad: Where bad pictures are told.
      labels: [N] int32, of the examples that were read so far.
    """

    def __init__(
        self, prepared: Prepared, sources: dict[str, Any], size: int, channels: int, bad: Any
    ):
        self.prepared, self.sources, self.bad = prepared, sources, bad
        self.size, self.channels, self.shape = size, channels, (size, size, channels)
        self._names = list(sources)
        self._starts = np.cumsum([0, *map(len, sources.values())])
        self.labels = np.zeros(len(self), np.int32)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def example(self, row: int) -> dict[str, Any]:
        """An example, its picture still encoded; the rows of the splits follow each other."""
        split = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            example = self.sources[self._names[split]][int(row - self._starts[split])]
            self.labels[row] = example[self.prepared.label]
        except Exception as error:  # Damaged files raise whatever their reader does.
            raise UserError(f"{self.prepared.folder}: damaged: {first_line(error)}") from error
        return example

    def decode(self, row: int) -> np.ndarray | None:
        """A picture [S, S, C] uint8, or None if it is bad, which is noted."""
        content = self.example(row)[self.prepared.image]
        try:
            picture = read_picture(content, side=self.size)
        except BadPictureError as error:
            self.bad.add(f"{self.prepared.name}, record {row}".encode(), str(error))
            return None
        return to_square(picture, self.shape)


def _sources(prepared: Prepared) -> dict[str, Any]:
    """The splits that are used, their pictures left encoded.

    Raises:
      UserError: There is no training split, or the files hold another number of records than
        promised.
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
    """The SHA-256 of what is said of a data set, and of its files' sizes (and times of change)."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in INFO_FILES:
            digest.update(path.read_bytes())
        elif path.is_file():
            found = path.stat()
            digest.update(f"{path.name} {found.st_size} {times and found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(records: Records, place: Path) -> tuple[np.ndarray, Stored | Streamed]:
    """Reads the records, once, unless what is needed of them was kept in a place.

    Returns:
      [N] of ROW, and the pixels of the good pictures: stored, if they are not too many.
    """
    rows = _recall(records, place)
    is_new = rows is None
    rows = np.ones(len(records), ROW) if rows is None else rows

    def name_of(good: np.ndarray) -> str:
        rows["good"] = good
        return f"pixels-{records.size}x{records.size}x{records.channels}.npy"

    stored = open_stored([place], name_of(rows["good"]), (int(rows["good"].sum()), *records.shape))
    if stored is not None and not is_new:
        return rows, stored
    stored = None
    try:
        place.mkdir(parents=True, exist_ok=True)
        if has_room(records, place):
            stored = store(records, place, name_of)
    except OSError as error:
        note(f"{place}: {error.strerror or error}; the pictures are decoded in every epoch")
    if stored is None and is_new:
        for _ in in_threads(records.example, len(records), "reading labels"):
            pass
    if is_new:
        rows["label"] = records.labels
    with contextlib.suppress(OSError), whole_file(place) as (stream, finish):
        np.save(stream, rows)
        finish(INDEX)
    return rows, stored or Streamed(records)


def _recall(records: Records, place: Path) -> np.ndarray | None:
    """[N] of ROW as it was kept, or None."""
    with contextlib.suppress(OSError, ValueError):
        rows = load_rows(place / INDEX)
        if rows.dtype == ROW and len(rows) == len(records):
            return rows
    return None


def _parts(splits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each part, from the split and the label of each row."""
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
    if not len(rows["test"]) or (labels[rows["test"]] < 0).all():  # Withheld, as of ImageNet.
        rows["test"] = rows.pop("validation")
    if not len(rows["test"]):
        count = len(rows["train"]) - len(rows["train"]) // 10
        rows["train"], rows["test"] = rows["train"][:count], rows["train"][count:]
    return {part: indices for part, indices in rows.items() if len(indices) or part != "validation"}
