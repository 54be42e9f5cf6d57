"""The picture of the interval that closes around the difference as users come."""

import numpy as np

from jaxnets.deploy.abtest.classical import two_sided_z
from jaxnets.deploy.abtest.sequential import MIN_USERS
from jaxnets.deploy.abtest.trial import Trial
from jaxnets.viz.figure import create_figure, save

MAX_POINTS = 500  # More would be no finer on paper.
ORANGE = "#c04a00"  # Matplotlib's is too light to be read on white.


def plot(trial: Trial, path: str) -> None:
    """Draws the difference with both intervals over the number of users, into a PNG, SVG or PDF.

    Raises:
      UserError: The file cannot be written.
    """
    figure = create_figure(7, 4)
    draw(figure.subplots(), trial)
    save(figure, path)


def draw(axes, trial: Trial) -> None:
    """Draws into the axes of a figure."""
    start = min(MIN_USERS, trial.count) - 1
    count = min(MAX_POINTS, trial.count - start)
    at = np.linspace(start, trial.count - 1, count).round().astype(int)
    at = np.union1d(at, [(trial.decided_at or trial.count) - 1])
    users, sequence, level = at + 1, trial.sequence, 100 * (1 - trial.plan.alpha)
    estimate = 100 * sequence.estimate[at]
    axes.fill_between(
        users,
        *(
            np.where(np.isfinite(edge[at]), 100 * edge[at], np.nan)
            for edge in (sequence.low, sequence.high)
        ),
        color="tab:blue",
        alpha=0.25,
        label=f"{level:g} % at all looks together",
    )
    half = 100 * two_sided_z(trial.plan.alpha) * _errors(trial.values)[at]
    axes.plot(users, estimate - half, "--", color=ORANGE, label=f"{level:g} % at one look")
    axes.plot(users, estimate + half, "--", color=ORANGE)
    axes.plot(users, estimate, color="tab:blue", label="difference B - A")
    axes.axhline(0, color="black", linewidth=1)
    if (decided := trial.decided_at) is not None:
        axes.axvline(decided, color="tab:green", label=f"decided after {decided:,} users")
    axes.set(xlabel="users", ylabel="B - A, percentage points of accuracy")
    axes.set_xlim(1, max(trial.count, 2))
    axes.grid(alpha=0.3)
    axes.legend()


def _errors(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean after each value, [N]."""
    t = np.arange(1, len(values) + 1)
    centered = values - values[0]
    squares = np.cumsum(centered**2) - t * (np.cumsum(centered) / t) ** 2
    return np.sqrt(np.maximum(squares, 0) / np.maximum(t - 1, 1) / t)
