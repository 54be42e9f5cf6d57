"""Where images come from: MNIST in the package, or a folder of IDX files.

Arrays stay NumPy here; they become JAX arrays when they reach a device.
"""

import dataclasses
import hashlib
from importlib import resources
from pathlib import Path

import numpy as np

from jaxnets.data.idx import read_idx
from jaxnets.errors import UserError, unknown

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
DATASETS = ("mnist",)
VALIDATION_SIZE = 5000
MAX_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
      images: [N, H, W, C] float32 in [0, 1], or uint8.
      labels: [N] int32 in [0, K).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in the lecture's three parts; `validation` may be empty."""

    name: str
    num_classes: int
    train: Split
    validation: Split
    test: Split
    checksum: str

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.train.images.shape[1:]


def load_dataset(
    name: str = "mnist", data_dir: str | None = None, validation_size: int = VALIDATION_SIZE
) -> Dataset:
    """Loads a data set and splits it as the lecture does.

    The first `validation_size` images of the training file are the validation set:
    MNIST gives 55,000 / 5,000 / 10,000 images.

    Args:
      name: "mnist", which lies in the package and needs no network.
      data_dir: A folder with the four IDX files under the standard names, plain or gzip; it
        replaces the package's files (Fashion-MNIST and KMNIST have the same form).
      validation_size: Images held back from the training file, 0 or more.

    Returns:
      The data set, pixels float32 in [0, 1].

    Raises:
      UserError: The name is unknown, or a file is missing, damaged or does not fit the others.

    >>> data = load_dataset("mnist")
    >>> len(data.train), len(data.validation), len(data.test), data.image_shape
    (55000, 5000, 10000, (28, 28, 1))
    """
    if data_dir is not None:
        folder, digests = Path(data_dir).expanduser(), dict.fromkeys(FILES)
        if not folder.is_dir():
            raise UserError(f"data_dir: expected a folder of IDX files, found {_kind(folder)}")
        name = folder.resolve().name
    elif name in DATASETS:
        folder, digests = Path(str(resources.files("jaxnets.data"))) / name, MNIST_SHA256
    else:
        raise unknown("dataset", name, DATASETS)

    paths = {key: _find(folder, file) for key, file in FILES.items()}
    arrays = {
        key: read_idx(path, rank=3 if key.endswith("images") else 1, sha256=digests[key])
        for key, path in paths.items()
    }
    num_classes = _check_fit(arrays, paths)
    if validation_size >= len(arrays["train_labels"]):
        raise UserError(
            f"validation_size: expected less than the {len(arrays['train_labels'])} images of the "
            f"training file, got {validation_size}"
        )
    images, labels = _floats(arrays["train_images"]), arrays["train_labels"].astype(np.int32)
    return Dataset(
        name=name,
        num_classes=num_classes,
        train=Split(images[validation_size:], labels[validation_size:]),
        validation=Split(images[:validation_size], labels[:validation_size]),
        test=Split(_floats(arrays["test_images"]), arrays["test_labels"].astype(np.int32)),
        checksum=sha256_of(*arrays.values()),
    )


def sha256_of(*arrays: np.ndarray) -> str:
    """The SHA-256 of the arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def held_out(data: Dataset) -> Dataset:
    """The first twelfth of the training images as validation images: 5,000 of MNIST's 60,000."""
    count = len(data.train) // 12
    images, labels = data.train.images, data.train.labels
    return dataclasses.replace(
        data,
        train=Split(images[count:], labels[count:]),
        validation=Split(images[:count], labels[:count]),
    )


def without_validation(data: Dataset) -> Dataset:
    """The same without validation images, which would be evaluated after every epoch."""
    nothing = Split(data.train.images[:0], data.train.labels[:0])
    return dataclasses.replace(data, validation=nothing)


def _kind(path: Path) -> str:
    return f"a file: {path}" if path.exists() else f"nothing at {path}"


def _find(folder: Path, file: str) -> Path:
    """Returns the file, plain or gzip."""
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: expected {file} or {file}.gz, found neither")


def _floats(images: np.ndarray) -> np.ndarray:
    """[N, H, W] bytes → [N, H, W, 1] float32 in [0, 1]."""
    return np.divide(images[..., None], np.float32(255), dtype=np.float32)


def _check_fit(arrays: dict[str, np.ndarray], paths: dict[str, Path]) -> int:
    """Checks that the four files belong together; returns the number of classes."""
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if len(images) != len(labels):
            raise UserError(
                f"{paths[f'{part}_labels']}: expected {len(images)} labels for as many images, "
                f"found {len(labels)}"
            )
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise UserError(
            f"{paths['test_images']}: expected images of {arrays['train_images'].shape[1:]} as in "
            f"the training file, found {arrays['test_images'].shape[1:]}"
        )
    num_classes = int(arrays["train_labels"].max()) + 1
    test_classes = int(arrays["test_labels"].max()) + 1
    if not 2 <= num_classes <= MAX_CLASSES:
        raise UserError(
            f"{paths['train_labels']}: expected labels of 2 to {MAX_CLASSES} classes, found "
            f"{num_classes}"
        )
    missing = sorted(set(range(num_classes)) - set(np.unique(arrays["train_labels"]).tolist()))
    if missing:
        raise UserError(
            f"{paths['train_labels']}: expected every label from 0 to {num_classes - 1}, "
            f"found none of {missing[:5]}"
        )
    if test_classes > num_classes:
        raise UserError(
            f"{paths['test_labels']}: expected labels from 0 to {num_classes - 1} as in the "
            f"training file, found {test_classes - 1}"
        )
    return num_classes
