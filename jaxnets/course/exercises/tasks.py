"""Judges a function by its numbers, and finds the cause of a mistake.

The right numbers come from optax, from autodiff or from NumPy (numbers.py), not from the
exercise's solution. The solution serves to find the cause: each usual mistake is a change to it.
If a student's numbers are those of the changed solution, the student made that mistake.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.base.display import shortened
from jaxnets.base.language import _
from jaxnets.course.exercises.catalogue import Cause, Repair, Task
from jaxnets.course.exercises.numbers import RUNS
from jaxnets.course.exercises.passes import PlainCall, ResultError, results_of
from jaxnets.gradcheck.causes import looks, same

MAX_ARGUMENT = 60  # Characters of an argument in a hint.
Numbers = Mapping[str, np.ndarray]


class TaskCase(NamedTuple):
    """One call of the function, and its right results."""

    call: PlainCall
    right: Numbers


def task_cases(task: Task) -> list[TaskCase]:
    """The calls of a task, with the right results."""
    found = []
    for arguments, settings, results, *functions in RUNS[task.name]():
        names = dict(zip(task.returns, results, strict=True))
        right = {name: np.asarray(value, np.float64) for name, value in names.items()}
        found.append(TaskCase(PlainCall(arguments, settings, task.returns, *functions), right))
    return found


def compared(
    task: Task, cases: Sequence[TaskCase], answers: Sequence[Numbers], hint: bool
) -> tuple[bool, tuple[str, ...], str, None, tuple[str, ...]]:
    """Whether all results are right, the wrong ones, the cause, and hints: a Verdict's fields."""
    pairs = list(zip(cases, answers, strict=True))
    wrong = {
        name: (case, answer[name])
        for case, answer in reversed(pairs)
        for name, right in case.right.items()
        if not same(answer[name], right)
    }
    names = tuple(name for name in task.returns if name in wrong)
    if not names:
        return True, (), "", None, ()
    first = min(names, key=lambda name: wrong[name][1].shape == wrong[name][0].right[name].shape)
    names = (first, *(name for name in names if name != first))
    case, yours = wrong[first]
    look = looks(first, yours, case.right[first])
    causes = causes_of(task, cases, answers, first)
    said = _("; ").join(_(cause.says) for cause in causes)
    if isinstance(task, Repair):
        hints = ((said,) if said else ()) + (_("hint: {}", _(task.hint)),)
        if task.causes[0] in causes:
            said = _("it is still wrong")
    else:
        given = {**case.call.arguments, **case.call.settings}
        shown = ", ".join(f"{name} = {_short(value)}" for name, value in given.items())
        hints = _("first wrong for {}", shown), look
    return False, names, said or look.removeprefix(f"{first}: "), None, hints if hint else ()


def causes_of(
    task: Task, cases: Sequence[TaskCase], answers: Sequence[Numbers], first: str
) -> tuple[Cause, ...]:
    """The usual mistakes, one or two, that lead to these answers; empty if none does.

    A student may continue correctly from a wrong result. Then one mistake need only lead to the
    first wrong result.
    """
    for count, names in ((1, task.returns), (2, task.returns), (1, [first])):
        for causes in itertools.combinations(task.causes, count):
            changed = task.solution
            for cause in causes:
                if cause.old not in changed:
                    break
                changed = changed.replace(cause.old, cause.new)
            else:
                if _leads_to(changed, task, cases, answers, names):
                    return causes
    return ()


def _leads_to(
    source: str,
    task: Task,
    cases: Sequence[TaskCase],
    answers: Sequence[Numbers],
    names: Sequence[str],
) -> bool:
    space: dict[str, Any] = {}
    exec(source, space)
    found = results_of(space[task.function], [case.call for case in cases])
    with warnings.catch_warnings(action="ignore"):  # A mistake may take the mean of nothing.
        try:
            return all(
                same(answer[name], results[name])
                for answer, results in zip(answers, found, strict=True)
                for name in names
            )
        except ResultError:
            return False


def _short(value: Any) -> str:
    text = " ".join(np.array2string(np.asarray(value), precision=4).split())
    return shortened(text, MAX_ARGUMENT)
