"""The request of `python -m jaxnets compare`: flags read and checked before jax starts."""

import dataclasses
import importlib.util
from typing import NamedTuple

from jaxnets.config.options import Options, option
from jaxnets.config.recipes import PRESETS, Recipe
from jaxnets.errors import UserError, unknown
from jaxnets.language import N_

INSTALL = "pip install scikit-learn"
ALONE = N_("the networks alone: the baselines and digits need {}")
LONG = (
    "alexnet",
    "cnn_",
    "resnet",
)  # The prefix of the networks that train longer than all others.

# Regression, on numeric columns. Each recipe names the network that it changes.
REGRESSION: dict[str, Recipe] = {
    # softmax without its softmax. Gradient descent on a quadratic: after 1,000 steps within 1e-4
    # of the closed form on diabetes, whose features' covariance has eigenvalues from 4.1 to 0.008.
    "linear": dict(model="softmax", loss="squared_error", schedule="constant")
    | dict(epochs=1000, batch_size=None, learning_rate=0.05, momentum=0.9),
    # The slides' two hidden layers.
    "mlp": dict(model="mlp", hidden=(64, 64), loss="squared_error")
    | dict(epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3),
}

# The capacity curve's networks have one hidden layer and are trained until they fit what they can.
_CURVE: Recipe = dict(model="mlp", optimizer="adam", learning_rate=3e-3, batch_size=50)
CURVE: dict[str, Recipe] = {
    "classification": _CURVE | dict(loss="cross_entropy", epochs=100),
    "regression": _CURVE | dict(loss="squared_error", epochs=300),
}


class Task(NamedTuple):
    """The models, data sets and scores of a task."""

    networks: tuple[str, ...]
    baselines: tuple[str, ...]  # scikit-learn's models, defined in models.py.
    datasets: tuple[str, ...]
    scores: tuple[str, ...]
    shown: tuple[str, ...]  # The scores in the tables, each of one part of the data.
    ranks_by: str  # The score that ranks; larger is better.


TASKS = {
    "classification": Task(
        networks=tuple(PRESETS),
        baselines=("linear_regression", "logistic_regression", "knn", "kmeans"),
        datasets=("mnist", "digits"),
        scores=("accuracy",),
        shown=("train_accuracy", "test_accuracy"),
        ranks_by="accuracy",
    ),
    "regression": Task(
        networks=tuple(REGRESSION),
        baselines=("linear_regression", "knn"),
        datasets=("diabetes",),
        scores=("mse", "r2", "wmape"),
        shown=("test_mse", "train_r2", "test_r2", "test_wmape"),
        ranks_by="r2",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(Options):
    """The command's flags, which `resolved` completes."""

    task: str = option(
        "classification",
        "what the models learn; regression is on scikit-learn's diabetes",
        tuple(TASKS),
    )
    models: tuple[str, ...] = option(
        (),
        "networks and baselines to compare, as softmax,mlp,knn,my_net.py",
        unset="all but alexnets, cnn_bn, cnn_tiny, resnet20",
    )
    datasets: tuple[str, ...] = option(
        (), "data sets: mnist, digits (which comes with scikit-learn)", unset="both"
    )
    data_dir: str | None = option(
        None, "folder of four IDX files instead, as of Fashion-MNIST", metavar="FOLDER"
    )
    train_size: int | None = option(
        5_000, "largest number of training examples, or full for all", (1, 10**7), none="full"
    )
    epochs: int | None = option(
        None, "epochs of every network", (1, 10**6), unset="each recipe's own"
    )
    seed: int = option(0, "random seed of weights, image order and splits", (0, 2**31 - 1))
    curve: tuple[int, ...] = option(
        (4, 16, 64, 256), "hidden sizes of the capacity curve, or none", (1, 65536), none="none"
    )
    gradients: str = option(
        "auto", "how gradients are computed: by jax.grad, or by hand", ("auto", "manual")
    )
    workdir: str | None = option(
        None, "folder for the results", metavar="FOLDER", unset="runs/compare-<date>-<time>"
    )
    resume: bool = option(False, "continue the comparison in workdir")
    json: bool = option(False, "print JSON instead of tables")
    notes: tuple[str, ...] = ()  # Lines on what was left out, and why.


def resolved(flags: Request) -> Request:
    """The request with every model and data set by name, and its curve from small to large."""
    task = TASKS[flags.task]
    for name in flags.models:
        may_be_a_file = name.endswith(".py") and flags.task == "classification"
        if name not in (known := (*task.networks, *task.baselines)) and not may_be_a_file:
            raise unknown("model", name, known)
    for name in flags.datasets:
        if name not in task.datasets:
            raise unknown("dataset", name, task.datasets)
    if flags.data_dir is not None and flags.task == "regression":
        raise UserError("data_dir: a folder of images is for --task=classification")
    if flags.resume and flags.workdir is None:
        raise UserError("resume: expected --workdir=FOLDER too, which holds the comparison")
    if flags.data_dir is not None and flags.datasets:
        raise UserError("datasets and data_dir exclude each other, got both")

    default = [name for name in task.networks if not name.startswith(LONG)]
    models = flags.models or (*default, *task.baselines)
    datasets = flags.datasets or (task.datasets if flags.data_dir is None else ())
    notes = ()
    if importlib.util.find_spec("sklearn") is None:
        if flags.task == "regression":
            raise UserError("task regression needs scikit-learn's data: {}", INSTALL)
        missing = (*task.baselines, "digits")
        for name in (*flags.models, *flags.datasets):
            if name in missing:
                raise UserError("{} needs scikit-learn: {}", name, INSTALL)
        models, datasets = (
            tuple(name for name in names if name not in missing) for names in (models, datasets)
        )
        notes = (ALONE.format(INSTALL),)
    return dataclasses.replace(
        flags,
        models=tuple(dict.fromkeys(models)),
        datasets=tuple(dict.fromkeys(datasets)),
        curve=tuple(sorted(set(flags.curve))),
        notes=notes,
    )
