"""The judge's hints: more than which gradient is wrong, for a student who asks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnets.course.exercises.bugs import BUGS
from jaxnets.gradcheck.compare import DIFFERENCES, Row

CLOSE = 1e-9  # Of numbers in float64 that are meant to be the same.


def hints(name: str, row: Row, cases: Sequence[Any], answers: Sequence[Mapping]) -> Iterator[str]:
    """Yields the errors, the first setting in which a gradient is wrong, and what it looks like.

    Args:
      name: The function's name.
      row: The comparison's result.
      cases: The judge's cases.
      answers: The gradients that were returned for each.
    """
    if not any(_is_misshapen(*pair) for pair in zip(cases, answers, strict=True)):
        yield "relative errors: " + ", ".join(
            f"{key} {error.value:.1e} (at most {row.tolerances[key]:.0e})"
            for key, error in row.errors.items()
        )
    if row.ok:
        return
    exact = [
        (case, answer)
        for case, answer in zip(cases, answers, strict=True)
        if case.program.dtype == "float64"
    ]
    leaves = dict.fromkeys(leaf for case, _ in exact for leaf in case.right)
    for leaf in leaves:
        wrong = [pair for pair in exact if _is_wrong(leaf, *pair)]
        if not wrong:
            continue
        case, answer = wrong[0]
        yours, right = answer[leaf], case.right[leaf]
        label = case.call.gradient_name(leaf)
        yield f"{label} is wrong in {len(wrong)} of {len(exact)} settings, first in: " + (
            case.program.problem.label
        )
        yield _looks(label, yours, right)
    exact, differences = row.errors["float64"].value, row.errors[DIFFERENCES].value
    if row.kinks and differences <= row.tolerances[DIFFERENCES] < exact < np.inf:
        yield "the differences agree: it is wrong only where the function has a kink or a tie"
    if name in BUGS:
        yield f"hint: {BUGS[name].hint}"


def _is_misshapen(case: Any, answer: Mapping[str, np.ndarray]) -> bool:
    return any(answer[leaf].shape != right.shape for leaf, right in case.right.items())


def _is_wrong(leaf: str, case: Any, answer: Mapping[str, np.ndarray]) -> bool:
    if leaf not in case.right:  # This setting has no bias.
        return False
    yours, right = answer[leaf], case.right[leaf]
    return yours.shape != right.shape or not np.allclose(
        yours, right, rtol=0, atol=CLOSE * (np.abs(right).max(initial=0) or 1)
    )


def _looks(label: str, yours: np.ndarray, right: np.ndarray) -> str:
    """Compares a wrong array with the right one, without showing the right one."""
    if yours.shape != right.shape:
        return f"{label}: expected the shape {right.shape}, got {yours.shape}"
    if not np.isfinite(yours).all():
        return f"{label}: it holds numbers that are not finite"
    if np.allclose(yours, right):
        return f"{label}: right, but rounded to fewer digits than float64 has"
    where = np.abs(yours - right) > CLOSE * (np.abs(right).max(initial=0) or 1)
    steepest = np.abs(right).argmax()
    ratio = yours.flat[steepest] / (right.flat[steepest] or 1)
    if ratio and np.allclose(yours, ratio * right, rtol=0, atol=CLOSE * np.abs(yours).max()):
        return f"{label}: each number is {ratio:.4g} times the right one"
    if np.allclose(np.sort(yours, axis=None), np.sort(right, axis=None)):
        return f"{label}: the right numbers stand in the wrong places"
    return f"{label}: {where.sum()} of {where.size} numbers are wrong"
