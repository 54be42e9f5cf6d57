"""What a comparison has found: rows, the capacity curve's verdicts, who wins where."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets.data.datasets import Dataset
from jaxnets.lecture import results
from jaxnets.lecture.compare.request import TASKS, Request

TITLES = {"accuracy": "accuracy", "mse": "MSE", "r2": "R2", "wmape": "wMAPE"}

# A test score this far below the best of the curve counts as worse.
TOLERANCE = 0.01


Scores = dict[str, float]  # By name: the accuracy, or mse, r2 and wmape.


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained model's size and scores, and what they took."""

    parameters: int | None  # None where it keeps the examples instead.
    epochs: int | None  # None for a baseline.
    train: Scores
    test: Scores
    seconds: float  # The time of training, a network's compilation included.


@dataclasses.dataclass(frozen=True)
class Row:
    """A model on a data set, by their names."""

    dataset: str
    model: str  # "hidden" in the capacity curve.
    hidden: int | None = None  # The hidden size in the capacity curve.
    fit: Fit | None = None  # None where the model could not be trained.
    why: str = ""  # The reason then.


@dataclasses.dataclass
class Results:
    """All that is known so far: the models on the data sets, and the capacity curve's networks."""

    request: Request
    samples: Sequence[Dataset]
    rows: list[Row] = dataclasses.field(default_factory=list)
    curve: list[Row] = dataclasses.field(default_factory=list)
    finished: bool = False  # It stays False after an interrupt.

    @property
    def ranks_by(self) -> str:
        """The title of the score that ranks."""
        return TITLES[TASKS[self.request.task].ranks_by]

    def score(self, row: Row, part: str = "test") -> float:
        """The score that ranks: accuracy, or R²; minus infinity where there is none."""
        if row.fit is None:
            return -math.inf
        value = getattr(row.fit, part)[TASKS[self.request.task].ranks_by]
        return -math.inf if math.isnan(value) else value

    def verdicts(self, name: str) -> dict[int | None, str]:
        """Each hidden size's verdict on a data set: "best", "underfits", "overfits", or "".

        The best has the largest test score (the smallest such size). Another is near it, "", if its
        test score is at most TOLERANCE below. If it is worse, it overfits where it fits the
        training examples as well as the best does, and underfits where it does not.
        """
        curve = fitted(self.curve, name)
        best = max(curve, key=self.score, default=None)

        def verdict(row: Row) -> str:
            if best is None or row is best:
                return "best"
            if self.score(best) - self.score(row) <= TOLERANCE:
                return ""
            fits = self.score(row, "train") >= self.score(best, "train")
            return "overfits" if fits else "underfits"

        return {row.hidden: verdict(row) for row in curve}

    def closing(self) -> list[str]:
        """Which model wins, a line for each data set; then what all of them show together."""
        lines = []
        for data in self.samples:
            scores = self._scores(data.name)
            if not scores:
                continue
            best = max(scores.values())
            first = [model for model, value in scores.items() if value == best]
            verb = "wins" if len(first) == 1 else "win"
            line = f"{data.name}: {' and '.join(first)} {verb}, test {self.ranks_by} {best:.4f}"
            if self.request.task == "classification":
                error = self._error(data)
                near = [model for model, value in scores.items() if best - error <= value < best]
                others = ", ".join(near) or "no other"
                line += f" (within one standard error, {error:.4f}: {others})"
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
            *_, one, other, here, there = max(pairs)
            return [f"no free lunch: {one} beats {other} on {here} and loses to it on {there}"]
        if len(self.samples) > 1 and all(self._scores(data.name) for data in self.samples):
            return ["no two models change places by more than a standard error"]
        return []

    def _scores(self, name: str) -> dict[str, float]:
        """The models' test scores on a data set, in the digits that are shown."""
        return {row.model: round(self.score(row), 4) for row in fitted(self.rows, name)}

    def _error(self, data: Dataset) -> float:
        """The standard error of the best accuracy on a data set: sqrt(p (1 - p) / N)."""
        best = max(self._scores(data.name).values(), default=0.0)
        return math.sqrt(best * (1 - best) / len(data.test))

    def to_values(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            "finished": self.finished,
            "request": dataclasses.asdict(self.request),
            "datasets": [
                dict(name=x.name, train=len(x.train), test=len(x.test), sha256=x.checksum)
                for x in self.samples
            ],
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "curve": [
                {**dataclasses.asdict(row), "verdict": self.verdicts(row.dataset).get(row.hidden)}
                for row in self.curve
            ],
            "closing": self.closing(),
        }

    def write(self, folder: Path) -> None:
        """Writes compare.json and, with a line for each row, compare.csv."""
        scores = dict.fromkeys(score for _, score in TASKS[self.request.task].columns)
        columns = ["dataset", "model", "hidden", "parameters", "epochs", "seconds"]
        columns += [f"{part}_{score}" for part in ("train", "test") for score in scores]
        lines = []
        for row in (*self.rows, *self.curve):
            line = dataclasses.asdict(row)
            if fit := line.pop("fit"):
                for part in ("train", "test"):
                    line |= {f"{part}_{score}": x for score, x in fit.pop(part).items()}
                line |= {**fit, "seconds": round(fit["seconds"], 3)}
            lines.append(line)
        results.write(folder / "compare", self.to_values(), [*columns, "why"], lines)


def fitted(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of a data set whose model was trained."""
    return [row for row in rows if row.dataset == name and row.fit is not None]


def scores_of(metrics: Any, data: Dataset) -> Scores:
    """The scores that are kept of a model's metrics."""
    task = TASKS["regression" if data.is_regression else "classification"]
    return {score: getattr(metrics, score) for _, score in task.columns}
