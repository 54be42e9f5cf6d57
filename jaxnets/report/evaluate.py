"""`jaxnets evaluate`: tests a run's network on test images, a folder, or another data set."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.base.display import columns, printable, short_path, shortened, table, width_of
from jaxnets.base.errors import DONE, WRONG_REQUEST, UserError
from jaxnets.base.language import _
from jaxnets.base.proportions import Interval, wilson
from jaxnets.config.command import CommandResult
from jaxnets.data.datasets import Dataset, Split
from jaxnets.data.pictures.decode import BadPictureError, read_picture
from jaxnets.data.pictures.folder import labelled_files
from jaxnets.data.pictures.store import in_threads
from jaxnets.data.published import SETS
from jaxnets.drawing.charts import MAX_NAMED
from jaxnets.drawing.svg import Figure
from jaxnets.predict.predict import to_predictor
from jaxnets.predict.run_data import data_named, data_of
from jaxnets.predict.trained import TrainedNetwork, load_network
from jaxnets.report.evaluation import Mistake, Predictions, class_scores, mistakes, predictions_of
from jaxnets.report.figures import MISTAKE_COLUMNS, mistakes_figure
from jaxnets.runs.progress import Doing
from jaxnets.training.crops import VIEWS, count_views

LEVEL = 0.95  # Of the interval.
SCORES = ("precision", "recall", "f1")
MOST_CONFUSED = 10  # Pairs of classes that are named, at most.
SHEET, SHEET_COLUMNS = 400, 8  # The most pictures of a sheet, and how many are side by side.


@dataclasses.dataclass(frozen=True)
class Evaluation(CommandResult):
    """A network's answers for labelled pictures."""

    run: str
    trained: TrainedNetwork
    data: Dataset  # The pictures are its test part.
    part: str  # "test"; "" if the whole folder counts.
    found: Predictions
    files: list[str] | None = None  # For a folder: each picture's file.
    unreadable: Sequence[tuple[str, str]] = ()  # Files of a folder, each with the reason.
    views: Sequence[str] = ()  # The answer is the mean over these views of each picture.
    sheet: str | None = None  # The file with the wrong pictures, if one was written.

    @property
    def status(self) -> int:
        """2 if files could not be read, otherwise 0."""
        return WRONG_REQUEST if self.unreadable else DONE

    @property
    def right(self) -> int:
        return int(self.found.right.sum())

    @property
    def count(self) -> int:
        return len(self.found.labels)

    @property
    def interval(self) -> Interval:
        """Wilson's interval of the accuracy."""
        return wilson(self.right, self.count, 1 - LEVEL)

    @property
    def wrong(self) -> list[Mistake]:
        """All mistakes; those that the network was surest of come first."""
        return mistakes(self.found, self.data, self.count - self.right)

    def values(self) -> dict[str, Any]:
        """The result for programs; a score that would divide by zero is None."""
        names, config = self.data.class_names, self.trained.config
        low, high = self.interval
        scores = class_scores(self.found.confusion)
        values: dict[str, Any] = {
            "run": self.run,
            "model": config.model,
            "step": self.trained.step,
            "finished": self.trained.finished,
            "data": self.data.name,
            "split": self.part or None,
            "pictures": self.count,
            "views": list(self.views),
            "right": self.right,
            "accuracy": self.right / self.count,
            "interval": {"level": LEVEL, "method": "wilson", "low": low, "high": high},
            "loss": _finite(self.found.loss(config.loss)),
            "loss_name": config.loss,
            "classes": list(names),
            "confusion": self.found.confusion.tolist(),
            "per_class": [
                {
                    "class": name,
                    **dict(zip(SCORES, map(_finite, three), strict=True)),
                    "support": int(n),
                }
                for name, *three, n in zip(names, *scores, strict=True)
            ],
            "mistakes": [
                {
                    "image": one.row if self.files is None else self.files[one.row],
                    "label": names[one.label],
                    "prediction": names[one.predicted],
                    "probability": one.confidence,
                }
                for one in self.wrong
            ],
            "unreadable": [{"image": name, "reason": why} for name, why in self.unreadable],
        }
        if self.sheet is not None:
            values["output"] = self.sheet
        return values

    def text(self) -> str:
        """The tables."""
        config, (low, high) = self.trained.config, self.interval
        where = printable(self.data.name)
        where = _("the test images of {}", where) if self.part else where
        right = f"{self.right:,}", f"{self.count:,}"
        accuracy = f"{self.right / self.count:.4f}"
        interval = f"{low:.4f}", f"{high:.4f}"
        loss = self.found.loss(config.loss)
        lines = [
            _("{} on {}: {} of {} are right", printable(self.run), where, *right),
            "",
            _(
                "accuracy {}  {} % interval {} to {}",
                accuracy,
                f"{100 * LEVEL:g}",
                *interval,
            ),
        ]
        lines += [] if loss is None else [_("loss     {}  ({})", f"{loss:.4f}", config.loss)]
        if self.views:
            number = count_views(self.views)
            lines.append(_("Each answer is the mean over {} views of the picture.", number))
        if config.ten_crop:
            text = _("The run was tested on ten crops of each image; here it sees the middle one.")
            lines.append(text)
        names = [shortened(printable(name), 24) for name in self.data.class_names]
        rows = [[_("class"), _("precision"), _("recall"), _("F1"), _("pictures")]]
        scores = class_scores(self.found.confusion)
        for name, *three, support in zip(names, *scores, strict=True):
            rows.append(
                [name, *(f"{x:.4f}" if np.isfinite(x) else "-" for x in three), f"{support:,}"]
            )
        lines += ["", *table(rows, "<>>>>")]
        matrix = _matrix(self)
        if matrix and max(map(width_of, matrix)) <= columns():
            lines += [
                "",
                _("confusion matrix: a row for each label, a column for each prediction"),
                *matrix,
            ]
        if confused := _confused(self):
            lines += ["", _("most frequent mistakes"), *confused]
        if self.files is not None and self.wrong:
            lines += ["", _("most confident mistakes")]
            shown = self.wrong[:MOST_CONFUSED]
            wrong = [
                [printable(self.files[one.row]), names[one.predicted], f"{one.confidence:.4f}"]
                for one in shown
            ]
            lines += table(wrong, "<<>")
        if self.sheet is not None:
            lines += ["", _("wrong pictures: {}", short_path(self.sheet))]
        return "\n".join(lines)


def evaluate(
    run: str, where: str | None = None, prepare_as: str = "auto", views: Sequence[str] = ()
) -> Evaluation:
    """Evaluates a run's network.

    Args:
      run: The folder of a finished or an interrupted run.
      where: None for the test images of the run's own data set; or a folder with a folder of
        pictures for each class, or with a test folder of these; or the name of a data set, as in
        `load_dataset`. If it is the folder that the run was trained on, only its test part counts.
      prepare_as: How the pictures of a folder are prepared, as in `load_predictor`.
      views: Views of each picture, from "mirror" and "shift"; the answer is the mean over them.

    Raises:
      UserError: There is no such run, data set or view, or the network does not know a class.
    """
    for name in views:
        if name not in VIEWS or list(views).count(name) > 1:
            raise UserError(
                "views: expected each of {} at most once, got {}", ", ".join(VIEWS), name
            )
    with Doing("evaluate", 3) as doing:
        return _evaluate(run, where, prepare_as, views, doing)


def _evaluate(
    run: str, where: str | None, prepare_as: str, views: Sequence[str], doing: Doing
) -> Evaluation:
    doing(f"reading {run}")
    trained = load_network(run)
    if trained.config.loss == "squared_error":
        raise UserError("{}: expected a run that tells classes apart, got one of a regression", run)
    doing(_("reading the pictures"))
    files, unreadable, part = None, [], "test"
    if where is None or _is_same_folder(where, trained.config.dataset):
        data = data_of(trained)
    elif where not in ("mnist", *SETS) and os.path.isdir(os.path.expanduser(where)):
        data, files, unreadable, part = _of_folder(run, trained, where, prepare_as)
    else:
        data = data_named(run, trained, where)
    if not len(data.test):
        raise UserError("{}: expected test images, found none", data.name)
    doing(_("evaluating {} pictures", f"{len(data.test):,}"))
    found = predictions_of(trained, data, views=views)
    return Evaluation(run, trained, data, part, found, files, unreadable, views)


def _is_same_folder(one: str, other: str) -> bool:
    paths = [os.path.expanduser(path) for path in (one, other)]
    return all(map(os.path.isdir, paths)) and os.path.samefile(*paths)


def _of_folder(
    run: str, trained: TrainedNetwork, where: str, prepare_as: str
) -> tuple[Dataset, list[str], list[tuple[str, str]], str]:
    """The pictures of a folder as a data set's test part, prepared as in `jaxnets predict`."""
    names = trained.class_names
    found, part = labelled_files(where)
    if unknown := [name for name in found if name not in names]:
        raise UserError(
            "{}: expected folders named as the classes of {} ({}), found {}",
            where,
            run,
            f"{', '.join(names):.60}",
            f"{', '.join(unknown):.60}",
        )
    rows = [(path, names.index(name)) for name, paths in found.items() for path in paths]
    if not rows:
        raise UserError("{}: no pictures in its class folders", where)
    predictor = to_predictor(trained, prepare_as)

    def prepared(row: int) -> np.ndarray | BadPictureError:
        try:
            return predictor.prepare(read_picture(rows[row][0], predictor.decode_size))
        except BadPictureError as error:
            return error

    images, labels, files, unreadable = [], [], [], []
    for row, image in enumerate(in_threads(prepared, len(rows), "reading pictures")):
        path, label = rows[row]
        if isinstance(image, BadPictureError):
            unreadable.append((str(path), str(image)))
        else:
            images.append(image)
            labels.append(label)
            files.append(str(path))
    if not images:
        raise UserError(
            "{}: none of its {} pictures can be read: {}", where, len(rows), unreadable[0][1]
        )
    test = Split(np.stack(images), np.array(labels, np.int32))
    name = printable(Path(where).expanduser().resolve().name)
    data = Dataset(name, len(names), test[:0], test[:0], test, "", names)
    return data, files, unreadable, part


def sheet(found: Evaluation) -> Figure | None:
    """The wrong pictures side by side, the most confident ones first; None if all are right."""
    worst = found.wrong[:SHEET]
    if not worst:
        return None
    count = found.count - found.right
    number, every = f"{count:,}", f"{found.count:,}"
    title = _("{} wrong of {} pictures", number, every)
    if len(worst) < count:
        title = _("{} of {} wrong of {} pictures", f"{len(worst):,}", number, every)
    wide = min(max(len(worst), MISTAKE_COLUMNS), SHEET_COLUMNS)
    return mistakes_figure(worst, found.data.test, found.data.class_names, wide, title)


def _finite(value: float | None) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return None if value is None or not np.isfinite(value) else float(value)


def _matrix(found: Evaluation) -> list[str]:
    """The lines of the confusion matrix; empty if there are too many classes to read."""
    names = [printable(name) for name in found.data.class_names]
    if len(names) > MAX_NAMED:
        return []
    rows = [["", *(shortened(name, 7) for name in names)]]
    for name, counts in zip(names, found.found.confusion, strict=True):
        rows.append([shortened(name, 16), *(f"{n}" if n else "." for n in counts)])
    return table(rows, "<" + ">" * len(names))


def _confused(found: Evaluation) -> list[str]:
    """The pairs of classes that are most often confused."""
    names, counts = [printable(name) for name in found.data.class_names], found.found.confusion
    wrong = found.found.confused
    rows = []
    for at in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]:
        label, predicted = divmod(int(at), len(names))
        if count := int(wrong[label, predicted]):
            of = _("{} of {}", f"{count:,}", f"{int(counts[label].sum()):,}")
            one, other = (shortened(names[at], 24) for at in (label, predicted))
            rows.append([one, _("taken for"), other, of])
    return table(rows, "<<<>")
