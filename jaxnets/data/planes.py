"""Points in the plane, in two classes that no straight line separates: drawn, not downloaded."""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxnets.data.arrays import from_arrays
from jaxnets.data.datasets import Dataset

TRAIN, TEST = 1000, 200  # Points; a tenth of the first are for validation.
NOISE = 0.06  # The standard deviation of each coordinate; a plane is about 2 wide.
DECIMALS = 4  # Machines' sines differ in the last bits; rounded points are equal.


def circles(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A circle inside another."""
    angle = random.uniform(0, 2 * np.pi, len(labels))
    return np.where(labels == 0, 0.4, 0.9) * np.array([np.cos(angle), np.sin(angle)])


def moons(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Two half circles, each with an end inside the other."""
    angle, sign = random.uniform(0, np.pi, len(labels)), 1 - 2 * labels
    return 0.6 * np.array([np.cos(angle) - 0.5, np.sin(angle) - 0.25]) * sign


def spirals(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Two arms around the middle, each a turn and a quarter long."""
    along = np.sqrt(random.uniform(0.02, 1, len(labels)))
    angle = 2.5 * np.pi * along + np.pi * labels
    return along * np.array([np.cos(angle), np.sin(angle)])


def xor(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Four squares: class 1 where one coordinate is positive and the other is not."""
    x, y = random.uniform(0.12, 1, (2, len(labels)))
    sign = random.choice([-1, 1], len(labels))
    return sign * np.array([x, np.where(labels == 1, -y, y)])


SETS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "circles": circles,
    "moons": moons,
    "spirals": spirals,
    "xor": xor,
}


def load(name: str, validation_size: int | None) -> Dataset:
    """Draws a set of SETS: the same points at each call."""
    random = np.random.default_rng(0)
    labels = np.arange(TRAIN + TEST) % 2
    points = SETS[name](labels, random) + random.normal(0, NOISE, (2, len(labels)))
    points = np.round(points.T, DECIMALS)
    train, test = (points[:TRAIN], labels[:TRAIN]), (points[TRAIN:], labels[TRAIN:])
    return dataclasses.replace(from_arrays((train, test), validation_size), name=name)
