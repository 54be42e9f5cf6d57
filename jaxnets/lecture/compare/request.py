"""What `python -m jaxnets compare` is asked for: its flags read and checked, before jax starts."""

import dataclasses
from collections.abc import Sequence

from jaxnets.config.options import Options, option
from jaxnets.config.recipes import PRESETS, REGRESSION
from jaxnets.errors import UserError, unknown
from jaxnets.lecture.compare import baselines

NETWORKS = {"classification": tuple(PRESETS), "regression": tuple(REGRESSION)}
BASELINES = {
    "classification": tuple(baselines.CLASSIFIERS),
    "regression": tuple(baselines.REGRESSORS),
}
DATASETS = {"classification": ("mnist", "digits"), "regression": ("diabetes",)}
FROM_SCIKIT_LEARN = ("digits", "diabetes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(Options):
    """What to compare: the command's flags, which `resolved` completes."""

    task: str = option(
        "classification",
        "what the models learn; regression is on scikit-learn's diabetes",
        tuple(DATASETS),
    )
    models: tuple[str, ...] = option(
        (),
        "networks and baselines to compare, as softmax,mlp,knn",
        unset="all but the alexnets",
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
    json: bool = option(False, "print JSON instead of tables")
    notes: tuple[str, ...] = ()  # What was left out, and why.


def resolved(flags: Request) -> Request:
    """The request with every model and data set by name, and its curve from small to large.

    Raises:
      UserError: An unknown name, or a model or data set from scikit-learn where that is not
        installed.
    """
    networks, others = NETWORKS[flags.task], BASELINES[flags.task]
    models = _names("model", flags.models, (*networks, *others))
    datasets = _names("dataset", flags.datasets, DATASETS[flags.task])
    notes = []
    if flags.data_dir is not None:
        if flags.task == "regression":
            raise UserError("data_dir: a folder of images is for --task=classification")
        if datasets:
            raise UserError("datasets and data_dir exclude each other, got both")
    if not baselines.available():
        for name in (*models, *datasets):
            if name in FROM_SCIKIT_LEARN or (name in others and name not in networks):
                raise UserError(f"{name} needs scikit-learn: {baselines.INSTALL}")
        if flags.task == "regression":
            raise UserError(f"task regression needs scikit-learn's data: {baselines.INSTALL}")
        notes.append(f"the networks alone: the baselines and digits need {baselines.INSTALL}")
        others = ()
    if not datasets and flags.data_dir is None:
        datasets = tuple(
            name for name in DATASETS[flags.task] if not notes or name not in FROM_SCIKIT_LEARN
        )
    default = (name for name in networks if not name.startswith("alexnet"))
    return dataclasses.replace(
        flags,
        models=models or (*default, *others),
        datasets=datasets,
        curve=tuple(sorted(set(flags.curve))),
        notes=tuple(notes),
    )


def _names(kind: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names, each once."""
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    return tuple(dict.fromkeys(names))
