"""The answers to exercises, for teachers: numbers by NumPy, formulas, code from the package."""

import inspect
import textwrap
from typing import Any

from jaxnets.base import display
from jaxnets.base.language import _
from jaxnets.course.exercises.catalogue import (
    Blank,
    Bug,
    Derive,
    Exercise,
    Repair,
    Sheet,
    Task,
    exercise_called,
)
from jaxnets.course.exercises.student import shown


def answer_to(name: str, student: str = "") -> tuple[dict[str, Any], str]:
    """The answer to an exercise, as values and as text.

    Args:
      name: The exercise.
      student: The student whose numbers a sheet has; "" means everybody's.

    Raises:
      UserError: There is no such exercise, or the student's name is not a valid name.
    """
    exercise = exercise_called(name)
    title, values = _title(exercise), dict[str, Any](exercise=name)
    if isinstance(exercise, Sheet):
        sheet = exercise.of(student) if student else exercise
        values |= {"student": sheet.student or None, "given": sheet.said(sheet.given)}
        values["answers"] = {question.name: question.answer for question in sheet.questions}
        rows = [
            [question.name, shown(question.answer), sheet.said(question.then or question.hint)]
            for question in sheet.questions
        ]
        whose = _("the numbers of {}:", sheet.student) if sheet.student else ""
        given = display.fill(sheet.said(sheet.given), 80)
        parts = [
            title,
            "\n".join(filter(None, (whose, given))),
            "\n".join(display.table(rows, "<<<")),
        ]
        return values, "\n\n".join(parts)
    if isinstance(exercise, Derive):
        texts = {key: formula.text for key, formula in exercise.formulas.items()}
        values |= {"given": _(exercise.given), "answers": texts}
        rows = [[key, text, exercise.hints[key]] for key, text in texts.items()]
        return values, "\n\n".join([title, "\n".join(display.table(rows, "<<<"))])
    said = []
    if isinstance(exercise, Repair):
        said.append(_(exercise.causes[0].says))
    if isinstance(exercise, Repair | Bug):
        said.append(_("hint: {}", _(exercise.hint)))
    values |= {"says": said, "code": _code(exercise)}
    return values, "\n\n".join([title, *said, values["code"]])


def _title(exercise: Exercise) -> str:
    return _(
        "{}: {}. Level {}, about {} minutes.",
        exercise.name,
        _(exercise.about),
        exercise.level,
        exercise.minutes,
    )


def _code(exercise: Exercise) -> str:
    """A task's solution, or the package's backward pass of a layer."""
    if isinstance(exercise, Task):
        return exercise.solution.strip()
    assert isinstance(exercise, Blank | Bug)

    from jaxnets.course.exercises.derived import DERIVED

    backward = inspect.unwrap(DERIVED[exercise.layer].backward)
    file = backward.__module__.replace(".", "/")
    return f"# {file}.py\n{textwrap.dedent(inspect.getsource(backward)).rstrip()}"
