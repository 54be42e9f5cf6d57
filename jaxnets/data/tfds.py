"""Image classification sets that TensorFlow Datasets has prepared, read without TensorFlow.

Their array_record files are read through `builder_from_directory(...).as_data_source()`, which
needs neither TensorFlow nor a network. Preparing one needs both.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxnets.base.display import printable
from jaxnets.base.errors import UserError, first_line
from jaxnets.data.datasets import Dataset, Split, assemble, ensure_within, sha256_of
from jaxnets.data.pictures import store
from jaxnets.data.pictures.folder import natural_size

# Well-known sets, for suggestions; any other that is prepared is found too.
_WELL_KNOWN = """
    beans binary_alpha_digits caltech101 caltech_birds2011 cars196 cassava cats_vs_dogs cmaterdb
    colorectal_histology deep_weeds dmlab dtd emnist eurosat food101 horses_or_humans
    imagenet2012 imagenet_a imagenet_r imagenet_resized imagenet_v2 imagenette imagewang malaria
    oxford_flowers102 oxford_iiit_pet patch_camelyon places365_small plant_village
    quickdraw_bitmap resisc45 rock_paper_scissors stanford_dogs stl10 sun397 svhn_cropped
    tf_flowers uc_merced
"""
NAMES = tuple(_WELL_KNOWN.split())

SPELLING = re.compile(r"([a-z]\w*)(?:/([\w][\w.+-]*))?(?::(\d+\.\d+\.\d+))?", re.ASCII)
VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
INFO_FILES = ("dataset_info.json", "features.json")
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
FEATURES = "tensorflow_datasets.core.features."


def is_known(name: str, data_dir: str | None) -> bool:
    """Whether a name is that of an image classification set, or one is prepared under it."""
    spelled = SPELLING.fullmatch(name)
    return spelled is not None and (spelled[1] in NAMES or find(name, data_dir) is not None)


def find(name: str, data_dir: str | None) -> Path | None:
    """Returns the folder of a prepared data set, or None; the newest version unless one is named.

    The name is NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION; data_dir the folder that
    holds NAME/, or the prepared folder itself. It is TFDS_DATA_DIR by default, then
    ~/tensorflow_datasets. If several configurations are prepared, one must be named.
    """
    spelled = SPELLING.fullmatch(name)
    if spelled is None:
        return None
    base, config, version = spelled.groups()
    if data_dir is not None and _is_prepared(Path(data_dir).expanduser()):
        return Path(data_dir).expanduser()
    for root in _roots(data_dir):
        found = [
            folder
            for depth in ("*", "*/*")
            for folder in (root / base).glob(depth)
            if VERSION.fullmatch(folder.name)
            and version in (None, folder.name)
            and (config is None or folder.parent == root / base / config)
            and _is_prepared(folder)
        ]
        configs = sorted({str(folder.parent.relative_to(root)) for folder in found})
        if len(configs) > 1:
            raise UserError(
                "dataset {}: expected one of {}, got {}", base, ", ".join(configs), name
            )
        if found:
            return max(found, key=lambda folder: [int(part) for part in folder.name.split(".")])
    return None


def _roots(data_dir: str | None) -> list[Path]:
    """The folders in which prepared data sets are looked for."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    roots = [os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets"]
    return [Path(os.path.expanduser(root)) for root in roots if root]


def _is_prepared(folder: Path) -> bool:
    return all((folder / file).is_file() for file in INFO_FILES)


def load(
    name: str,
    data_dir: str | None,
    validation_size: int | None,
    *,
    decode_size: int | None,
    input_size: int | None,
) -> Dataset:
    """Loads a prepared data set; `load_dataset` describes the arguments.

    The test part is its test split; without one, or if its labels are withheld, its validation
    split; without that, the last tenth of the training split. The checksum is over the set's
    description, its files' sizes and its labels.
    """
    folder, builder, image, label = _open(name, data_dir)
    features = builder.info.features
    height, width, channels = features[image].shape
    side = height if height and height == width else 0
    size = decode_size or natural_size(np.array([side]), input_size)
    sources = _sources(name, folder, builder, image)
    splits = np.repeat(list(sources), [len(source) for source in sources.values()])
    firsts = {split: np.argmax(splits == split) for split in sources}
    labels = np.zeros(len(splits), np.int32)
    bad = store.BadPictures(lambda row: f"{name}, record {row}")

    def read(row: int) -> bytes:
        split = splits[row]
        with _one_line(folder):
            example = sources[split][int(row - firsts[split])]
            labels[row] = example[label]
            return example[image]

    def decode(stream: IO[bytes]) -> store.Facts:
        square = (size, size, 1 if channels == 1 else 3)
        shape = store.write_pixels(stream, read, range(len(splits)), square, bad)
        return {"shape": shape, "labels": labels.tolist()}

    key = f"{_digest(folder, times=True)[:32]}-{size}"
    pixels, facts = store.decode_once("tfds", key, decode, bad)
    bad.report()
    good = bad.good(len(splits))
    labels, splits = np.array(facts["labels"], np.int32)[good], splits[good]
    parts = {
        part: Split(store.Pictures(pixels, indices), labels[indices])
        for part, indices in _parts(splits, labels).items()
    }
    description = np.frombuffer(_digest(folder, times=False).encode(), np.uint8)
    names = tuple(map(printable, features[label].names))
    return assemble(name, parts, names, sha256_of(description, labels), validation_size)


def _open(name: str, data_dir: str | None) -> tuple[Path, Any, str, str]:
    """A prepared set's folder and builder, and the names of its image and label features."""
    folder = find(name, data_dir)
    if folder is None:
        root = _roots(data_dir)[0]
        raise UserError(
            "dataset {}: not prepared in {}; an environment with TensorFlow prepares it: "
            "tfds build {} --file_format=array_record --data_dir={}",
            name,
            root / name.partition(":")[0],
            name,
            root,
        )
    if importlib.util.find_spec("array_record") is None:
        raise UserError(
            "dataset {}: array_record, which reads {}, is not installed: pip install "
            "array_record (it is made for Linux only)",
            name,
            folder,
        )
    _check_classes(folder / "features.json")
    import tensorflow_datasets as tfds

    with _one_line(folder):
        builder: Any = tfds.builder_from_directory(folder)
        features: dict[str, Any] = dict(builder.info.features or {})
    file_format = getattr(builder.info.file_format, "value", builder.info.file_format)
    if file_format != "array_record":
        raise UserError(
            "{}: expected array_record files, found {}, which only TensorFlow reads; prepare "
            "it with: tfds build {} --file_format=array_record",
            folder,
            file_format,
            name,
        )
    image = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    label = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    supervised = builder.info.supervised_keys
    if isinstance(supervised, tuple) and len(supervised) == 2:
        image = [key for key in image if key == supervised[0]] or image
        label = [key for key in label if key == supervised[1]] or label
    if len(image) != 1 or len(label) != 1:
        raise UserError(
            "dataset {}: expected an image and a class label, found the features {}",
            name,
            ", ".join(sorted(features)),
        )
    return folder, builder, image[0], label[0]


def _check_classes(path: Path) -> None:
    """Allows only TensorFlow Datasets' own features in a features.json, which names classes."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        for key, value in pairs:
            if key in CLASS_KEYS and not str(value).startswith(FEATURES):
                raise UserError(
                    "{}: expected features of tensorflow_datasets, found {}", path, repr(value)
                )

    with _one_line(path):
        json.loads(path.read_text("utf-8"), object_pairs_hook=check)


@contextlib.contextmanager
def _one_line(path: Path) -> Generator[None]:
    """Turns whatever a reader of damaged files raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError("{}: damaged: {}", path, first_line(error)) from error


def _sources(name: str, folder: Path, builder: Any, image: str) -> dict[str, Any]:
    """Opens the splits that are used, each a sequence of examples, their pictures encoded."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    splits = [split for split in ("train", "validation", "test") if split in builder.info.splits]
    if "train" not in splits:
        raise UserError(
            "dataset {}: expected a split named train, found {}",
            name,
            ", ".join(builder.info.splits),
        )
    sources = {}
    for split in splits:
        paths = [Path(path) for path in builder.info.splits[split].filepaths]
        for path in paths:
            ensure_within(path, folder)
            if not path.is_file():
                raise UserError("{}: the file {} is missing", folder, path.name)
        with _one_line(folder):
            count = len(ArrayRecordDataSource([str(path) for path in paths]))
            source = builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
        if count != len(source):
            raise UserError(
                "{}: expected the {} records of {} that it promises, found {}",
                folder,
                f"{len(source):,}",
                split,
                f"{count:,}",
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


def _parts(splits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each part, from the split and the label of each row."""
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
    if not len(rows["test"]) or (labels[rows["test"]] < 0).all():  # Withheld, as ImageNet's.
        rows["test"] = rows.pop("validation")
    if not len(rows["test"]):
        count = len(rows["train"]) - len(rows["train"]) // 10
        rows["train"], rows["test"] = rows["train"][:count], rows["train"][count:]
    return {part: indices for part, indices in rows.items() if len(indices) or part != "validation"}
