"""What `python -m jaxnets compare` is asked for: its flags read and checked, before jax starts."""

import argparse
import dataclasses
from collections.abc import Sequence

from jaxnets.config.fields import preset
from jaxnets.config.recipes import PRESETS
from jaxnets.errors import UserError, unknown
from jaxnets.lecture.compare import baselines
from jaxnets.lecture.compare.recipes import REGRESSION

TRAIN_SIZE = 5_000
CURVE = "4,16,64,256"

NETWORKS = {"classification": tuple(PRESETS), "regression": tuple(REGRESSION)}
BASELINES = {
    "classification": tuple(baselines.CLASSIFIERS),
    "regression": tuple(baselines.REGRESSORS),
}
DATASETS = {"classification": ("mnist", "digits"), "regression": ("diabetes",)}
FROM_SCIKIT_LEARN = ("digits", "diabetes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What to compare.

    Attributes:
      task: "classification" or "regression".
      models: Networks and baselines.
      datasets: Names; empty where data_dir is given.
      data_dir: A folder of four IDX files.
      train_size: The most training examples of a data set, None for all.
      epochs: Of every network, None for each recipe's own.
      seed: Of everything random.
      curve: Hidden sizes of the capacity curve; empty for none.
      gradients: "auto" or "manual".
      workdir: Where the results go, None for runs/compare-<date>-<time>.
      as_json: Print JSON instead of tables.
      notes: What was left out, and why.
    """

    task: str
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    data_dir: str | None
    train_size: int | None
    epochs: int | None
    seed: int
    curve: tuple[int, ...]
    gradients: str
    workdir: str | None
    as_json: bool
    notes: tuple[str, ...]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Enters the command's flags; `request_of` reads them."""
    add = parser.add_argument
    add("--models", help="as softmax,mlp,knn (default: all but the alexnets, and the baselines)")
    add("--datasets", help="mnist,digits (default: both); digits comes with scikit-learn")
    add("--data_dir", help="folder of four IDX files instead (as of Fashion-MNIST)")
    add("--task", default="classification", help="classification, or regression (on diabetes)")
    add("--train_size", default=str(TRAIN_SIZE),
        help="most training examples of a data set, or full (default: %(default)s)")  # fmt: skip
    add("--epochs", help="of every network (default: each recipe's own)")
    add("--seed", default="0", help="of parameters, order, splits (default: %(default)s)")
    add("--curve", default=CURVE,
        help="hidden sizes of the capacity curve, or none (default: %(default)s)")  # fmt: skip
    add("--gradients", default="auto", help="auto (by jax.grad) or manual (derived by hand)")
    add("--workdir", help="where the results go (default: runs/compare-<date>-<time>)")
    add("--json", action="store_true", help="print JSON instead of tables")


def request_of(flags: argparse.Namespace) -> Request:
    """Reads the flags.

    Raises:
      UserError: A name that does not exist, a number that cannot be, or a model or data set of
        scikit-learn's where that is not installed.
    """
    task = _one_of("task", flags.task, tuple(DATASETS))
    networks, others = NETWORKS[task], BASELINES[task]
    models = _names("model", flags.models, (*networks, *others))
    datasets = _names("dataset", flags.datasets, DATASETS[task])
    notes = []
    if flags.data_dir is not None:
        if task == "regression":
            raise UserError("data_dir: a folder of images is for --task=classification")
        if datasets:
            raise UserError("datasets and data_dir exclude each other, got both")
    if not baselines.available():
        for name in (*models, *datasets):
            if name in FROM_SCIKIT_LEARN or (name in others and name not in networks):
                raise UserError(f"{name} needs scikit-learn: {baselines.INSTALL}")
        if task == "regression":
            raise UserError(f"task regression needs scikit-learn's data: {baselines.INSTALL}")
        notes.append(f"the networks alone: the baselines and digits need {baselines.INSTALL}")
        others = ()
    if not datasets and flags.data_dir is None:
        datasets = tuple(
            name for name in DATASETS[task] if not notes or name not in FROM_SCIKIT_LEARN
        )
    epochs = None if flags.epochs is None else _number("epochs", flags.epochs)
    seed = _number("seed", flags.seed)
    preset("softmax", seed=seed, **({} if epochs is None else {"epochs": epochs}))  # Their ranges.
    default = (name for name in networks if not name.startswith("alexnet"))
    return Request(
        task=task,
        models=models or (*default, *others),
        datasets=datasets,
        data_dir=flags.data_dir,
        train_size=_train_size(flags.train_size),
        epochs=epochs,
        seed=seed,
        curve=_curve(flags.curve),
        gradients=_one_of("gradients", flags.gradients, ("auto", "manual")),
        workdir=flags.workdir,
        as_json=flags.json,
        notes=tuple(notes),
    )


def _one_of(kind: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise unknown(kind, value, known)
    return value


def _names(kind: str, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated text, each once; none for None."""
    if text is None:
        return ()
    return tuple(dict.fromkeys(_one_of(kind, name, known) for name in text.split(",")))


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}: expected a whole number, got {text!r}") from None


def _train_size(text: str) -> int | None:
    if text == "full":
        return None
    size = _number("train_size", text)
    if size < 1:
        raise UserError(f"train_size: expected at least 1 example, or full, got {size}")
    return size


def _curve(text: str) -> tuple[int, ...]:
    """Hidden sizes, from small to large."""
    if text == "none":
        return ()
    sizes = sorted({_number("curve", part) for part in text.split(",")})
    for size in sizes:
        preset("mlp", hidden=(size,))  # Raises UserError out of range.
    return tuple(sizes)
