"""Slopes by differences, each with an estimate of its error.

For steps h, h/2, h/4, ... the slopes

    middle (f(x + h) - f(x - h)) / 2h     right (f(x + h) - f(x)) / h     left (f(x) - f(x - h)) / h

approach the derivative with an error that is a series in h² (middle) or in h (right, left). Two
neighbours of the list cancel its first term, two of the new list the next one, and so on
(Richardson). The distance of an entry from the two that it is made of estimates its error. The
entry with the smallest error is taken: large steps suffer from the curvature of f, small ones from
rounding, which adds eps |f| / h. A kink between x - h and x + h spoils only the large steps.

Where the left slope differs from the right slope, x is on a kink: any number between them is a
derivative.

Source: Ridders 1982, "Accurate computation of F'(x) and F'(x) F''(x)"; Press et al., Numerical
Recipes, section 5.7.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxnets.gradcheck.quick import jit

STEPS = 0.01 * 0.5 ** np.arange(20)  # times max(1, |x|)
ORDERS = 6  # terms of a series that are cancelled
NEARBY = 8  # Points near a kink.
NEAR = 2.0**-40  # Between points so near that only rounding bends a function; times max(1, |x|).


class Slopes(NamedTuple):
    """The slopes of some outputs along one move, and how wrong each may be: arrays [outputs]."""

    left: np.ndarray
    right: np.ndarray
    middle: np.ndarray
    left_error: np.ndarray
    right_error: np.ndarray
    middle_error: np.ndarray

    @property
    def on_a_kink(self) -> np.ndarray:
        """Where the left slope differs from the right slope."""
        apart = np.abs(self.right - self.left)
        return ~(apart <= 10 * (self.left_error + self.right_error) + 1e-6 * np.abs(self.middle))

    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The least and the largest derivative, and how wrong they may be."""
        kink = self.on_a_kink
        low = np.where(kink, np.minimum(self.left, self.right), self.middle)
        high = np.where(kink, np.maximum(self.left, self.right), self.middle)
        return low, high, np.where(kink, self.left_error + self.right_error, self.middle_error)


class Differences:
    """Takes the slopes of a function along moves from a point."""

    def __init__(
        self, function: Callable[[jax.Array], jax.Array], start: np.ndarray, eps: float
    ) -> None:
        """Compiles the function at all steps.

        Args:
          function: Takes a vector of float64 and returns a vector of outputs.
          start: The point.
          eps: The relative rounding of the outputs.
        """

        @jit
        def values(start: jax.Array, move: jax.Array, ends: jax.Array) -> jax.Array:
            return jax.lax.map(lambda h: function(start + h * move), ends)

        self._values, self.function = values, function
        self.start, self.eps = start, eps
        self.steps = STEPS * (1.0 if eps < 1e-12 else 16.0)
        self.here = np.asarray(values(start, 0 * start, np.zeros(2 * len(STEPS) + 1)))[0]
        self.floor = np.zeros(self.here.size)  # The rounding of f where its terms cancel.

    def along(
        self, move: np.ndarray, scale: float = 1.0, start: np.ndarray | None = None
    ) -> Slopes:
        """The slopes along a move, by steps that are multiplied by scale."""
        steps = scale * self.steps
        start = self.start if start is None else start
        found = np.asarray(self._values(start, move, np.concatenate([-steps, [0.0], steps])))
        count = len(steps)
        return slopes_of(
            found[:count], found[count], found[count + 1 :], steps, self.eps, self.floor
        )

    def along_coordinate(self, place: int) -> Slopes:
        """The slopes along one number, by steps of its size."""
        move = np.zeros(self.start.size)
        move[place] = 1.0
        return self.along(move, float(2.0 ** np.round(np.log2(max(1.0, abs(self.start[place]))))))

    def nearby(self, move: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
        """The slopes along a move from points where no two numbers are equal, and their errors.

        Args:
          move: The direction.
          distance: 1, or less for nearer points.

        Returns:
          Two arrays [points, outputs].
        """
        count = self.start.size
        ramp, random = np.linspace(-1.0, 1.0, count), np.random.default_rng(0)
        # Stable sorts take equal numbers for rising or falling ones.
        ramps = [ramp, -ramp, *(random.permutation(ramp) for _ in range(NEARBY - 2))]
        away = distance * self.eps**0.25 * np.maximum(1.0, np.abs(self.start))
        # The longest step is shorter than the way to the next kink.
        scale = float(away.min()) / count / self.steps[0]
        found = [self.along(move, scale, self.start + away * one) for one in ramps]
        return np.stack([one.middle for one in found]), np.stack(
            [one.middle_error for one in found]
        )

    def noise(self) -> np.ndarray:
        """How much each output rounds here: how far values at very near points are from a line.

        It sees what is within an operation, such as terms of log Γ that cancel at 1.
        """
        move = np.maximum(1.0, np.abs(self.start))
        move *= np.random.default_rng(0).choice([-1.0, 1.0], self.start.size)
        values = np.asarray(self._values(self.start, move, NEAR * np.arange(2 * len(STEPS) + 1)))
        with np.errstate(all="ignore"):  # f may be infinite, or not defined, beside the point.
            bends = np.abs(np.diff(values, 2, axis=0)).max(0) / 2
        return np.where(np.isfinite(bends), bends, 0.0)

    def tells(self, error: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Where the error of a slope is small enough to tell right from wrong.

        Args:
          error: That of each slope: [outputs, ...].
          size: The largest slope of each output.
        """
        rounding = self.eps * np.abs(self.here) + self.floor
        return error <= 1e-3 * size + 1e5 * rounding.reshape(-1, *[1] * (error.ndim - 1))


def slopes_of(
    below: np.ndarray,
    here: np.ndarray,
    above: np.ndarray,
    steps: np.ndarray,
    eps: float,
    floor: np.ndarray | float = 0.0,
) -> Slopes:
    """The slopes from a function's values.

    Args:
      below: f(x - h) [steps, outputs].
      here: f(x) [outputs].
      above: f(x + h) [steps, outputs].
      steps: h, each half of the one before.
      eps: The relative rounding of f.
      floor: The rounding of f where its terms cancel.
    """
    h = steps[:, None]
    with np.errstate(all="ignore"):  # f may be infinite, or not defined, some steps away.
        rounding = (eps * (np.abs(here) + np.abs(above) + np.abs(below)) + floor) / h
        middle, middle_error = _limit((above - below) / (2 * h), rounding, 4.0)
        right, right_error = _limit((above - here) / h, rounding, 2.0)
        left, left_error = _limit((here - below) / h, rounding, 2.0)
    return Slopes(left, right, middle, left_error, right_error, middle_error)


def _limit(slopes: np.ndarray, rounding: np.ndarray, base: float) -> tuple[np.ndarray, np.ndarray]:
    """The limit of slopes [steps, outputs] for h -> 0, and its error.

    Args:
      slopes: One for each step.
      rounding: By how much each may be wrong.
      base: The factor by which half a step divides the first term of the error: 2, or 4 for a
        series in h².
    """
    best, error, entries = slopes[-1], np.full(slopes.shape[1:], np.inf), slopes
    for order in range(1, ORDERS + 1):
        coarse, fine = entries[:-1], entries[1:]
        entries = fine + (fine - coarse) / (base**order - 1)
        errors = np.maximum(np.abs(entries - coarse), np.abs(entries - fine)) + rounding[order:]
        errors = np.where(np.isfinite(entries), errors, np.inf)
        place = np.argmin(errors, axis=0)[None]
        smallest = np.take_along_axis(errors, place, 0)[0]
        best = np.where(smallest < error, np.take_along_axis(entries, place, 0)[0], best)
        error = np.minimum(smallest, error)
    return best, error
