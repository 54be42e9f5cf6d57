"""The output of the exercises' commands, and whether the student has passed."""

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxnets.base import display
from jaxnets.base.errors import DONE, RUN_FAILED, UserError
from jaxnets.base.files import mkdir, output_path, write_text
from jaxnets.base.language import _
from jaxnets.config.command import CommandResult
from jaxnets.course.exercises.answered import RIGHT
from jaxnets.course.exercises.catalogue import (
    BY_FUNCTION,
    EXERCISES,
    WEEKS,
    Derive,
    Exercise,
    Sheet,
    check_command,
    exercise_called,
)
from jaxnets.course.exercises.compute import check_sheet
from jaxnets.course.exercises.files import read_source
from jaxnets.course.exercises.sandbox import Limits, Sandbox
from jaxnets.course.exercises.ticks import FILE, passed_in, tick
from jaxnets.course.settings import GRADESCOPE, NBGRADER, TABLE, Grading

WIDEST = 60  # Characters of a name in a table.
TICK, COLUMNS = "✓", 80  # The list's width, also in a pipe.
# What the list says about an exercise, besides whether it is passed.
FACTS = ("name", "week", "place", "required", "minutes", "kind", "level", "about", "idea")


@dataclasses.dataclass(frozen=True)
class ExerciseResult(CommandResult):
    """An answer in the language that was spoken when it was found."""

    found: Any
    lines: str
    passed: bool = True
    ticks: Sequence[str] = ()  # The exercises that the student has now passed.

    @property
    def status(self) -> int:
        """Whether a student has passed."""
        return DONE if self.passed else RUN_FAILED

    def values(self) -> Any:
        """Everything that was found."""
        return self.found

    def text(self) -> str:
        """The lines that say it."""
        return self.lines


def listing(week: int | None = None) -> ExerciseResult:
    """The exercises week by week in the course's order, with a tick for each that is passed.

    Args:
      week: The only week to show, with a line for each of its optional exercises.
    """
    done = passed_in(Path())
    shown = [one for one in EXERCISES.values() if week in (None, one.week)]
    values = [
        {fact: getattr(one, fact) for fact in FACTS} | {"passed": one.name in done} for one in shown
    ]
    lines = []
    for number, title in enumerate(WEEKS, 1):
        if of_week := [one for one in shown if one.week == number]:
            lines += [*_week_lines(number, title, of_week, done, each=week is not None), ""]
    if week is None:
        required = [one for one in shown if one.required]
        passed = sum(one.name in done for one in required)
        counts = passed, len(required)
        lines.append(_("{} of {} required exercises passed; {} keeps the ticks", *counts, FILE))
        lines.append(_("jaxnets exercise --week=3 describes a week's optional exercises"))
    lines.append(_("jaxnets exercise new NAME writes one into a file"))
    return ExerciseResult(values, "\n".join(lines))


def _week_lines(
    number: int, title: str, exercises: Sequence[Exercise], done: set[str], *, each: bool
) -> Iterator[str]:
    """Yields a week's required exercises, a line for each, then its optional ones.

    Args:
      number: The number of the week.
      title: The title of the week.
      exercises: All exercises of the week.
      done: The names of those that are passed.
      each: Whether each optional exercise has a line of its own.
    """
    required = [one for one in exercises if one.required]
    optional = [one for one in exercises if not one.required]
    if required:
        sums = len(required), sum(one.minutes for one in required)
        yield _("Week {}: {} ({} exercises, {} minutes)", number, _(title), *sums)
    else:
        yield _("Week {}: {} (optional)", number, _(title))
    yield from _exercise_lines(required, done)
    if each:
        yield _("  optional:")
        yield from _exercise_lines(optional, done)
    else:
        names = ", ".join(_named(one, done).strip() for one in optional)
        yield textwrap.indent(display.fill(_("optional: {}", names), COLUMNS - 2), "  ")


def _exercise_lines(exercises: Sequence[Exercise], done: set[str]) -> Iterator[str]:
    """Yields for each exercise its tick, name, minutes, kind, and what it is about."""
    facts = [[_named(one, done), _("{} min", one.minutes), _(one.kind)] for one in exercises]
    starts = display.table(facts, "<><")
    width = max(map(display.width_of, starts), default=0)
    for start, one in zip(starts, exercises, strict=True):
        lines = display.fill(_(one.about), COLUMNS - width - 2).split("\n")
        for before, line in zip([start, *[""] * len(lines)], lines, strict=False):
            yield display.line([before, line], [width, 0], "<<")


def _named(exercise: Exercise, done: set[str]) -> str:
    """An exercise's name after its tick, or after as much space."""
    return f"{TICK if exercise.name in done else ' '} {exercise.name}"


def write(name: str, output: str | None, student: str | None = None) -> ExerciseResult:
    """Writes an exercise into a file, never over another one.

    Args:
      name: The exercise.
      output: The file; None names it after the exercise.
      student: The student whose numbers a sheet has; None means everybody's.

    Returns:
      The file's path, the command that checks it, and a note.

    Raises:
      UserError: The file exists, or its folder does not.
    """
    exercise, note = exercise_called(name), ""
    if student and isinstance(exercise, Sheet) and exercise.draw:
        exercise = exercise.of(student)
    elif student:
        note = _("{} has the same numbers for all students", name)
    path = Path(output or exercise.file)
    if path.suffix != exercise.suffix:
        raise UserError("output: expected a name with {}, got {}", exercise.suffix, repr(str(path)))
    text, file = exercise.text(path.name), display.short_path(str(path))
    _write_new(path, text)
    checks = check_command(file)
    lines = [_("wrote {}; work on it, then:", file), f"  {checks}", *([note] if note else [])]
    return ExerciseResult({"file": str(path), "command": checks, "note": note}, "\n".join(lines))


def _write_new(path: Path, text: str) -> None:
    """Writes a new file.

    Raises:
      UserError: The file exists, or its folder does not.
      OSError: The file cannot be written; then no part of it is left.
    """
    if path.exists() or path.is_symlink():
        file = display.short_path(str(path))
        raise UserError("{} already exists; expected a new name: --output=FILE", file)
    write_text(output_path(str(path)), text)


def answers(name: str | None, student: str | None, output: str | None) -> ExerciseResult:
    """The answers to one exercise or to all; the file's name if one is written.

    Args:
      name: The exercise; None means all.
      student: The student whose numbers the sheets have; None means everybody's.
      output: The file to write; None writes none.
    """
    from jaxnets.course.exercises.answers import answer_to

    found = [answer_to(one, student or "") for one in ([name] if name else EXERCISES)]
    text = "\n\n\n".join(part for _values, part in found)
    if output:
        _write_new(Path(output), text + "\n")
        text = _("wrote {}", display.short_path(output))
    return ExerciseResult([values for values, _part in found], text)


def check(path: str, hint: bool) -> ExerciseResult:
    """Checks a student's file, and ticks the exercises in it that are passed."""
    found = (check_mine if path.endswith(".py") else check_numbers)(path, hint)
    tick(Path(path).parent, found.ticks)
    return found


def check_numbers(path: str, hint: bool) -> ExerciseResult:
    """Checks the numbers, or the formulas, of a sheet."""
    sheet, found = check_sheet(read_source(path), path)
    right = sum(answered.verdict == RIGHT for answered in found)
    passed = right == len(found)
    hints = sheet.hints
    lines = []
    for answered in found:
        line = f"{answered.name:12} {_(answered.verdict)}"
        line += _(": ") + answered.note if answered.note else ""
        if hint and answered.verdict != RIGHT:
            line += _(" (hint: {})", hints[answered.name])
        lines.append(line)
    verdict = _("passed") if passed else _("FAILED")
    whose = _("{} (numbers of {})", sheet.name, sheet.student) if sheet.student else sheet.name
    lines.append(_("{}: {}, {} of {} right", whose, verdict, right, len(found)))
    values: dict[str, Any] = {
        "exercise": sheet.name,
        "student": sheet.student or None,
        "passed": passed,
        "answers": [row._asdict() for row in found],
    }
    if isinstance(sheet, Derive) and sheet.code and passed:
        values["next"] = f"jaxnets exercise new {sheet.code}"
        lines.append(_("now in code: {}", values["next"]))
    return ExerciseResult(values, "\n".join(lines), passed, ticks=[sheet.name] if passed else [])


def check_mine(path: str, hint: bool) -> ExerciseResult:
    """Judges the functions in a student's file."""
    if path.endswith(".toml"):
        raise UserError("{}: jaxnets exercise check {} checks computed numbers", path, path)

    from jaxnets.course.exercises.judge import judge_file
    from jaxnets.machine.platform import set_up_jax

    set_up_jax(keep_memory=False)
    verdicts = judge_file(path, hint=hint)
    lines = []
    for verdict in verdicts:
        lines.append(display.paint(verdict.line, "green" if verdict else "red"))
        lines += [f"  {line}" for line in verdict.hints]
    if not all(verdicts) and not hint and any(verdict.wrong for verdict in verdicts):
        lines.append(_("--hint says more"))
    values = [_values(verdict) for verdict in verdicts]
    ticks = [BY_FUNCTION[verdict.exercise].name for verdict in verdicts if verdict]
    return ExerciseResult(values, "\n".join(lines), all(verdicts), ticks)


def grade(submissions: str, grading: Grading, sandbox: Sandbox, as_json: bool = False) -> None:
    """Grades a folder of submissions, and prints each row as soon as it is known.

    Args:
      submissions: The folder.
      grading: The limits, the assignment's exercises, and what is written besides.
      sandbox: Where they run.
      as_json: Whether the rows are objects of a list in JSON; else they are lines of a table.
    """
    from jaxnets.course.exercises import marks
    from jaxnets.course.exercises.grade import grades_of, submissions_in
    from jaxnets.machine.platform import set_up_jax

    points = marks.points_of(grading.exercises)
    csv_path = output_path(grading.csv, "csv") if grading.csv else None
    folder_of_texts = _outside(grading.feedback, submissions) if grading.feedback else None
    found = submissions_in(submissions)
    as_format, names = grading.format, {one.name for one in found}
    if as_format == GRADESCOPE and len(names) != 1:
        raise UserError("format: expected one student for {}, got {}", GRADESCOPE, len(names))
    set_up_jax(keep_memory=False)
    limits = Limits(grading.seconds, grading.memory, wait=10.0 * grading.seconds)
    grades: Iterable[Any] = grades_of(found, limits, sandbox)
    if as_format == TABLE:
        grades = _json_rows(grades) if as_json else _table_rows(found, grades)
    students = marks.students_of(list(grades), points)
    if csv_path:
        write_text(csv_path, marks.csv_of(students))
    if folder_of_texts:
        marks.write_feedback(folder_of_texts, students)
    if as_format == GRADESCOPE:
        print(json.dumps(marks.gradescope(students[0]), indent=2))
    elif as_format == NBGRADER:
        print(marks.nbgrader(students), end="")


def _outside(feedback: str, folder: str) -> Path:
    """Makes the folder for feedback, which must not be taken for a student's."""
    path = Path(feedback).expanduser()
    if path.resolve().is_relative_to(Path(folder).resolve()):
        raise UserError("feedback: expected a folder outside {}, got {}", folder, feedback)
    if path.exists() and not path.is_dir():
        raise UserError("feedback: expected a folder, {} is not one", feedback)
    mkdir(path)
    return path


def _json_rows(grades: Iterable[Any]) -> Iterator[Any]:
    """Prints each grade as an object of a list, and yields it."""
    before = "["
    for found in grades:
        values = found._asdict() | {"checks": {check.name: check.right for check in found.checks}}
        print(f"{before}\n{json.dumps(values, indent=2)}", end="", flush=True)
        before = ","
        yield found
    print("\n]")


def _table_rows(submissions: Sequence[Any], grades: Iterable[Any]) -> Iterator[Any]:
    """Prints each grade as a line of a table, and yields it."""
    head = [_("student"), _("exercise"), _("verdict"), _("first wrong, or why")]
    names = [[_cell(found.name), _cell(found.exercise)] for found in submissions]
    widths = [max(map(display.width_of, column)) for column in zip(head, *names, strict=False)]
    widths = [*widths[:2], 7, 0]
    passed = flagged = 0
    for found, cells in zip(grades, names, strict=True):
        if head:
            print(display.line(head, widths, "<<<<"))
            head = []
        passed += found.passed
        flagged += bool(found.flag)
        why = _(": ").join(filter(None, (found.wrong, found.reason)))
        to_read = _("read {}", found.flag) if found.flag else ""
        why = _("; ").join(filter(None, (why, to_read)))
        row = [*cells, _("passed") if found.passed else _("FAILED"), display.one_line(why)]
        print(display.line(row, widths, "<<<<"), flush=True)
        yield found
    total = [_("{} of {} passed", passed, len(submissions))]
    total += [_("to read: {}", flagged)] if flagged else []
    print(_("; ").join(total))


def _cell(name: str) -> str:
    """A name in its column: spaces that could separate columns are also escaped."""
    name = display.shortened(display.printable(name), WIDEST)
    return re.sub("  +", lambda spaces: r"\x20" * len(spaces[0]), name)


def _values(verdict: Any) -> dict[str, Any]:
    wrong: Sequence[str] = verdict.wrong
    return {
        "exercise": verdict.exercise,
        "passed": verdict.passed,
        "wrong": list(wrong),
        "reason": verdict.reason,
        "hints": list(verdict.hints),
    }
