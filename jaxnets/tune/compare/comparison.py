"""The comparison as a command: trains, prints each row as soon as it is known, writes the files.

A cell is a model on a data set; its row is flat, in compare.json as in compare.csv. It names both,
and gives the hidden size in the capacity curve (None outside it). Then comes `why` it could not be
trained, or
  parameters: how many numbers it learned; None if it keeps the examples instead;
  epochs: None for a baseline;
  seconds: the time of training, a network's compilation included;
  train_accuracy, test_accuracy; in regression mse, r2 and wmape of both parts;
  verdict: in the capacity curve, as soon as that is complete.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnets import display
from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset
from jaxnets.drawing import charts
from jaxnets.drawing.svg import Figure
from jaxnets.errors import RunFailedError, UserError, on_interrupt
from jaxnets.files import check_only_files, locked
from jaxnets.language import N_, Text, _, said, speaking
from jaxnets.runs.run_folder import COMPARISON, make_folder
from jaxnets.system import check_memory
from jaxnets.tune import cells
from jaxnets.tune import results as files
from jaxnets.tune.backends import Backend, Failed
from jaxnets.tune.compare.models import (
    CURVE_NOISE,
    Numbers,
    config_of,
    fit,
    load,
    small_and_noisy,
)
from jaxnets.tune.compare.request import TASKS, Request
from jaxnets.tune.workers import Workers

LIBRARIES = 300 << 20  # Bytes, of scikit-learn: ulimit -v of 1,150 MB was too low.
NAME, SHORT_NAME, NUMBER = 20, 17, 10  # The columns' widths; regression has shorter names.
WIDE = 98  # Columns of a terminal for all of regression's; others do without the epochs.
FORMATS = {"parameters": ",", "epochs": ",", "seconds": ".1f", "test_mse": ",.0f"}

SCORES = ("train_", "test_")  # The prefixes of the columns that hold scores.
TITLES = {"mse": "MSE", "r2": "R2", "wmape": "wMAPE"}
# What `title_of` and `judge` say.
SHOWN = (N_("parameters"), N_("epochs"), N_("seconds"), N_("train accuracy"), N_("test accuracy"))
SHOWN += (N_("test MSE"), N_("train R2"), N_("test R2"), N_("test wMAPE"))
VERDICTS = N_("best"), N_("underfits"), N_("overfits")
TOLERANCE = 0.01  # A test score further below the best of the curve counts as worse.

Row = dict[str, Any]


@dataclasses.dataclass
class Results:
    """All that is known so far of the models on the data sets, and of the capacity curve."""

    request: Request
    samples: Sequence[Dataset]
    rows: list[Row] = dataclasses.field(default_factory=list)
    finished: bool = False  # It stays False after an interrupt.

    def trained(self, name: str, *, curve: bool = False) -> list[Row]:
        """The rows of a data set, or of its capacity curve, whose model was trained."""
        rows = [row for row in self.rows if row["dataset"] == name and "why" not in row]
        return [row for row in rows if (row["hidden"] is not None) == curve]

    def score(self, row: Row, part: str = "test") -> float:
        """A trained model's score that ranks: accuracy, or R²; minus infinity for NaN."""
        value = row[f"{part}_{TASKS[self.request.task].ranks_by}"]
        return -math.inf if math.isnan(value) else value

    def judge(self, name: str) -> list[str]:
        """Gives a data set's curve its verdicts: "best", "underfits", "overfits", or "".

        The best has the largest test score (the smallest such size). Another is near it, "", if its
        test score is at most TOLERANCE below. If it is worse, it overfits where it fits the
        training examples as well as the best does, and underfits where it does not.
        """
        curve = self.trained(name, curve=True)
        best = max(curve, key=self.score, default={})
        for row in curve:
            if row is best:
                row["verdict"] = "best"
            elif self.score(best) - self.score(row) <= TOLERANCE:
                row["verdict"] = ""
            elif self.score(row, "train") >= self.score(best, "train"):
                row["verdict"] = "overfits"
            else:
                row["verdict"] = "underfits"
        return [row["verdict"] for row in curve]

    def closing(self) -> list[str]:
        """The winner of each data set, a line each; then the conclusion from all of them."""
        lines, title = [], title_of(f"test_{TASKS[self.request.task].ranks_by}")
        for data in self.samples:
            scores = self._scores(data.name)
            if not scores:
                continue
            best = max(scores.values())
            first = [model for model, value in scores.items() if value == best]
            text = N_("{}: {} wins, {} {}") if len(first) == 1 else N_("{}: {} win, {} {}")
            names = _(" and ").join(first)
            line = _(text, data.name, names, title, f"{best:.4f}")
            if self.request.task == "classification":
                error = self._error(data)
                near = [model for model, value in scores.items() if best - error <= value < best]
                others = _(", ").join(near) or _("no other")
                line += _(" (within one standard error, {}: {})", f"{error:.4f}", others)
            lines.append(line)
        return lines + self._no_free_lunch()

    def _no_free_lunch(self) -> list[str]:
        """Two models, each of which beats the other somewhere by more than a standard error.

        If there are several pairs, the one with the strongest weakest score is named, then the
        clearest: that good models disagree says more than that one was hardly trained.
        """
        pairs = []
        for here, there in itertools.combinations(self.samples, 2):
            ours, theirs = self._scores(here.name), self._scores(there.name)
            for one, other in itertools.permutations([m for m in ours if m in theirs], 2):
                leads = ours[one] - ours[other], theirs[other] - theirs[one]
                if leads[0] > self._error(here) and leads[1] > self._error(there):
                    weakest = min(ours[one], ours[other], theirs[one], theirs[other])
                    pairs.append((weakest, min(leads), one, other, here.name, there.name))
        if pairs:
            text = _("no free lunch: {} beats {} on {} and loses to it on {}", *max(pairs)[2:])
            return [text]
        if len(self.samples) > 1 and all(self._scores(data.name) for data in self.samples):
            return [_("no two models change places by more than a standard error")]
        return []

    def _scores(self, name: str) -> dict[str, float]:
        """The models' test scores on a data set, in the digits that are shown."""
        return {row["model"]: round(self.score(row), 4) for row in self.trained(name)}

    def _error(self, data: Dataset) -> float:
        """The standard error of the best accuracy on a data set: sqrt(p (1 - p) / N)."""
        best = max(self._scores(data.name).values(), default=0.0)
        return math.sqrt(best * (1 - best) / len(data.test))

    def to_values(self) -> dict[str, Any]:
        """Everything, for machines."""
        with speaking("en"):
            closing = self.closing()
        asked = [field.name for field in dataclasses.fields(Request) if field.name != "resume"]
        return {
            "finished": self.finished,
            "request": {name: getattr(self.request, name) for name in asked},
            "datasets": [
                dict(name=x.name, train=len(x.train), test=len(x.test), sha256=x.checksum)
                for x in self.samples
            ],
            "rows": self.rows,
            "closing": closing,
        }

    def write(self, folder: Path) -> None:
        """Writes compare.json and, with a line for each row, compare.csv."""
        columns = ["dataset", "model", "hidden", "parameters", "epochs", "seconds"]
        scores = TASKS[self.request.task].scores
        columns += [f"{part}_{score}" for part in ("train", "test") for score in scores]
        columns += ["verdict", "why"]
        files.write((folder / COMPARISON).with_suffix(""), self.to_values(), columns, self.rows)


class Piece(NamedTuple):
    """A model that is to be trained on a data set, given by its place; a baseline has no config."""

    place: int
    model: str
    hidden: int | None
    config: Config | None = None


class Fitting:
    """The work of a comparison: trains one of its models on one of its data sets."""

    bar = False  # In the process of the comparison a network's training has one.

    def __init__(self, samples: Sequence[Dataset], seed: int):
        self._samples, self._seed = samples, seed

    def __call__(self, piece: Piece) -> Numbers:
        data = self._samples[piece.place]
        if piece.hidden is not None:
            data = small_and_noisy(data, self._seed)
        return fit(piece.model, piece.config, data, self._seed, bar=self.bar)


class Rows:
    """The rows of a comparison: read where their cells are done, else trained by a backend."""

    def __init__(self, results: Results, folder: Path, workers: Workers):
        self._folder, self._request, self._samples = folder, results.request, results.samples
        self._known: dict[Piece, Row] = {}  # The pieces without their configs.
        self._waiting: dict[Piece, cells.Cell] = {}
        done, places = cells.read(folder), range(len(self._samples))
        pieces = [Piece(place, model, None) for place in places for model in self._request.models]
        pieces += [Piece(place, "hidden", x) for place in places for x in self._request.curve]
        for piece in workers.share_of(pieces):
            data, request = self._samples[piece.place], self._request
            try:
                config = config_of(piece.model, piece.hidden, request, data)
            except (UserError, RunFailedError) as error:
                self._add(piece, {"why": str(error)})
                continue
            size, named = len(data.train), (data.name, piece.model, piece.hidden)
            of = cells.cell(config, data.checksum, row=named, train_size=size, seed=request.seed)
            if (found := done.get(cells.digest(of))) is None:
                self._waiting[piece._replace(config=config)] = of
            else:  # JSON has no NaN.
                lost = [n for n, x in found[1].items() if x is None and n.startswith(SCORES)]
                self._add(piece, found[1] | dict.fromkeys(lost, math.nan))

    def start(self, backend: Backend) -> None:
        """Puts all that is not done in a queue."""
        self._backend = backend
        for piece in self._waiting:
            backend.submit(piece)

    def finish(self) -> int:
        """Trains all; returns the number of rows."""
        while self._waiting:
            self._collect()
        return len(self._known)

    def of(self, *place_model_hidden: Any) -> Row:
        """A row, trained if it is not; one without a result says why."""
        while (key := Piece(*place_model_hidden)) not in self._known:
            self._collect()
        return self._known[key]

    def _collect(self) -> None:
        piece, outcome = self._backend.collect()
        of = self._waiting.pop(piece)
        if isinstance(outcome, Failed):
            outcome = {"why": str(outcome.message)}
        else:
            cells.write(self._folder, [of], [outcome])
        self._add(piece._replace(config=None), outcome)

    def _add(self, piece: Piece, more: Row) -> None:
        named = {"dataset": self._samples[piece.place].name}
        self._known[piece] = named | {"model": piece.model, "hidden": piece.hidden} | more


def run(request: Request, workers: Workers) -> None:
    """Compares, prints and draws."""
    check_memory(LIBRARIES)
    samples = load(request)
    if workers.are_several and request.workdir is None:
        raise UserError("cell: expected --workdir=FOLDER too, the same in all processes")
    folder, results = make_folder(request.workdir, "compare"), Results(request, samples)
    work = Fitting(samples, request.seed)
    hint = Text("kept: {} (--resume --workdir={} continues it)", folder, folder)
    with (
        locked(folder, shared=workers.are_several),
        on_interrupt(hint),
        workers.started(work) as backend,
    ):
        found = sorted(os.listdir(folder))
        if found and not (request.resume or workers.are_several):
            raise UserError("workdir: expected an empty folder, {} holds {}", folder, found[0])
        check_only_files(folder)
        rows, work.bar = Rows(results, folder, workers), True
        rows.start(backend)
        if workers.are_several:
            where = display.short_path(str(folder))
            print(_("{} rows are done in {}", rows.finish(), where))
            return
        for text in _compare(results, folder, rows):
            if not request.json:
                display.show(text)
        results.finished = True
        results.write(folder)
        with speaking("en"):
            plot(results).save(folder / "compare.svg")
    where = _("results: {}", display.short_path(str(folder)))
    print(files.to_json(results.to_values()).rstrip() if request.json else where)


def _compare(results: Results, folder: Path, rows: Rows) -> Iterator[str]:
    """Fills the results and writes them after each row, yielding what is to be printed."""
    request, task = results.request, TASKS[results.request.task]
    yield from _notes(request)
    epochs = ["epochs"] if display.columns() >= WIDE else []
    shown = ["parameters", *epochs, *task.shown, "seconds"]
    for place, data in enumerate(results.samples):
        text = N_("{}: {} training and {} test images")
        if data.is_regression:
            text = N_("{}: {} training and {} test rows")
        title = _(text, data.name, f"{len(data.train):,}", f"{len(data.test):,}")
        if request.train_size == len(data.train):
            title += _(" (--train_size=full takes all)")
        head = _("model"), *map(title_of, shown)
        yield f"\n{title}\n{_aligned(head, shown)}"
        for model in request.models:
            results.rows.append(rows.of(place, model, None))
            results.write(folder)
            yield _line(results.rows[-1], shown)
    shown = ["parameters", f"train_{task.ranks_by}", f"test_{task.ranks_by}"]
    for place, data in enumerate(results.samples if request.curve else ()):
        small = small_and_noisy(data, request.seed)
        for hidden in request.curve:
            results.rows.append(rows.of(place, "hidden", hidden))
            results.write(folder)
        verdicts = results.judge(data.name)
        size = len(small.train)
        title = _("capacity on {}: one hidden layer, {} training rows", data.name, size)
        if not data.is_regression:
            title = _(
                "capacity on {}: one hidden layer, {} training images, {} given a random label",
                *(data.name, size, f"{CURVE_NOISE:.0%}"),
            )
        head = _("hidden"), *map(title_of, shown)
        yield f"\n{title}\n{_aligned(head, shown)}"
        yield from (_line(row, shown) for row in results.rows[-len(request.curve) :])
        yield _(
            "(more than {} below the best: overfits if it fits the training part as well, else "
            "underfits)",
            TOLERANCE,
        )
        if "overfits" in verdicts[: verdicts.index("best") if verdicts else 0]:
            yield _("(overfitting does not grow with size here: a larger network generalizes best)")
    yield "\n".join(["", *results.closing()])


def _notes(request: Request) -> list[str]:
    """The notes that a reader needs before the tables."""
    own = _("every network by its own recipe")
    if request.epochs is not None:
        own += _(", but {} epochs", request.epochs)
    if request.task == "classification":
        own += _(" (made for 60,000 images: on fewer, an epoch has fewer steps)")
    time = _("seconds: training, a network's compilation included")
    return [*map(said, request.notes), own, time]


def _line(row: Row, shown: Sequence[str]) -> str:
    """A row of a table; its verdict, if it has one, stands behind it without a title."""
    name = row["model"] if row["hidden"] is None else str(row["hidden"])
    if "why" in row:
        return f"{name:{NAME}}  {said(row['why'])}"
    cells = [
        "-" if row[column] is None else format(row[column], FORMATS.get(column, ".4f"))
        for column in shown
    ]
    verdict = row.get("verdict", "")
    return _aligned([name, *cells, _(verdict)], shown)


def _aligned(cells: Sequence[str], shown: Sequence[str]) -> str:
    """A line of a table, its columns closer on a narrow terminal."""
    is_wide = display.columns() >= WIDE
    name = NAME if is_wide or len(shown) < 6 else SHORT_NAME
    least = NUMBER if is_wide else 7
    widths = [name, *(max(least, display.width_of(title_of(column))) for column in shown), 0]
    return display.line(cells, widths, "<" + ">" * len(shown) + "<")


def plot(results: Results) -> Figure:
    """Draws each data set's scores and its capacity curve.

    The axes span the scores, not 0 to 1: so 0.96 and 0.99 lie apart.
    """
    parts, drawn = ("test", "train"), []
    title = title_of(TASKS[results.request.task].ranks_by)
    for data in results.samples:
        rows, curve = (_finite_rows(results, data.name, curve=curve) for curve in (False, True))
        marks = [
            charts.Row(
                row["model"],
                [results.score(row, part) for part in parts],
                note=f"{results.score(row):.4f}",
            )
            for row in rows
        ]
        alt = f"{title} on {data.name}: " + ", ".join(f"{mark.name} {mark.note}" for mark in marks)
        drawn.append(
            [charts.dots("scores", data.name, alt, marks, parts, x_label=title, width=420)]
        )
        if curve:
            sizes = [row["hidden"] for row in curve]
            notes = {
                row["hidden"]: f"{results.score(row):.4f}\n{row.get('verdict', '')}"
                for row in curve
            }
            series = [
                charts.Series(part, sizes, [results.score(row, part) for row in curve], number)
                for number, part in enumerate(parts)
            ]
            alt = f"{title} by hidden units: "
            alt += ", ".join(f"{size} {' '.join(note.split())}" for size, note in notes.items())
            drawn[-1].append(
                charts.curves(
                    "capacity",
                    f"capacity on {data.name}",
                    alt,
                    series,
                    x_label="hidden units",
                    log_x=True,
                    notes=notes,
                )
            )
    return Figure.grid("compare", title, drawn)


def _finite_rows(results: Results, name: str, *, curve: bool = False) -> list[Row]:
    """The rows of a data set, or of its capacity curve, whose scores are numbers."""
    rows = results.trained(name, curve=curve)
    return [r for r in rows if math.isfinite(results.score(r) + results.score(r, "train"))]


def title_of(column: str) -> str:
    """A column's title, one of SHOWN: "test_r2" is "test R2"."""
    title = " ".join(TITLES.get(word, word) for word in column.split("_"))
    return _(title)
