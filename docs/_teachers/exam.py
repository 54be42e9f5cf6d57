"""An exam for the course: ten questions, 60 minutes, 30 points; the numbers follow from a seed.

    python docs/_teachers/exam.py --seed=2026 [--answers] [--language=zh]

Its answers are computed, so none are published: who does not know the seed knows no numbers.
"""

import argparse
import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
HEAD = {
    "en": ("Exam", "60 minutes, {} points. A pocket calculator is allowed.", "{} points"),
    "zh": ("考试", "60 分钟，共 {} 分。可以用计算器。", "{} 分"),
}
Values = dict[str, Any]


class Question(NamedTuple):
    """A question with its numbers."""

    name: str
    points: int
    given: Values
    answers: Values

    def text(self, language: str) -> str:
        """The question in a language."""
        given = {name: shown(x) if isinstance(x, list) else x for name, x in self.given.items()}
        return TEXTS[self.name][language].format(**given)


def neuron(random: Random) -> tuple[Values, Values]:
    """One neuron, forward and backward; it is active."""
    x, w = _integers(random, 1, 4, 2), _integers(random, -2, 3, 2)
    b, y = random.choice([-0.5, 0.5, 1.5]), random.randint(0, 3)
    z = x[0] * w[0] + x[1] * w[1] + b
    if z <= 0:
        return neuron(random)
    dz = z - y
    answers = {"z": z, "h": z, "L": dz**2 / 2, "dz": dz, "dw": [dz * one for one in x], "db": dz}
    return {"x": x, "w": w, "b": b, "y": y}, answers


def dense(random: Random) -> tuple[Values, Values]:
    """A dense layer's gradients."""
    x, w, dz = (np.array(_integers(random, -2, 3, 4)).reshape(2, 2) for _ in range(3))
    answers = {"dW": x.T @ dz, "db": dz.sum(axis=0), "dX": dz @ w.T}
    given = {"X": x, "W": w, "dZ": dz}
    return _lists(given), _lists(answers)


def cross_entropy(random: Random) -> tuple[Values, Values]:
    """Softmax and cross-entropy."""
    p = random.choice([[0.1, 0.2, 0.7], [0.05, 0.35, 0.6], [0.25, 0.3, 0.45], [0.15, 0.8, 0.05]])
    random.shuffle(p)
    right = random.randint(1, 3)
    gradient = [one - (number == right) for number, one in enumerate(p, start=1)]
    return {"p": p, "right": right}, {"L": -math.log(p[right - 1]), "gradient": gradient}


def sum_or_mean(random: Random) -> tuple[Values, Values]:
    """The learning rate of a sum and of a mean."""
    count, rate = random.choice([2, 5, 20, 40]) * 1000, random.choice([1, 2, 5]) / 100_000
    return {"count": count, "rate": rate}, {"rate": count * rate}


def momentum(random: Random) -> tuple[Values, Values]:
    """Two steps with momentum."""
    beta, g = random.choice([0.5, 0.8, 0.9]), _integers(random, 1, 4, 2)
    v = [float(g[0]), beta * g[0] + g[1]]
    w = [1 - 0.1 * v[0], 1 - 0.1 * v[0] - 0.1 * v[1]]
    return {"beta": beta, "g": g}, {"v": v, "w": w}


def first_weights(random: Random) -> tuple[Values, Values]:
    """He's deviation, and what half of it does."""
    n, layers = random.choice([8, 32, 50, 200, 800]), random.choice([4, 6, 8, 10])
    answers = {"deviation": math.sqrt(2 / n), "factor": 0.5**layers}
    return {"n": n, "layers": layers}, answers


def convolution(random: Random) -> tuple[Values, Values]:
    """A convolution in one dimension, and both of its gradients."""
    x, w, dz = (_integers(random, -2, 4, count) for count in (5, 3, 3))
    z, dw, dx = np.correlate(x, w, "valid"), np.correlate(x, dz, "valid"), np.convolve(dz, w)
    return {"x": x, "w": w, "dz": dz}, _lists({"z": z, "dw": dw, "dx": dx})


def output_size(random: Random) -> tuple[Values, Values]:
    """The size of a convolution's output, and its parameters."""
    given = {
        "pixels": random.choice([28, 32, 64]),
        "window": random.choice([3, 5]),
        "stride": random.choice([1, 2]),
        "padding": random.choice([0, 1, 2]),
        "filters": 8 * random.randint(1, 8),
    }
    pixels, window, stride, padding, filters = given.values()
    side = (pixels + 2 * padding - window) // stride + 1
    answers = {"size": [side, side, filters], "parameters": filters * (window * window * 3 + 1)}
    return given, answers


def confusion(random: Random) -> tuple[Values, Values]:
    """Accuracy, precision, recall and F1 of a rare class."""
    sick, found, wrong = random.choice([10, 20]), random.randint(3, 9), random.randint(1, 12)
    precision, recall = found / (found + wrong), found / sick
    answers = {
        "accuracy": (100 - wrong - (sick - found)) / 100,
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / (precision + recall),
        "all healthy": (100 - sick) / 100,
    }
    return {"sick": sick, "called": found + wrong, "found": found}, answers


def claim(random: Random) -> tuple[Values, Values]:
    """A lead on few images."""
    images, a = random.choice([400, 900, 1600]), random.choice([0.8, 0.9])
    b = a - random.choice([0.005, 0.01])
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / images)
    answers = {"error": error, "lead / error": (a - b) / error, "better": False, "equal": False}
    return {"images": images, "a": a, "b": b}, answers


QUESTIONS: tuple[Callable[[Random], tuple[Values, Values]], ...] = (
    neuron, dense, cross_entropy, sum_or_mean, momentum, first_weights, convolution, output_size,
    confusion, claim,
)  # fmt: skip


def questions(seed: int) -> list[Question]:
    """The questions of a seed; the numbers of one do not depend on the others."""
    asked = []
    for make in QUESTIONS:
        name = make.__name__
        given, answers = make(Random(f"{seed} {name}"))
        asked.append(Question(name, TEXTS[name]["points"], given, answers))
    return asked


def lines(seed: int, language: str, answers: bool) -> Iterator[str]:
    """The lines of the exam, in Markdown, with or without its answers."""
    asked = questions(seed)
    title, how, points = HEAD[language]
    yield from (f"# {title}", "", how.format(sum(question.points for question in asked)))
    for number, question in enumerate(asked, start=1):
        yield ""
        yield f"{number}. ({points.format(question.points)}) {question.text(language)}"
        if answers:
            found = (f"{name} = {shown(value)}" for name, value in question.answers.items())
            yield from ("", f"   **{'; '.join(found)}**")


def shown(value: Any) -> str:
    """A value with at most four digits; a row in round brackets, a matrix in square ones."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        row = ", ".join(map(shown, value))
        return f"[{row}]" if isinstance(value[0], list) else f"({row})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _integers(random: Random, low: int, high: int, count: int) -> list[int]:
    return [random.randint(low, high) for _ in range(count)]


def _lists(arrays: dict[str, np.ndarray]) -> Values:
    return {name: array.tolist() for name, array in arrays.items()}


def main() -> None:
    """Prints the exam."""
    parser = argparse.ArgumentParser(description="An exam, with numbers that follow from a seed.")
    parser.add_argument("--seed", type=int, required=True, help="a number that only you know")
    parser.add_argument("--answers", action="store_true", help="print the answers too")
    parser.add_argument("--language", choices=HEAD, default="en")
    given = parser.parse_args()
    print("\n".join(lines(given.seed, given.language, given.answers)))


if __name__ == "__main__":
    main()
