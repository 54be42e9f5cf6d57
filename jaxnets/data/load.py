"""Loads a data set by its name, wherever it comes from."""

import os
from typing import Any

from jaxnets.base.errors import UserError, unknown
from jaxnets.data import idx
from jaxnets.data.datasets import Dataset

TABLES = (".csv", ".tsv", ".parquet", ".xlsx")  # Endings of files, which are not read.


def load_dataset(
    name: str = "mnist",
    data_dir: str | None = None,
    validation_size: int | None = None,
    *,
    decode_size: int | None = None,
    input_size: int | None = None,
    as_bytes: bool = False,
) -> Dataset:
    """Loads a data set by its name and splits it as the lecture does.

    The first `validation_size` images of the training file are the validation set:
    MNIST gives 55,000 / 5,000 / 10,000 images.

    Args:
      name: "mnist", which is included and needs no network; points of a plane (circles,
        moons, spirals, xor), drawn here; a published set (fashion_mnist, kmnist, cifar10,
        cifar100), downloaded once; an image classification set of TensorFlow
        Datasets that is prepared as array_record, as NAME, NAME/CONFIG or NAME:VERSION; or the path
        of a folder of pictures.
      data_dir: Folder of its files, instead of the usual folders. With "mnist" it is a folder of
        any four IDX files under the standard names, plain or gzip, and the data set has its name.
      validation_size: Number of training images split off, 0 or more; None for 5,000, at most a
        tenth of them. A set's own validation split is used instead, whole, unless it is 0.
      decode_size: The side of decoded pictures in pixels, as in `load_folder`.
      input_size: The network's input size, as in `load_folder`.
      as_bytes: Whether MNIST's pixels stay bytes, which the step and the network take too.

    Returns:
      The data set, with pixels float32 in [0, 1] from IDX files (unless as_bytes), else uint8.

    Raises:
      UserError: The name is unknown; a file is missing, damaged or does not fit the others; the
        data set is not on this machine and cannot be downloaded or prepared here.

    >>> data = load_dataset("mnist")
    >>> len(data.train), len(data.validation), len(data.test), data.image_shape
    (55000, 5000, 10000, (28, 28, 1))
    """
    if name == "mnist":
        return idx.load_mnist(data_dir, validation_size, as_bytes)
    # Importing Pillow, tarfile and the like takes a fortieth of a run's start; MNIST needs none.
    from jaxnets.data import planes, published, tfds
    from jaxnets.data.pictures.folder import load_folder

    if name.lower().endswith(TABLES):
        raise UserError(
            "dataset: expected a name or a folder, got {}; in Python, "
            'jaxnets.Classifier("mlp") takes tables',
            name,
        )
    form: dict[str, Any] = dict(decode_size=decode_size, input_size=input_size)
    is_path = os.sep in name or "/" in name
    is_folder = os.path.isdir(os.path.expanduser(name))
    if name in planes.SETS:
        if data_dir is not None:
            raise UserError(
                "data_dir: expected none for {}, whose points are drawn, got {}", name, data_dir
            )
        return planes.load(name, validation_size)
    if name in published.SETS:
        return published.load(name, data_dir, validation_size, **form)
    if tfds.is_known(name, data_dir) and not (is_path and is_folder):
        return tfds.load(name, data_dir, validation_size, **form)
    if is_path or is_folder:
        if data_dir is not None:
            raise UserError("data_dir: expected none for the folder {}, got {}", name, data_dir)
        return load_folder(name, validation_size=validation_size, **form)
    raise unknown("dataset", name, ("mnist", *planes.SETS, *published.SETS, *tfds.NAMES))
