"""Points of a class: a table for spreadsheets, a text for each student, Gradescope and nbgrader.

An exercise is worth one point for every five of its minutes, unless the teacher says otherwise.
Each right number or array has an equal share. A bug is repaired or not: most of its file was right
from the start.
"""

import csv
import hashlib
import io
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnets.base import display
from jaxnets.base.display import printable
from jaxnets.base.errors import UserError
from jaxnets.base.files import write_text
from jaxnets.base.language import N_, Text, _
from jaxnets.course.exercises.catalogue import (
    BET,
    BY_FUNCTION,
    EXERCISES,
    FIND_THE_BUG,
    Exercise,
    check_command,
    exercise_called,
)
from jaxnets.course.exercises.grade import Grade

MINUTES_OF_A_POINT = 5
MOST_POINTS = 1000
FORMULA = tuple("=+-@＝＋－＠")  # A spreadsheet evaluates a cell that begins with one of these.
EXCEL = "\ufeff"  # Without this mark Excel does not read UTF-8.
MAX_NAME = 60  # Characters of a student's name in the name of a file.
# The columns that `nbgrader export` of nbgrader 0.9 writes.
COLUMNS = (
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email",
    "raw_score", "late_submission_penalty", "score", "max_score",
)  # fmt: skip


class Mark(NamedTuple):
    """The points of one exercise of one student."""

    exercise: Exercise
    points: float
    most: float
    grade: Grade | None  # That of the student's best file; None if nothing was handed in.

    @property
    def passed(self) -> bool:
        return self.grade is not None and self.grade.passed


class Student(NamedTuple):
    """The points of one student."""

    name: str
    marks: list[Mark]
    others: list[Grade]  # Without points: unreadable files, exercises not asked for.

    @property
    def points(self) -> float:
        return round(sum(mark.points for mark in self.marks), 2)

    @property
    def most(self) -> float:
        return round(sum(mark.most for mark in self.marks), 2)


def points_of(words: Sequence[str]) -> dict[str, float]:
    """The points of an assignment's exercises.

    Args:
      words: Names of exercises, or names with their points such as "dense=3".

    Raises:
      UserError: There is no such exercise, or the points are not a valid number.
    """
    found = {}
    for word in words:
        name, _equals, points = word.partition("=")
        exercise = exercise_called(name.strip())
        try:
            value = float(points) if points else exercise.minutes / MINUTES_OF_A_POINT
        except ValueError:
            value = -1.0
        if not 0 <= value <= MOST_POINTS:
            wanted = Text("expected NAME or NAME=POINTS, at most {} points", MOST_POINTS)
            raise UserError("exercises: {}, got {}", wanted, repr(word))
        found[exercise.name] = value
    return found


def students_of(grades: Sequence[Grade], points: Mapping[str, float] | None) -> list[Student]:
    """Every student with the points of each exercise.

    Args:
      grades: All rows of a grading.
      points: The assignment's exercises and their points; None means all that were handed in.
    """
    if not points:
        there = {_exercise(grade) for grade in grades}
        points = points_of([name for name in EXERCISES if name in there])
    theirs: dict[str, list[Grade]] = {}
    for grade in grades:
        theirs.setdefault(grade.name, []).append(grade)
    students = []
    for name, rows in theirs.items():
        marks = []
        for exercise, most in points.items():
            rated = [(_points(row, most), row) for row in rows if _exercise(row) == exercise]
            best, row = max(rated, key=lambda pair: (pair[0], pair[1].passed), default=(0.0, None))
            marks.append(Mark(EXERCISES[exercise], best, most, row))
        others = [row for row in rows if row.exercise and _exercise(row) not in points]
        students.append(Student(name, marks, others))
    return students


def _exercise(grade: Grade) -> str:
    """The name of the exercise that a row is about; if a file has none, the file's name."""
    found = BY_FUNCTION.get(grade.exercise)
    return found.name if found else grade.exercise


def _points(grade: Grade, most: float) -> float:
    if grade.passed:
        return most
    right = [check.right for check in grade.checks]
    # If all are right, the differences have found an error that the comparison has not.
    if all(right) or EXERCISES[_exercise(grade)].kind == FIND_THE_BUG:
        return 0.0
    return round(most * sum(right) / len(right), 2)


def csv_of(students: Sequence[Student]) -> str:
    """The table of a class, a row for each student and a column for each exercise, for Excel."""
    exercises = [mark.exercise.name for mark in students[0].marks]
    rows: list[list[str]] = [["name", *exercises, "points", "maximum", "status"]]
    for student in students:
        numbers = [*(mark.points for mark in student.marks), student.points, student.most]
        rows.append([_cell(student.name), *map(_plain_points, numbers), _cell(_status(student))])
    return EXCEL + _rows(rows, "\r\n")


def nbgrader(students: Sequence[Student]) -> str:
    """The table that `nbgrader export` writes: a row for each exercise of each student."""
    rows: list[Sequence[str]] = [COLUMNS]
    for index, mark in enumerate(students[0].marks):
        for student in students:
            score = str(float(student.marks[index].points))
            scores = [score, "0.0", score, str(float(mark.most))]
            rows.append([mark.exercise.name, "", "", _cell(student.name), "", "", "", *scores])
    return _rows(rows, "\n")


def _rows(rows: Sequence[Sequence[str]], end: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def _plain_points(value: float) -> str:
    return f"{value:g}"


def _status(student: Student) -> str:
    passed = sum(mark.passed for mark in student.marks)
    parts = [_("{} of {} passed", passed, len(student.marks))]
    missing = [mark.exercise.name for mark in student.marks if mark.grade is None]
    others = [printable(one.exercise) for one in student.others]
    whose = [mark.grade.student for mark in student.marks if mark.grade]
    flagged = [mark.exercise.name for mark in student.marks if mark.grade and mark.grade.flag]
    foreign = dict.fromkeys(printable(name) for name in whose if name not in ("", student.name))
    parts += [_("not handed in: {}", _(", ").join(missing))] if missing else []
    parts += [_("without points: {}", _(", ").join(others))] if others else []
    parts += [_("numbers of {}", _(", ").join(foreign))] if foreign else []
    parts += [_("to read: {}", _(", ").join(flagged))] if flagged else []
    for mark in student.marks:
        if mark.grade and mark.grade.alike:
            names = _(", ").join(printable(name) for name, _share in mark.grade.alike)
            parts.append(_("{} is like that of {}", mark.exercise.name, names))
    return _("; ").join(parts)


def gradescope(student: Student) -> dict[str, Any]:
    """The content of Gradescope's results.json, by its autograder specification."""
    tests = [
        {
            "name": mark.exercise.name,
            "score": mark.points,
            "max_score": mark.most,
            "status": "passed" if mark.passed else "failed",
            "output": "\n".join(_explained(mark)),
            "output_format": "text",
            "visibility": "visible",
        }
        for mark in student.marks
    ]
    output = "\n".join(line for one in student.others for line in _unread(one))
    return {
        "score": student.points,
        "output": output or _next(student),
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def write_feedback(folder: Path, students: Sequence[Student]) -> None:
    """Writes a text for each student."""
    for student in students:
        write_text(folder / _file_of(student.name), feedback(student))


def _file_of(name: str) -> str:
    """The name of a student's text: inside the folder, and different for each student."""
    safe = re.sub(r"[^\w .@+-]", "_", name)[:MAX_NAME].strip(" .")
    if safe != name:
        safe += f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f"{safe}.txt"


def feedback(student: Student) -> str:
    """The text for a student: points, what is right and wrong, and what to do next.

    It says nothing about other students, and no more about the answers than the judge says at home.
    """
    got = printable(student.name), _plain_points(student.points), _plain_points(student.most)
    rows = []
    for mark in student.marks:
        result = _("passed") if mark.passed else _("not right yet")
        if mark.grade is None:
            result = _("not handed in")
        points = _("{} of {}", _plain_points(mark.points), _plain_points(mark.most))
        rows.append([mark.exercise.name, points, result])
    lines = [_("{}: {} of {} points", *got), "", *display.table(rows, "<<<")]
    for mark in student.marks:
        if not mark.passed:
            lines += ["", mark.exercise.name, *(f"  {line}" for line in _explained(mark))]
    for other in student.others:
        lines += ["", *_unread(other)]
    return "\n".join([*lines, "", _next(student)]).rstrip() + "\n"


def _explained(mark: Mark) -> list[str]:
    """Says what is right and wrong in an exercise, what the judge says, and what to do."""
    if mark.grade is None:
        return [_("not handed in; it begins with:"), f"  jaxnets exercise new {mark.exercise.name}"]
    if mark.passed:
        return [_("passed")]
    right = [check.name for check in mark.grade.checks if check.right]
    said = N_("made: {}") if mark.exercise.kind == BET else N_("right: {}")
    lines = [_(said, _(", ").join(right))] if right else []
    for check in mark.grade.checks:
        if not check.right:
            lines.append(_(": ").join([check.name, check.note or _("wrong")]))
    if reason := mark.grade.reason:
        lines.append(_("the judge: {}", reason))
    file = mark.grade.file or mark.exercise.file
    check = check_command(shlex.quote(printable(file)))
    return [*lines, _("more, at home:"), f"  {check} --hint"]


def _unread(grade: Grade) -> list[str]:
    """The lines about a file, or an exercise, that gets no points."""
    why = grade.reason or (_("passed") if grade.passed else _("not right yet"))
    return [_("{}, without points", printable(grade.exercise)), f"  {why}"]


def _next(student: Student) -> str:
    """The next exercise of the course, for a student who has passed everything."""
    done = {mark.exercise.name for mark in student.marks}
    required = (name for name, exercise in EXERCISES.items() if exercise.required)
    following = next((name for name in required if name not in done), None)
    if following is None or not student.marks or not all(mark.passed for mark in student.marks):
        return ""
    return _("Everything is right. The course goes on with: jaxnets exercise new {}", following)
