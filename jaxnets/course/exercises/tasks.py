"""Judges a function by its numbers, and finds the cause of an error.

The right numbers come from optax, from autodiff or from NumPy (task_calls.py), not from the
exercise's solution. The solution serves to find the cause: each usual error is a change to it.
If a student's numbers are those of the changed solution, the student made that error.
"""

import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.base.language import _
from jaxnets.course.exercises.catalogue import Cause, Repair, Task
from jaxnets.course.exercises.error_messages import ResultError
from jaxnets.course.exercises.passes import PlainCall, results_of
from jaxnets.course.exercises.reasons import UNCHANGED
from jaxnets.course.exercises.task_calls import CALLS
from jaxnets.gradcheck.causes import first_wrong, looks, same

MAX_ARGUMENT = 60  # Characters of an argument whose numbers a hint shows.
Numbers = Mapping[str, np.ndarray]


class TaskCase(NamedTuple):
    """One call of the function, and its right results."""

    call: PlainCall
    right: Numbers


def task_cases(task: Task) -> list[TaskCase]:
    """The calls of a task, with the right results."""
    found = []
    for arguments, settings, results, *functions in CALLS[task.name]():
        names = dict(zip(task.returns, results, strict=True))
        right = {name: np.asarray(value, np.float64) for name, value in names.items()}
        found.append(TaskCase(PlainCall(arguments, settings, task.returns, *functions), right))
    return found


def compared(
    task: Task, cases: Sequence[TaskCase], answers: Sequence[Numbers], hint: bool
) -> tuple[bool, tuple[str, ...], str, None, tuple[str, ...]]:
    """Whether all results are right, the wrong ones, the cause, and hints: a Verdict's fields."""
    pairs = list(zip(cases, answers, strict=True))
    wrong = {name: [pair for pair in pairs if _is_wrong(name, *pair)] for name in task.returns}
    names = [name for name in task.returns if wrong[name]]
    if not names:
        return True, (), "", None, ()
    names.sort(key=lambda name: _fits(name, *wrong[name][0]))  # Wrong shapes come first.
    first, causes = names[0], causes_of(task, cases, answers, names[0])
    labels = [label for cause in causes if (label := _changed_by(cause, task, cases)) in names]
    if labels:  # The result in which the error is, even if others are wrong too.
        first = labels[0]
        names = [first, *(name for name in names if name != first)]
    said = _said(causes, labels)
    if isinstance(task, Repair):
        hints = [_("hint: {}", _(task.hint))]
        if task.causes[0] in causes:  # That is the answer, which only a hint says.
            said, hints = _(UNCHANGED), [said, *hints]
    else:
        hints = [*filter(None, [_step(task, first), _example(first, wrong[first])])]
    case, answer = wrong[first][0]
    look = looks(first, answer[first], case.right[first]).removeprefix(f"{first}: ")
    return False, tuple(names), said or look, None, tuple(hints) if hint else ()


def _is_wrong(name: str, case: TaskCase, answer: Numbers) -> bool:
    return not same(answer[name], case.right[name])


def _fits(name: str, case: TaskCase, answer: Numbers) -> bool:
    """Whether a result has the right shape."""
    return answer[name].shape == case.right[name].shape


def _said(causes: Sequence[Cause], labels: Sequence[str]) -> str:
    """The causes in one line, each with its result's name if that is not the first one's."""
    parts = []
    for number, cause in enumerate(causes):
        other = number < len(labels) and labels[number] != labels[0]
        parts.append(_(": ").join([labels[number], _(cause.says)]) if other else _(cause.says))
    return _("; ").join(parts)


def _changed_by(cause: Cause, task: Task, cases: Sequence[TaskCase]) -> str:
    """The result in which an error is: of those that it alone makes wrong, the one that it names.

    If it names none, the first one; "" if it makes none wrong.
    """
    changed = task.solution.replace(cause.old, cause.new)
    try:
        found = list(_results(changed, task, cases))
    except ResultError:
        return ""
    pairs = list(zip(cases, found, strict=True))
    wrong = [one for one in task.returns if any(_is_wrong(one, *pair) for pair in pairs)]
    named = (one for one in wrong if re.search(rf"\b{one}\b", cause.says))
    return next(named, next(iter(wrong), ""))


def _step(task: Task, name: str) -> str:
    """Which step of the derivation to compare with one's own, for a wrong result."""
    if name in task.hints:
        return _("hint: {}", _(task.hints[name]))
    line = re.search(rf"^{name}(_\w+)? (<-|=) .*", _(task.formula), re.MULTILINE | re.IGNORECASE)
    return _("the line to compare yours with: {}", line[0]) if line else ""


def _example(name: str, wrong: Sequence[tuple[TaskCase, Numbers]]) -> str:
    """A wrong number and the right one, for the smallest arguments; "" if they look the same."""
    sizes = [sum(map(np.size, case.call.arguments.values())) for case, _answer in wrong]
    case, answer = wrong[int(np.argmin(sizes))]
    if _fits(name, case, answer) and np.allclose(answer[name], case.right[name]):
        return ""  # Its digits would be those of the right number.
    given = {**case.call.arguments, **case.call.settings}
    shown = ", ".join(_shown(argument, value) for argument, value in given.items())
    return _("for {}: {}", shown, first_wrong(name, answer[name], case.right[name]))


def _shown(name: str, value: Any) -> str:
    """An argument: its numbers, or its shape if they are too many to be read."""
    text = " ".join(np.array2string(np.asarray(value), precision=4, threshold=10**9).split())
    return f"{name} = {text}" if len(text) <= MAX_ARGUMENT else f"{name} {np.shape(value)}"


def causes_of(
    task: Task, cases: Sequence[TaskCase], answers: Sequence[Numbers], first: str
) -> tuple[Cause, ...]:
    """The usual errors, one or two, that lead to these answers; empty if none does.

    A student may continue correctly from a wrong result. Then one error need only lead to the
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
    found = _results(source, task, cases)
    try:
        return all(
            same(answer[name], results[name])
            for answer, results in zip(answers, found, strict=True)
            for name in names
        )
    except ResultError:
        return False


def _results(source: str, task: Task, cases: Sequence[TaskCase]) -> Iterator[Numbers]:
    """Yields the results of a changed solution for each case."""
    space: dict[str, Any] = {}
    exec(source, space)
    with warnings.catch_warnings(action="ignore"):  # An error may take the mean of nothing.
        yield from results_of(space[task.function], [case.call for case in cases])
