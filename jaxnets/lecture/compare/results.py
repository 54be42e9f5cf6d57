"""What a comparison has found: rows, the capacity curve's verdicts, who wins where."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from jaxnets.data.datasets import Dataset
from jaxnets.lecture.compare.fit import Fit
from jaxnets.lecture.compare.request import Request

# The score that ranks, larger is better, and those that are shown.
RANKS_BY = {"classification": "accuracy", "regression": "r2"}
TITLES = {"accuracy": "accuracy", "mse": "MSE", "r2": "R2", "wmape": "wMAPE"}
SCORES = {"classification": ("accuracy",), "regression": ("mse", "r2", "wmape")}

# A test score so far below the best of the curve counts as worse.
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Row:
    """A model on a data set.

    Attributes:
      dataset: Its name.
      model: Its name; of the capacity curve "hidden".
      hidden: The curve's hidden size, None elsewhere.
      fit: How it came out, None where it could not be trained.
      why: The reason then.
    """

    dataset: str
    model: str
    hidden: int | None = None
    fit: Fit | None = None
    why: str = ""


@dataclasses.dataclass
class Results:
    """All that is known so far.

    Attributes:
      request: What was asked for.
      samples: The data sets.
      rows: The models on them.
      curve: The networks of the capacity curve.
      finished: False while there is more to come, and after an interrupt.
    """

    request: Request
    samples: Sequence[Dataset]
    rows: list[Row] = dataclasses.field(default_factory=list)
    curve: list[Row] = dataclasses.field(default_factory=list)
    finished: bool = False

    def score(self, row: Row, part: str = "test") -> float:
        """The score that ranks: accuracy, or R²; minus infinity where there is none."""
        if row.fit is None:
            return -math.inf
        value = getattr(row.fit, part)[RANKS_BY[self.request.task]]
        return -math.inf if math.isnan(value) else value

    def verdicts(self, name: str) -> dict[int | None, str]:
        """Of each hidden size on a data set: "best", "underfits", "overfits", or "" near the best.

        The best has the largest test score (the smallest such size). One whose test score is more
        than TOLERANCE below it overfits if it fits the training examples as well as the best does
        or better, and underfits if it does not.
        """
        curve = [row for row in self.curve if row.dataset == name and row.fit is not None]
        if not curve:
            return {}
        best = max(curve, key=self.score)

        def verdict(row: Row) -> str:
            if row is best:
                return "best"
            if self.score(best) - self.score(row) <= TOLERANCE:
                return ""
            fits = self.score(row, "train") >= self.score(best, "train")
            return "overfits" if fits else "underfits"

        return {row.hidden: verdict(row) for row in curve}

    def closing(self) -> list[str]:
        """Which model wins where, a line a data set; then what that says of all of them."""
        lines, score = [], RANKS_BY[self.request.task]
        for data in self.samples:
            scores = self._scores(data.name)
            if not scores:
                continue
            best = max(scores.values())
            first = [model for model, value in scores.items() if value == best]
            verb = "wins" if len(first) == 1 else "win"
            line = f"{data.name}: {' and '.join(first)} {verb}, test {TITLES[score]} {best:.4f}"
            if self.request.task == "classification":
                error = self._error(data)
                near = [model for model, value in scores.items() if best - error <= value < best]
                line += (
                    f" (within one standard error, {error:.4f}: {', '.join(near) or 'no other'})"
                )
            lines.append(line)
        return lines + self._no_free_lunch()

    def _no_free_lunch(self) -> list[str]:
        """Two models of which each beats the other on a data set, by more than a standard error.

        Of all such pairs the one whose weakest score is the strongest, then the clearest: that good
        models disagree says more than that one was hardly trained.
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
        rows = [row for row in self.rows if row.dataset == name and row.fit is not None]
        return {row.model: round(self.score(row), 4) for row in rows}

    def _error(self, data: Dataset) -> float:
        """The standard error of the best accuracy on a data set: sqrt(p (1 - p) / N)."""
        best = max(self._scores(data.name).values(), default=0.0)
        return math.sqrt(best * (1 - best) / len(data.test))
