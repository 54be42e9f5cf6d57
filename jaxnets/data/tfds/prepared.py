"""Which image classification sets TensorFlow Datasets has prepared, and where; opened safely."""

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from jaxnets.errors import UserError, first_line

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


class Prepared(NamedTuple):
    """A prepared data set, opened.

    Attributes:
      name: The name that the user gave.
      folder: The folder of its files.
      builder: TensorFlow Datasets' builder.
      image: The name of the image's feature.
      label: The name of the label's feature.
    """

    name: str
    folder: Path
    builder: Any
    image: str
    label: str


def is_known(name: str, data_dir: str | None) -> bool:
    """Whether a name is that of an image classification set, or one is prepared under it."""
    spelled = SPELLING.fullmatch(name)
    return spelled is not None and (spelled[1] in NAMES or find(name, data_dir) is not None)


def find(name: str, data_dir: str | None) -> Path | None:
    """Returns the folder of a prepared data set, or None; the newest version unless one is named.

    Args:
      name: NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION.
      data_dir: The folder that holds NAME/, or the prepared folder itself; by default
        TFDS_DATA_DIR, then ~/tensorflow_datasets.

    Raises:
      UserError: Several configurations are prepared, and none is named.
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
            raise UserError(f"dataset {base}: expected one of {', '.join(configs)}, got {name}")
        if found:
            return max(found, key=lambda folder: [int(part) for part in folder.name.split(".")])
    return None


def _roots(data_dir: str | None) -> list[Path]:
    """Where prepared data sets are looked for."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    roots = [os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets"]
    return [Path(os.path.expanduser(root)) for root in roots if root]


def _is_prepared(folder: Path) -> bool:
    return all((folder / file).is_file() for file in INFO_FILES)


def open_prepared(name: str, data_dir: str | None) -> Prepared:
    """Opens a prepared data set and finds its image and its label.

    Args:
      name: The set's name, as in `find`.
      data_dir: The folder to look in, as in `find`.

    Raises:
      UserError: It is not prepared, or cannot be read without TensorFlow, or is damaged, or is no
        image classification set.
    """
    folder = find(name, data_dir)
    if folder is None:
        root = _roots(data_dir)[0]
        raise UserError(
            f"dataset {name}: expected it prepared in {root / name.partition(':')[0]}, found "
            f"nothing; an environment with TensorFlow prepares it: tfds build {name} "
            f"--file_format=array_record --data_dir={root}"
        )
    if importlib.util.find_spec("array_record") is None:
        raise UserError(
            f"dataset {name}: expected the package array_record, which reads {folder}, found none "
            f"(it is made for Linux alone)"
        )
    _check_info(folder)
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)
        features: dict[str, Any] = dict(builder.info.features or {})
    except Exception as error:  # Damaged metadata may raise anything at all.
        raise UserError(f"{folder}: damaged: {first_line(error)}") from error
    file_format = getattr(builder.info.file_format, "value", builder.info.file_format)
    if file_format != "array_record":
        raise UserError(
            f"{folder}: expected array_record files, found {file_format}, which only TensorFlow "
            f"reads; prepare it with: tfds build {name} --file_format=array_record"
        )
    image = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    label = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    supervised = builder.info.supervised_keys
    if isinstance(supervised, tuple) and len(supervised) == 2:
        image = [key for key in image if key == supervised[0]] or image
        label = [key for key in label if key == supervised[1]] or label
    if len(image) != 1 or len(label) != 1:
        raise UserError(
            f"dataset {name}: expected an image and a class label, found the features "
            f"{', '.join(sorted(features))}"
        )
    return Prepared(name, folder, builder, image[0], label[0])


def _check_info(folder: Path) -> None:
    """Allows only features of TensorFlow Datasets in features.json: it names classes to import.

    Raises:
      UserError: It names others, or is damaged.
    """
    path = folder / "features.json"

    def check(pairs: list[tuple[str, Any]]) -> None:
        for key, value in pairs:
            if key in CLASS_KEYS and not str(value).startswith(FEATURES):
                raise UserError(
                    f"{path}: expected features of tensorflow_datasets, found {value!r}"
                )

    try:
        json.loads(path.read_text("utf-8"), object_pairs_hook=check)
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: {first_line(error)}") from error
