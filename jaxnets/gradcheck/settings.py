"""Draws the numbers of a setting, and says in a line what it tries."""

from typing import Any

import numpy as np

from jaxnets.backprop.rule import Setting


def draw(setting: Setting) -> tuple[dict[str, Any], np.ndarray | None]:
    """The inputs, in float64, and the labels, which have no gradient."""
    inputs: dict[str, Any] = {}
    if setting.params:
        sizes = enumerate(setting.params.items(), start=1)
        inputs["params"] = {name: _normal(seed, shape) for seed, (name, shape) in sizes}
    inputs["x"] = setting.scale * numbers(setting.numbers, setting.x)
    return inputs, labels(setting.labels, *setting.x) if setting.labels else None


def numbers(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of one of the kinds that `Setting` describes."""
    random = np.random.default_rng(0)
    drawn = {
        "normal": lambda: random.standard_normal(shape),
        "integers": lambda: random.integers(-2, 3, shape).astype(np.float64),
        "equal": lambda: np.full(shape, 2.0),
        "huge": lambda: random.choice([-1e4, -30.0, 0.0, 1e4], shape),
        "shares": lambda: random.uniform(0.1, 1.0, shape),
    }
    return drawn[kind]()


def labels(kind: str, batch: int, num_classes: int) -> np.ndarray:
    """Labels of one of the kinds that `Setting` describes."""
    if kind == "probabilities":
        shares = numbers("shares", (batch, num_classes))
        return shares / shares.sum(axis=1, keepdims=True)
    classes = np.random.default_rng(0).integers(0, num_classes, batch, dtype=np.int32)
    return classes if kind == "classes" else np.eye(num_classes)[classes]


def describe(setting: Setting) -> str:
    """As "4x5 kernel 5x3 bias 3", for the report."""
    parts = [_size(setting.x), "" if setting.numbers == "normal" else setting.numbers]
    parts += [f"{name} {_size(shape)}" for name, shape in setting.params.items()]
    parts += [setting.labels, "" if setting.scale == 1 else f"times {setting.scale:g}"]
    parts += [f"{name} {value}" for name, value in setting.static.items()]
    return " ".join(part for part in parts if part)


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
