"""A trained network's predictions for its test images: mistakes, scores and confidence."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.base.language import N_, _
from jaxnets.data.batches import eval_batches
from jaxnets.data.datasets import Dataset, Split
from jaxnets.data.idx import read_idx
from jaxnets.losses import LOSSES
from jaxnets.predict.predict import compile_network
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.crops import count_views

BATCH = 500
BINS = 10  # Bins of confidence, of equal width; a bin includes its upper edge.
TEST_IMAGES = "mnist/t10k-images-idx3-ubyte.gz"
# The parts of a data set that a network can be judged on, best first.
PARTS = {"test": N_("{} test images"), "validation": N_("{} validation images")}

# The 15 test images of MNIST whose label most people reject: at most two of five chose it. Each
# index in the test file has the label that three or more chose, if there is one. Source: Northcutt,
# Athalye and Mueller 2021 (arXiv:2103.14749), labelerrors.com; github.com/cleanlab/label-errors,
# mturk/mnist_mturk.json at commit 5457895.
REJECTED_MNIST_LABELS = {
    947: 9, 1621: 6, 1901: 4, 2130: None, 2462: 0, 2597: 3, 2654: None, 3520: None, 3558: 0,
    5937: 3, 6651: 6, 6783: 6, 8527: None, 9679: None, 9729: 6,
}  # fmt: skip


class Predictions(NamedTuple):
    """A network's predictions for N images."""

    labels: np.ndarray  # [N]
    probabilities: np.ndarray  # [N, K] float32
    rows: np.ndarray  # [N] The images' places in their part of the data set.
    log_probabilities: np.ndarray | None = None  # [N, K] float32: finite where these are 0.
    part: str = "test"  # One of PARTS.

    @property
    def images(self) -> str:
        """The images' number and part as a text: "1,000 test images"."""
        return _(PARTS[self.part], f"{len(self.labels):,}")

    @property
    def classes(self) -> np.ndarray:
        """The most probable class of each image, [N]; the first one of equals."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidences(self) -> np.ndarray:
        """The probability of that class, [N]."""
        return self.probabilities.max(axis=1, initial=0)

    @property
    def right(self) -> np.ndarray:
        return self.classes == self.labels

    def loss(self, name: str) -> float | None:
        """The mean of one of LOSSES over the images; None for a loss of the user's own."""
        if self.log_probabilities is None or name not in LOSSES:
            return None
        losses = LOSSES[name](jnp.asarray(self.log_probabilities), jnp.asarray(self.labels))
        return float(np.asarray(losses, np.float64).mean())

    @property
    def confused(self) -> np.ndarray:
        """The confusion matrix of only the mistakes: its diagonal is 0."""
        counts = self.confusion
        return counts - np.diag(counts.diagonal())

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix [K, K] of counts; row: label, column: prediction."""
        size = self.probabilities.shape[1]
        counts = np.zeros((size, size), np.int64)
        np.add.at(counts, (self.labels, self.classes), 1)
        return counts


def predictions_of(
    trained: TrainedNetwork, data: Dataset, part: str = "test", views: Sequence[str] = ()
) -> Predictions:
    """The network's answers for every readable image of a part of a data set.

    Args:
      trained: The network.
      data: The data set.
      part: One of PARTS; it has an image or more.
      views: Names of `training.crops.VIEWS`; the answer is the mean over these views of an image.
    """
    split = split_of(data, part)
    forward = compile_network(trained.config, trained.model, jax.nn.log_softmax, views)
    params = jax.device_put(trained.params)
    parts, read = [], []
    for batch in eval_batches(split, min(BATCH // count_views(views), len(split))):
        parts.append(np.asarray(forward(params, np.asarray(batch.images))))
        read.append(batch.mask > 0)
    rows = np.flatnonzero(np.concatenate(read)[: len(split)])
    logs = np.concatenate(parts)[: len(split)][rows]
    return Predictions(split.labels[rows], np.nan_to_num(np.exp(logs)), rows, logs, part)


def split_of(data: Dataset, part: str) -> Split:
    """One of PARTS of a data set."""
    return {"test": data.test, "validation": data.validation}[part]


class ClassScores(NamedTuple):
    """Each class's scores, [K] in [0, 1]; NaN where they would divide by zero."""

    precision: np.ndarray  # The share of the images predicted as this class that belong to it.
    recall: np.ndarray  # The share of the class's images that were found.
    f1: np.ndarray  # The harmonic mean of both.
    support: np.ndarray  # The number of images of the class.


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Precision, recall and F1 of each class.

    >>> scores = class_scores(np.array([[3, 1], [0, 4]]))
    >>> scores.precision.tolist(), scores.recall.tolist()
    ([1.0, 0.8], [0.75, 1.0])
    """
    hits, support, taken = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return ClassScores(
            hits / taken, hits / support, 2 * hits / (support + taken), np.asarray(support)
        )


class Calibration(NamedTuple):
    """The network's accuracy in each bin of its confidence."""

    accuracy: np.ndarray  # [BINS] NaN where a bin is empty.
    share: np.ndarray  # [BINS] The share of all images.
    error: float  # `expected_error`.


def bins_of(found: Predictions) -> np.ndarray:
    """Each image's bin, [N], by the probability of its predicted class."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], found.confidences)


def expected_error(at: np.ndarray, gaps: np.ndarray) -> float:
    """The expected calibration error: the mean |accuracy - confidence| of an image's bin.

    Source: Guo et al. 2017, equation 3.

    Args:
      at: Each image's bin, [N].
      gaps: 1 for a right and 0 for a wrong answer, minus its confidence, [N].
    """
    return float(np.abs(np.bincount(at, gaps)).sum() / max(len(at), 1))


def calibration(found: Predictions) -> Calibration:
    """The network's accuracy in each bin of its confidence."""
    at = bins_of(found)
    count = np.bincount(at, minlength=BINS)
    with np.errstate(invalid="ignore"):
        accuracy = np.bincount(at, found.right, BINS) / count
    error = expected_error(at, found.right - found.confidences.astype(np.float64))
    return Calibration(accuracy, count / max(len(at), 1), error)


class Mistake(NamedTuple):
    """A misclassified image."""

    row: int  # In its part of the data set.
    label: int
    predicted: int
    confidence: float
    is_rejected: bool = False  # Whether most people reject the label.
    better: int | None = None  # The label that most people choose instead.


def mistakes(found: Predictions, data: Dataset, count: int) -> list[Mistake]:
    """The mistakes that the network was surest of."""
    known = rejected_labels(data)
    at = np.flatnonzero(~found.right)
    at = at[np.argsort(-found.confidences[at], kind="stable")][:count]
    worst = []
    for i in at:
        row = int(found.rows[i])
        content = _content(split_of(data, found.part), row) if known else b""
        both = int(found.labels[i]), int(found.classes[i])
        sure = float(found.confidences[i])
        worst.append(Mistake(row, *both, sure, content in known, known.get(content)))
    return worst


def rejected_labels(data: Dataset) -> dict[bytes, int | None]:
    """REJECTED_MNIST_LABELS by the images' content, in whatever order the split has them."""
    if data.name != "mnist" or data.image_shape != (28, 28, 1):
        return {}
    images = read_idx(Path(str(resources.files("jaxnets.data"))) / TEST_IMAGES, rank=3)
    return {images[row].tobytes(): label for row, label in REJECTED_MNIST_LABELS.items()}


def _content(split: Split, row: int) -> bytes:
    """An image's bytes, as in an IDX file."""
    image = np.asarray(split.images[row])
    return (image if image.dtype == np.uint8 else np.rint(255 * image).astype(np.uint8)).tobytes()
