"""What the commands of the exercises print, and whether the student has passed."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxnets.base import display
from jaxnets.base.errors import DONE, RUN_FAILED, UserError
from jaxnets.base.files import mkdir, output_path, write_text
from jaxnets.base.language import N_, _
from jaxnets.config.command import CommandResult
from jaxnets.course.exercises.catalogue import (
    EXERCISES,
    IDEAS,
    PARTS,
    WEEKS,
    Sheet,
    check_command,
    exercise_called,
)
from jaxnets.course.exercises.compute import RIGHT, check_sheet
from jaxnets.course.exercises.files import read_source

# What `grade` prints.
TABLE, GRADESCOPE, NBGRADER = "table", "gradescope", "nbgrader"
WIDEST = 60  # Characters of a name in a table.
FACTS = N_("name"), N_("kind"), N_("level"), N_("minutes"), N_("about")


TITLES = {
    "course": N_("The course, week by week: {} exercises, {} minutes"),
    "optional": N_("Optional, by idea: {}, {} minutes"),
    "expert": N_("Optional, bugs for experts: {}, {} minutes"),
}


@dataclasses.dataclass(frozen=True)
class Said(CommandResult):
    """An answer in the language that was spoken when it was found."""

    found: Any
    lines: str
    passed: bool = True

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


def listing() -> Said:
    """Every exercise in its order, in a table for each of PARTS."""
    ideas = {name: idea for idea, names in IDEAS.items() for name in names}
    weeks = {name: number for number, names in enumerate(WEEKS, 1) for name in names}
    values, lines = [], []
    for part, names in PARTS.items():
        in_course = part == "course"
        rows = [[*([_("week")] if in_course else []), *map(_, FACTS), _("idea")]]
        for name in names:
            found, week, idea = EXERCISES[name], weeks.get(name), ideas[name]
            facts = {fact: getattr(found, fact) for fact in FACTS}
            values.append(facts | {"part": part, "week": week, "idea": idea})
            number = [str(week)] if week else []
            effort = [str(found.level), str(found.minutes)]
            rows.append([*number, name, _(found.kind), *effort, _(found.about), _(idea)])
        minutes = sum(EXERCISES[name].minutes for name in names)
        table = display.table(rows, ">" * in_course + "<<>><<")
        lines += [_(TITLES[part], len(names), minutes), "", *table, ""]
    lines.append(_("jaxnets exercise new NAME writes one into a file"))
    return Said(values, "\n".join(lines))


def write(name: str, output: str | None, student: str | None = None) -> Said:
    """Writes an exercise into a file, never over another one.

    Args:
      name: The exercise.
      output: The file; None names it after the exercise.
      student: Whose numbers a sheet has; None are everybody's.

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
    return Said({"file": str(path), "command": checks, "note": note}, "\n".join(lines))


def _write_new(path: Path, text: str) -> None:
    """Writes a file that was not there.

    Raises:
      UserError: It was, or its folder was not.
      OSError: It cannot be written; then it is not there.
    """
    if path.exists() or path.is_symlink():
        file = display.short_path(str(path))
        raise UserError("{} is there already; expected a new name: --output=FILE", file)
    write_text(output_path(str(path)), text)


def answers(name: str | None, student: str | None, output: str | None) -> Said:
    """The answers to one exercise or to all; the file's name if one is written.

    Args:
      name: The exercise; None means all.
      student: Whose numbers the sheets have; None are everybody's.
      output: The file to write; None writes none.
    """
    from jaxnets.course.exercises.answers import answer_to

    found = [answer_to(one, student or "") for one in ([name] if name else EXERCISES)]
    text = "\n\n\n".join(part for _values, part in found)
    if output:
        _write_new(Path(output), text + "\n")
        text = _("wrote {}", display.short_path(output))
    return Said([values for values, _part in found], text)


def check_numbers(path: str, hint: bool) -> Said:
    """Checks the numbers of a sheet."""
    sheet, found = check_sheet(read_source(path), path)
    right = sum(answered.verdict == RIGHT for answered in found)
    passed = right == len(found)
    hints = {question.name: question.hint for question in sheet.questions}
    lines = []
    for answered in found:
        line = f"{answered.name:12} {_(answered.verdict)}"
        line += _(": ") + answered.note if answered.note else ""
        if hint and answered.verdict != RIGHT:
            line += _(" (hint: {})", sheet.said(hints[answered.name]))
        lines.append(line)
    verdict = _("passed") if passed else _("FAILED")
    whose = _("{} (numbers of {})", sheet.name, sheet.student) if sheet.student else sheet.name
    lines.append(_("{}: {}, {} of {} right", whose, verdict, right, len(found)))
    values = {
        "exercise": sheet.name,
        "student": sheet.student or None,
        "passed": passed,
        "answers": [row._asdict() for row in found],
    }
    return Said(values, "\n".join(lines), passed)


def check_mine(path: str, hint: bool) -> Said:
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
    return Said(values, "\n".join(lines), all(verdicts))


def grade(
    folder: str,
    limits: Any,
    sandbox: Any,
    as_json: bool = False,
    *,
    exercises: Sequence[str] = (),
    as_format: str = TABLE,
    csv: str | None = None,
    feedback: str | None = None,
) -> None:
    """Grades a folder of submissions, and prints each row as soon as it is known.

    Args:
      folder: The folder.
      limits: sandbox.Limits.
      sandbox: sandbox.Sandbox.
      as_json: Whether the rows are the objects of a list in JSON, else the lines of a table.
      exercises: Those of the assignment, as marks.points_of takes them; () is all.
      as_format: TABLE, or what is printed in the end instead of rows: GRADESCOPE or NBGRADER.
      csv: The file for the table of points, a row a student.
      feedback: The folder for a text to each student.
    """
    from jaxnets.course.exercises import marks
    from jaxnets.course.exercises.grade import grades_of, submissions_in
    from jaxnets.machine.platform import set_up_jax

    points = marks.points_of(exercises)
    csv_path = output_path(csv, "csv") if csv else None
    folder_of_texts = _outside(feedback, folder) if feedback else None
    submissions = submissions_in(folder)
    if as_format == GRADESCOPE and len(count := {found.name for found in submissions}) != 1:
        raise UserError("format: expected one student for {}, got {}", GRADESCOPE, len(count))
    set_up_jax(keep_memory=False)
    grades: Iterable[Any] = grades_of(submissions, limits, sandbox)
    if as_format == TABLE:
        grades = _json_rows(grades) if as_json else _table_rows(submissions, grades)
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
        raise UserError("feedback: expected a folder, {} is none", feedback)
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
    """A name in its column: spaces that could separate columns are escaped, too."""
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
