"""The results of a comparison: rows, the capacity curve's verdicts, each data set's winner, files.

A row is flat, in compare.json as in compare.csv. It names a model and a data set, and gives the
hidden size in the capacity curve (None outside it). Then comes `why` it could not be trained, or
  parameters: how many numbers it learnt; None if it keeps the examples instead;
  epochs: None for a baseline;
  seconds: the time of training, a network's compilation included;
  train_accuracy, test_accuracy; in regression mse, r2 and wmape of both parts;
  verdict: in the capacity curve, as soon as that is complete.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets.data.datasets import Dataset
from jaxnets.tune import results
from jaxnets.tune.compare.request import TASKS, Request

Row = dict[str, Any]

TITLES = {"mse": "MSE", "r2": "R2", "wmape": "wMAPE"}
TOLERANCE = 0.01  # A test score further below the best of the curve counts as worse.


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
            verb = "wins" if len(first) == 1 else "win"
            line = f"{data.name}: {' and '.join(first)} {verb}, {title} {best:.4f}"
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
        return {row["model"]: round(self.score(row), 4) for row in self.trained(name)}

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
            "rows": self.rows,
            "closing": self.closing(),
        }

    def write(self, folder: Path) -> None:
        """Writes compare.json and, with a line for each row, compare.csv."""
        columns = ["dataset", "model", "hidden", "parameters", "epochs", "seconds"]
        scores = TASKS[self.request.task].scores
        columns += [f"{part}_{score}" for part in ("train", "test") for score in scores]
        columns += ["verdict", "why"]
        results.write(folder / "compare", self.to_values(), columns, self.rows)


def title_of(column: str) -> str:
    """A column's title: "test_r2" is "test R2"."""
    return " ".join(TITLES.get(word, word) for word in column.split("_"))
