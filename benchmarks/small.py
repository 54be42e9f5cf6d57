"""Small data: Classifier's networks compared with scikit-learn's, all without settings.

    python benchmarks/small.py                        the table of docs/python.md
    python benchmarks/small.py --sets=iris,moons      some of its rows
    python benchmarks/small.py --validation --learning_rate=0.01     how a recipe is chosen

Each set is cut once into a training and a test part. With --validation no test part is read: a
quarter of the training part is held back instead, and settings may be given. A line has the
accuracy of each estimator, and the CPU seconds of each network's fit, compilation included.
"""

import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from jaxnets.config.fields import Config
from jaxnets.config.options import parse
from jaxnets.data.load import load_dataset
from jaxnets.notebook.estimators import Classifier

SEED = 0
PEERS = LogisticRegression(random_state=SEED), MLPClassifier(random_state=SEED), SVC()
TABLES: dict[str, Any] = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "moons": lambda: datasets.make_moons(1000, noise=0.2, random_state=SEED),
    "circles": lambda: datasets.make_circles(1000, noise=0.1, factor=0.6, random_state=SEED),
    "classification": lambda: datasets.make_classification(
        1000, 20, n_informative=8, n_classes=3, random_state=SEED
    ),
}
PICTURES = ("digits", "mnist")
Part = tuple[np.ndarray, np.ndarray]  # (images or rows, labels)


def parts(name: str) -> tuple[Part, Part]:
    """The training and the test part of a set."""
    if name == "mnist":
        data = load_dataset("mnist")
        train, test = data.train[:1000], data.test
        return (train.images[..., 0], train.labels), (test.images[..., 0], test.labels)
    if name == "digits":
        digits: Any = datasets.load_digits()
        x, y = digits.data, digits.target
        return cut(x.reshape(-1, 8, 8) / 16, y, 1200)
    x, y = TABLES[name]()
    return cut(x, y, 0.5)


def cut(x: np.ndarray, y: np.ndarray, size: float) -> tuple[Part, Part]:
    """Two parts of a set, the first of this size or share, each with all classes."""
    both: Any = train_test_split(x, y, train_size=size, stratify=y, random_state=SEED)
    x_first, x_second, y_first, y_second = both
    return (x_first, y_first), (x_second, y_second)


def results(name: str, validation: bool, settings: dict[str, Any]) -> Iterator[str]:
    """Each estimator's name, accuracy and, of a network, the CPU seconds of its fit."""
    train, test = parts(name)
    if validation:
        train, test = cut(*train, 0.75)
    rows = [part[0].reshape(len(part[0]), -1) for part in (train, test)]
    for unfitted in PEERS:
        peer: Any = clone(unfitted)
        accuracy = peer.fit(rows[0], train[1]).score(rows[1], test[1])
        yield f"{type(peer).__name__} {accuracy:.3f}"
    for model in ("softmax", "mlp", "cnn") if name in PICTURES else ("softmax", "mlp"):
        started = time.process_time()
        network = Classifier(model, **settings).fit(*train)
        seconds = time.process_time() - started
        yield f"{model} {network.score(*test):.3f} ({seconds:.1f} s)"


def main(arguments: list[str]) -> None:
    """Prints a line for each set."""
    given: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        given[name] = value
    validation, names = given.pop("validation", None) is not None, given.pop("sets", None)
    settings = {name: parse(Config.__dataclass_fields__[name], x) for name, x in given.items()}
    if settings and not validation:
        sys.exit("a recipe is chosen with --validation")
    warnings.simplefilter("ignore")  # A peer's, that it has not converged.
    for name in names.split(",") if names else (*PICTURES, *TABLES):
        print(name, *results(name, validation, settings), sep="  ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
