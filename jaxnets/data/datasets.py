"""A data set and its parts, wherever it was loaded from.

Arrays stay NumPy here; they become JAX arrays when they reach a device.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.base.described import Described, size_text
from jaxnets.base.errors import UserError

# The default size of the validation split, at most a tenth of the training images.
VALIDATION_SIZE = 5000
MAX_CLASSES = 1000


@dataclasses.dataclass(frozen=True, repr=False)
class Split(Described):
    """Images, or rows of numbers, with their labels."""

    # Rows [N, D] float32, or images [N, H, W, C]: float32 in [0, 1], or uint8, which the step
    # divides by 255. They are a NumPy array, or Pictures (data/pictures/store.py) that are read
    # when they are asked for.
    images: Any
    labels: np.ndarray  # [N] int32 in [0, K).

    def _repr_fields(self) -> dict[str, Any]:
        return {"images": len(self), "image": size_text(self.images.shape[1:])}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | np.ndarray) -> "Split":
        return Split(self.images[rows], self.labels[rows])


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset(Described):
    """A data set in the lecture's three parts.

    In regression, labels are targets [N, K] float32, standardized by the mean and the scale that
    the training targets have in their own units.
    """

    name: str  # A terminal may show it.
    num_classes: int  # K.
    train: Split
    validation: Split  # Evaluated after every epoch; it may be empty.
    test: Split  # Evaluated once.
    checksum: str  # A digest that tells these images from others.
    # K texts, by default the digits "0" to "K-1". They come from files: escape them wherever you
    # show them.
    class_names: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0

    def __post_init__(self):
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.num_classes))))
        if len(self.class_names) != self.num_classes:
            raise UserError(
                "{}: expected a name for each of {} classes, got {}",
                self.name,
                self.num_classes,
                len(self.class_names),
            )

    def _repr_fields(self) -> dict[str, Any]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        classes = {} if self.is_regression else {"classes": self.num_classes}
        sizes = {name: len(part) for name, part in parts.items()}
        return {"name": self.name, "image": size_text(self.image_shape)} | classes | sizes

    def limited(self, count: int | None) -> "Dataset":
        """The same set with fewer images, drawn without regard to order.

        Args:
          count: The most images in each part; None keeps all.
        """

        def draw(part: Split) -> Split:
            if count is None or len(part) <= count:
                return part
            rows = np.random.default_rng(0).permutation(len(part))[:count]
            pick = getattr(part.images, "select", part.images.__getitem__)
            return Split(pick(rows), part.labels[rows])

        parts = {name: draw(getattr(self, name)) for name in ("train", "validation", "test")}
        return dataclasses.replace(self, **parts)

    @property
    def is_regression(self) -> bool:
        """Whether the labels are numbers to predict instead of classes."""
        return np.issubdtype(self.train.labels.dtype, np.floating)

    @property
    def is_table(self) -> bool:
        """Whether the examples are rows of numbers [D] to classify instead of images."""
        return len(self.image_shape) == 1 and not self.is_regression

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C); (D,) for rows."""
        return self.train.images.shape[1:]


def assemble(
    name: str,
    parts: dict[str, Split],
    class_names: Sequence[str],
    checksum: str,
    validation_size: int | None,
) -> Dataset:
    """Makes a data set from its "train" and "test" parts, and checks that they fit.

    Without a "test" part it has no test images.

    Its own "validation" part is used whole, unless validation_size is 0. Without one, that many of
    the training images are split off, as in `load_dataset`.
    """
    if not 2 <= len(class_names) <= MAX_CLASSES:
        raise UserError(
            "{}: expected 2 to {} classes, found {}", name, MAX_CLASSES, len(class_names)
        )
    wanted = parts["train"].images.shape[1:]
    for part, split in parts.items():
        if not len(split):
            raise UserError("{}: no images in its {} part", name, part)
        lowest, highest = int(split.labels.min()), int(split.labels.max())
        if lowest < 0 or highest >= len(class_names):
            raise UserError(
                "{}: expected labels from 0 to {} in its {} part, found {}",
                name,
                len(class_names) - 1,
                part,
                lowest if lowest < 0 else highest,
            )
        if (shape := split.images.shape[1:]) != wanted:
            raise UserError(
                "{}: expected images of {} as in its train part, found {} in its {} part",
                name,
                wanted,
                shape,
                part,
            )
    train, names = parts["train"], tuple(class_names)
    if "validation" in parts and validation_size != 0:
        validation = parts["validation"]
    else:
        count = validation_count(validation_size, len(train), "images of the training file")
        train, validation = train[count:], train[:count]
    test = parts.get("test", train[:0])
    return Dataset(name, len(names), train, validation, test, checksum, names)


def validation_count(validation_size: int | None, total: int, what: str) -> int:
    """Returns how many of the training images, named by `what`, are split off for validation."""
    if validation_size is None:
        return min(VALIDATION_SIZE, total // 10)
    if validation_size >= total:
        raise UserError(
            "validation_size: expected less than the {} {}, got {}", total, what, validation_size
        )
    return validation_size


def ensure_within(path: Path, folder: Path) -> None:
    """Raises UserError if a file of a data set, which may be untrusted, is not in its folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError("{}: expected a file in {}, found one outside of it", path, folder)


def sha256_of(*arrays: np.ndarray) -> str:
    """The SHA-256 of the arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
