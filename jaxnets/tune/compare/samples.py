"""The data sets that are compared on: MNIST or a folder, and two that scikit-learn ships."""

import dataclasses
from typing import Any

import numpy as np

from jaxnets.data.datasets import Dataset, Split, sha256_of
from jaxnets.data.load import load_dataset
from jaxnets.errors import UserError
from jaxnets.tune.compare.request import Request

TEST_SHARE = 0.2  # The test's share of scikit-learn's examples.
# The capacity curve has few examples and some wrong labels, which too large a network memorises.
CURVE_EXAMPLES, CURVE_NOISE = 500, 0.2


def load(request: Request) -> list[Dataset]:
    """The data sets, their training parts cut to train_size examples drawn with the seed."""
    if request.task == "regression":
        return [diabetes(request.seed, request.train_size)]
    whole = [
        digits(request.seed) if name == "digits" else load_dataset(name, validation_size=0)
        for name in request.datasets
    ]
    if request.data_dir is not None:
        whole = [load_dataset(data_dir=request.data_dir, validation_size=0)]
    return [cut(data, request.train_size, request.seed) for data in whole]


def cut(data: Dataset, size: int | None, seed: int) -> Dataset:
    """The data set with at most this many training examples, some of each class."""
    if size is None or size >= len(data.train):
        return data
    chosen = np.random.default_rng(seed).permutation(len(data.train))[:size]
    train = Split(data.train.images[chosen], data.train.labels[chosen])
    present = len(np.unique(train.labels))
    if not data.is_regression and present < data.num_classes:
        raise UserError(
            f"train_size: expected enough of {data.name} for its {data.num_classes} classes, "
            f"{size} images show only {present}"
        )
    return dataclasses.replace(data, train=train)


def digits(seed: int) -> Dataset:
    """scikit-learn's digits: 1,797 images of 8 x 8 pixels, a fifth of them for the test.

    Source: E. Alpaydin and C. Kaynak 1998, the UCI repository's test set of optical digits.
    """
    from sklearn.datasets import load_digits

    loaded: Any = load_digits(return_X_y=True)
    images, labels = loaded
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels, parts = labels.astype(np.int32), _draw_parts(len(labels), seed)
    return _dataset("digits", 10, images, labels, parts, checksum=sha256_of(images, labels))


def diabetes(seed: int, train_size: int | None = None) -> Dataset:
    """scikit-learn's diabetes: 442 patients, 10 features, the disease's progress a year later.

    Source: Efron et al. 2004, "Least angle regression", section 1.
    """
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import StandardScaler

    features, targets = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    targets = targets[:, None]
    train, test = _draw_parts(len(targets), seed)
    train = train[:train_size]
    if len(train) < 2:  # One has no variance.
        raise UserError(f"train_size: expected at least 2 examples of regression, got {len(train)}")
    scalers: list[Any] = [StandardScaler().fit(x[train]) for x in (features, targets)]
    of_features, of_targets = scalers
    return _dataset(
        "diabetes",
        1,
        of_features.transform(features).astype(np.float32),
        of_targets.transform(targets).astype(np.float32),
        (train, test),
        checksum=sha256_of(features, targets),
        target_mean=of_targets.mean_.item(),
        target_scale=of_targets.scale_.item(),
    )


def small_and_noisy(data: Dataset, seed: int) -> Dataset:
    """The capacity curve's data: few examples, and a share of the training labels drawn anew.

    The test's labels stay right. Targets of regression do too: they are noisy by nature.
    """
    data = cut(data, CURVE_EXAMPLES, seed)
    if data.is_regression:
        return data
    rng = np.random.default_rng((seed, len(data.train)))
    labels = data.train.labels.copy()
    wrong = rng.random(len(labels)) < CURVE_NOISE
    labels[wrong] = rng.integers(0, data.num_classes, wrong.sum())
    return dataclasses.replace(data, train=Split(data.train.images, labels))


def _draw_parts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The training and the test examples' indices, drawn with the seed."""
    order = np.random.default_rng(seed).permutation(size)
    test_size = int(size * TEST_SHARE)
    return order[test_size:], order[:test_size]


def _dataset(name: str, num_classes: int, x: Any, y: Any, parts: Any, **others: Any) -> Dataset:
    """A data set without validation examples; parts are the training and test indices."""
    train, nothing, test = (Split(x[rows], y[rows]) for rows in (parts[0], slice(0), parts[1]))
    return Dataset(name, num_classes, train, nothing, test, **others)
