"""An exam for the course: twelve questions, 75 minutes, 36 points; all numbers follow from a seed.

    python docs/_teachers/exam.py --seed=2026 [--second] [--answers] [--language=zh]

There are two questions for each place. The seed draws one of them, and `--second` asks the others,
so a seed has two exams without a common question. Answers are computed, and none are published:
without the seed, nobody knows the numbers. exam.toml has the texts and what each point is for.
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
    "en": ("Exam", "75 minutes, {} points. A pocket calculator is allowed.", "{} points"),
    "zh": ("考试", "75 分钟，共 {} 分。可以用计算器。", "{} 分"),
}
Values = dict[str, Any]


class Question(NamedTuple):
    """A question with its numbers."""

    name: str
    given: Values
    answers: Values

    @property
    def points(self) -> int:
        """The sum of the points of its parts."""
        return sum(points for points, *_ in TEXTS[self.name]["marks"])

    def text(self, language: str) -> str:
        """The question in a language."""
        given = {name: shown(x) if isinstance(x, list) else x for name, x in self.given.items()}
        return TEXTS[self.name][language].format(**given)

    def model_answers(self, language: str) -> Iterator[tuple[int, str]]:
        """The points of each part, and its model answer."""
        values = {name: shown(value) for name, value in self.answers.items()}
        for points, english, *chinese in TEXTS[self.name]["marks"]:
            text = chinese[0] if chinese and language == "zh" else english
            yield points, text.format(**values)


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


def neuron_step(random: Random) -> tuple[Values, Values]:
    """One neuron with one input: a step, and the loss after it."""
    x, y, w = random.randint(1, 3), random.randint(4, 9), random.choice([0.5, 1, 1.5])
    b, rate = random.choice([0, 0.5, 1]), random.choice([0.01, 0.02, 0.05])
    dz = w * x + b - y
    new_w, new_b = w - rate * dz * x, b - rate * dz
    after = (new_w * x + new_b - y) ** 2 / 2
    answers = {"L": dz**2 / 2, "dw": dz * x, "db": dz, "w": new_w, "b": new_b, "after": after}
    return {"x": x, "y": y, "w": w, "b": b, "rate": rate}, answers


def dense(random: Random) -> tuple[Values, Values]:
    """A dense layer's gradients."""
    x, w, dz = (np.array(_integers(random, -2, 3, 4)).reshape(2, 2) for _ in range(3))
    answers = {"dW": x.T @ dz, "db": dz.sum(axis=0), "dX": dz @ w.T}
    return _lists({"X": x, "W": w, "dZ": dz}), _lists(answers)


def dense_relu(random: Random) -> tuple[Values, Values]:
    """A dense layer without a bias, then ReLU."""
    x, w, dh = (np.array(_integers(random, -2, 3, 4)).reshape(2, 2) for _ in range(3))
    z = x @ w
    if not (z > 0).any() or (z > 0).all() or (z == 0).any():
        return dense_relu(random)
    dz = dh * (z > 0)
    answers = {"Z": z, "dZ": dz, "dW": x.T @ dz, "dX": dz @ w.T}
    return _lists({"X": x, "W": w, "dH": dh}), _lists(answers)


def cross_entropy(random: Random) -> tuple[Values, Values]:
    """Softmax and cross-entropy."""
    p, right = _probabilities(random)
    gradient = [one - (number == right) for number, one in enumerate(p, start=1)]
    return {"p": p, "right": right}, {"L": -math.log(p[right - 1]), "gradient": gradient}


def two_losses(random: Random) -> tuple[Values, Values]:
    """How hard cross-entropy and half the squared error pull at the right score."""
    p, right = _probabilities(random)
    d = [one - (number == right) for number, one in enumerate(p, start=1)]
    pull = p[right - 1] * (d[right - 1] - sum(map(math.prod, zip(d, p, strict=True))))
    return {"p": p, "right": right}, {"cross_entropy": d[right - 1], "squared": pull}


def sum_or_mean(random: Random) -> tuple[Values, Values]:
    """The learning rate of a sum and of a mean."""
    count, rate = random.choice([2, 5, 20, 40]) * 1000, random.choice([1, 2, 5]) / 100_000
    return {"count": count, "rate": rate}, {"rate": count * rate, "times": count}


def mean_to_sum(random: Random) -> tuple[Values, Values]:
    """The learning rate of a mean and of a sum."""
    count, rate = random.choice([32, 64, 128, 256]), random.choice([0.1, 0.2, 0.5])
    return {"count": count, "rate": rate}, {"rate": rate / count, "times": count}


def momentum(random: Random) -> tuple[Values, Values]:
    """Two steps with momentum."""
    beta, g = random.choice([0.5, 0.8, 0.9]), _integers(random, 1, 4, 2)
    v = [float(g[0]), beta * g[0] + g[1]]
    w = [1 - 0.1 * v[0], 1 - 0.1 * v[0] - 0.1 * v[1]]
    return {"beta": beta, "g": g}, {"v": v, "w": w, "times": 1 / (1 - beta)}


def adam(random: Random) -> tuple[Values, Values]:
    """Adam's first step."""
    g, rate = random.choice([0.02, 0.5, 3, 40]), random.choice([0.001, 0.002, 0.01])
    b1, b2 = random.choice([0.8, 0.9]), random.choice([0.99, 0.999])
    answers = {"m": (1 - b1) * g, "v": (1 - b2) * g**2, "mean": float(g), "square": float(g**2)}
    return {"g": g, "rate": rate, "b1": b1, "b2": b2}, answers | {"step": rate}


def first_weights(random: Random) -> tuple[Values, Values]:
    """He's deviation, and what half of it does."""
    n, layers = random.choice([8, 32, 50, 200, 800]), random.choice([4, 6, 8, 10])
    answers = {"deviation": math.sqrt(2 / n), "factor": 0.5**layers}
    return {"n": n, "layers": layers}, answers


def sigmoids(random: Random) -> tuple[Values, Values]:
    """The gradient's largest factor through sigmoids."""
    layers, w = random.choice([4, 5, 6, 8]), random.choice([0.5, 1, 2])
    return {"layers": layers, "w": w}, {"factor": (w / 4) ** layers, "needed": 4}


def epochs(random: Random) -> tuple[Values, Values]:
    """Steps in an epoch, and what weight decay leaves of a weight."""
    images, batch = random.choice([50_000, 55_000, 60_000]), random.choice([64, 128, 512])
    rate, decay = random.choice([0.1, 0.2]), random.choice([0.01, 0.05, 0.1])
    steps = math.ceil(images / batch)
    given = {"images": images, "batch": batch, "rate": rate, "decay": decay}
    return given, {"steps": steps, "left": (1 - rate * decay) ** 100}


def stopping(random: Random) -> tuple[Values, Values]:
    """Early stopping with a patience of two epochs."""
    best = random.randint(3, 5)
    falling = [round(0.9 - 0.1 * epoch - 0.01 * random.randint(0, 3), 2) for epoch in range(best)]
    rising = [round(falling[-1] + 0.02 * one + 0.01 * random.randint(0, 1), 2) for one in (1, 2, 3)]
    training = [round(0.9 - 0.1 * epoch, 2) for epoch in range(best + 3)]
    validation = falling + rising
    answers = {"best": best, "end": best + 2, "gap": validation[best + 1] - training[best + 1]}
    return {"training": training, "validation": validation}, answers


def convolution(random: Random) -> tuple[Values, Values]:
    """A convolution in one dimension, and both of its gradients."""
    x, w, dz = (_integers(random, -2, 4, count) for count in (5, 3, 3))
    z, dw, dx = np.correlate(x, w, "valid"), np.correlate(x, dz, "valid"), np.convolve(dz, w)
    return {"x": x, "w": w, "dz": dz}, _lists({"z": z, "dw": dw, "dx": dx})


def pooling(random: Random) -> tuple[Values, Values]:
    """Max and average pooling of two windows, and their gradients."""
    x = np.array(random.sample(range(-3, 10), 8)).reshape(2, 4)  # No ties.
    dy = np.array(_integers(random, 1, 5, 2))
    windows = x.reshape(2, 2, 2).transpose(1, 0, 2).reshape(2, 4)  # One window in each row.
    won = windows == windows.max(axis=1, keepdims=True)
    shares = won * dy[:, None], np.repeat(dy[:, None] / 4, 4, axis=1)
    d_max, d_mean = (one.reshape(2, 2, 2).transpose(1, 0, 2).reshape(2, 4) for one in shares)
    answers = {"max": windows.max(axis=1), "mean": windows.mean(axis=1)}
    return _lists({"x": x, "dy": dy}), _lists(answers | {"d_max": d_max, "d_mean": d_mean})


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


def receptive_field(random: Random) -> tuple[Values, Values]:
    """What a unit sees after three convolutions, and the cost of one window of that size."""
    windows = [random.choice([3, 5]) for _ in range(3)]
    stride, channels = random.choice([1, 2]), random.choice([8, 16, 32])
    field = windows[0] + stride * (windows[1] - 1 + windows[2] - 1)
    three = sum(window**2 for window in windows) * channels**2
    answers = {"field": field, "three": three, "one": field**2 * channels**2}
    return {"windows": windows, "stride": stride, "channels": channels}, answers


def batch_norm(random: Random) -> tuple[Values, Values]:
    """The batch norm of four numbers, and its running mean."""
    mean, scale, running = random.randint(2, 9), random.choice([1, 2]), random.randint(10, 20)
    away = random.choice([(-7, 1, 7, -1), (-17, 7, -7, 17), (5, -5, -5, 5)])
    x = [mean + scale * one for one in away]
    deviation = scale * math.sqrt(sum(one**2 for one in away) / 4)
    y = [(one - mean) / deviation for one in x]
    answers = {"mean": mean, "deviation": deviation, "y": y, "running": 0.9 * running + 0.1 * mean}
    return {"x": x, "running": running}, answers


def shortcuts(random: Random) -> tuple[Values, Values]:
    """The gradient's factor through layers, without and with shortcuts."""
    layers, slope = random.choice([10, 16, 20, 30]), random.choice([0.1, 0.2, 0.5])
    answers = {"plain": slope**layers, "with": (1 + slope) ** layers, "one": 2**layers}
    return {"layers": layers, "slope": slope}, answers


def confusion(random: Random) -> tuple[Values, Values]:
    """Accuracy, precision, recall and F1 of a rare class."""
    sick, found, wrong = random.choice([10, 20]), random.randint(3, 9), random.randint(1, 12)
    precision, recall = found / (found + wrong), found / sick
    answers = {
        "accuracy": (100 - wrong - (sick - found)) / 100,
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / (precision + recall),
        "healthy": (100 - sick) / 100,
    }
    return {"sick": sick, "called": found + wrong, "found": found}, answers


def regression(random: Random) -> tuple[Values, Values]:
    """Two scores of four predictions."""
    y = [10 * one for one in random.sample(range(1, 9), 4)]
    misses = [random.choice([-5, -3, -2, 2, 3, 4]) for _ in y]
    mean, squares = sum(y) / 4, sum(one**2 for one in misses)
    answers = {
        "wmape": sum(map(abs, misses)) / sum(y),
        "r2": 1 - squares / sum((one - mean) ** 2 for one in y),
        "of_mean": 0,
    }
    return {"y": y, "p": [one + miss for one, miss in zip(y, misses, strict=True)]}, answers


def claim(random: Random) -> tuple[Values, Values]:
    """A lead on few images."""
    images, a = random.choice([400, 900, 1600]), random.choice([0.8, 0.9])
    b = a - random.choice([0.005, 0.01])
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / images)
    answers = {"error": error, "lead": (a - b) / error, "low": a - b - 1.96 * error}
    return {"images": images, "a": a, "b": b}, answers | {"high": a - b + 1.96 * error}


def peeking(random: Random) -> tuple[Values, Values]:
    """Several tests at 5 % each."""
    tests = random.choice([4, 5, 8, 10, 20])
    return {"tests": tests}, {"alarm": 1 - 0.95**tests, "level": 0.05 / tests}


Make = Callable[[Random], tuple[Values, Values]]
PLACES: tuple[tuple[Make, Make], ...] = (
    (neuron, neuron_step),
    (dense, dense_relu),
    (cross_entropy, two_losses),
    (sum_or_mean, mean_to_sum),
    (momentum, adam),
    (first_weights, sigmoids),
    (epochs, stopping),
    (convolution, pooling),
    (output_size, receptive_field),
    (batch_norm, shortcuts),
    (confusion, regression),
    (claim, peeking),
)


def questions(seed: int, second: bool = False) -> list[Question]:
    """The questions of a seed; the numbers of one do not depend on the others."""
    asked = []
    for place, makes in enumerate(PLACES):
        first = Random(f"{seed} place {place}").randrange(2)
        make = makes[1 - first if second else first]
        asked.append(Question(make.__name__, *make(Random(f"{seed} {make.__name__}"))))
    return asked


def lines(seed: int, language: str, answers: bool, second: bool = False) -> Iterator[str]:
    """The lines of the exam, in Markdown, with or without its answers."""
    asked = questions(seed, second)
    title, how, points = HEAD[language]
    yield from (f"# {title}", "", how.format(sum(question.points for question in asked)))
    for number, question in enumerate(asked, start=1):
        yield ""
        yield f"{number}. ({points.format(question.points)}) {question.text(language)}"
        if answers:
            yield ""
            for each, answer in question.model_answers(language):
                yield f"   - ({each}) {answer}"


def shown(value: Any) -> str:
    """A value with at most four digits; a row in round brackets, a matrix in square ones."""
    if isinstance(value, list):
        row = ", ".join(map(shown, value))
        return f"[{row}]" if isinstance(value[0], list) else f"({row})"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def _integers(random: Random, low: int, high: int, count: int) -> list[int]:
    return [random.randint(low, high) for _ in range(count)]


def _probabilities(random: Random) -> tuple[list[float], int]:
    """The probabilities of three classes, and the number of the right one."""
    p = random.choice([[0.1, 0.2, 0.7], [0.05, 0.35, 0.6], [0.25, 0.3, 0.45], [0.15, 0.8, 0.05]])
    random.shuffle(p)
    return p, random.randint(1, 3)


def _lists(arrays: dict[str, np.ndarray]) -> Values:
    return {name: array.tolist() for name, array in arrays.items()}


def main() -> None:
    """Prints the exam."""
    parser = argparse.ArgumentParser(description="An exam, with numbers that follow from a seed.")
    parser.add_argument("--seed", type=int, required=True, help="a number that only you know")
    parser.add_argument(
        "--second", action="store_true", help="ask the other question of each place"
    )
    parser.add_argument(
        "--answers", action="store_true", help="print model answers and their points"
    )
    parser.add_argument("--language", choices=HEAD, default="en")
    given = parser.parse_args()
    print("\n".join(lines(given.seed, given.language, given.answers, given.second)))


if __name__ == "__main__":
    main()
