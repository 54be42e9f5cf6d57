"""The exercises as commands: what they print, and whether the student has passed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets import display
from jaxnets.course.exercises.catalogue import (
    BETS,
    COURSE,
    EXERCISES,
    IDEAS,
    PARTS,
    SHEETS,
    Blank,
    Bug,
    exercise_called,
)
from jaxnets.course.exercises.compute import RIGHT, check_sheet
from jaxnets.course.exercises.files import read_source
from jaxnets.errors import UserError
from jaxnets.language import N_, _

FACTS = N_("name"), N_("kind"), N_("level"), N_("minutes"), N_("about")


TITLES = {
    "course": N_("The course: {} exercises in this order, {} minutes"),
    "bugs": N_("Bugs to find next: {}, {} minutes"),
    "optional": N_("Optional, by idea: {}, {} minutes"),
    "expert": N_("Optional, bugs for experts: {}, {} minutes"),
}


def listing() -> tuple[list[dict[str, Any]], str]:
    """Every exercise in its order, as values and as a table for each of PARTS."""
    ideas = {name: idea for idea, names in IDEAS.items() for name in names}
    steps = {name: number for number, step in enumerate(COURSE, 1) for name in step.exercises}
    values, lines = [], []
    for part, names in PARTS.items():
        in_course = part == "course"
        rows = [[*([""] if in_course else []), *map(_, FACTS), _("idea")]]
        for name in names:
            found, step = EXERCISES[name], steps.get(name)
            idea = COURSE[step - 1].idea if step else ideas[name]
            facts = {fact: getattr(found, fact) for fact in FACTS}
            values.append(facts | {"part": part, "step": step, "idea": idea})
            first = step and name == COURSE[step - 1].exercises[0]
            number = [str(step) if first else ""] if in_course else []
            effort = [str(found.level), str(found.minutes)]
            rows.append([*number, name, _(found.kind), *effort, _(found.about), _(idea)])
        minutes = sum(EXERCISES[name].minutes for name in names)
        count = len(COURSE) if in_course else len(names)
        table = display.table(rows, ">" * in_course + "<<>><<")
        lines += [_(TITLES[part], count, minutes), "", *table, ""]
    lines.append(_("jaxnets exercise new NAME writes one into a file"))
    return values, "\n".join(lines)


def write(name: str, output: str | None) -> tuple[str, str]:
    """Writes an exercise into a file, never over another one.

    Args:
      name: The exercise.
      output: The file; None names it after the exercise.

    Returns:
      The file's path, and the command that checks it.

    Raises:
      UserError: The file exists, or it cannot be written.
    """
    exercise = exercise_called(name)
    path = Path(output or exercise.file)
    if path.suffix != exercise.suffix:
        raise UserError(f"output: expected a name with {exercise.suffix}, got {str(path)!r}")
    text, file = exercise.text(path.name), display.short_path(str(path))
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UserError(f"{file} is there already; expected a new name: --output=FILE") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    a_pass = isinstance(exercise, Blank | Bug)
    check = "gradcheck --mine=" if a_pass else "exercise check "
    return str(path), f"jaxnets {check}{file}"


def check_numbers(path: str, hint: bool) -> tuple[bool, dict[str, Any], str]:
    """Checks a sheet: whether all numbers are right, the values, and the lines that say so."""
    name, found = check_sheet(read_source(path), path)
    right = sum(answered.verdict == RIGHT for answered in found)
    passed = right == len(found)
    hints = {question.name: question.hint for question in (SHEETS | BETS)[name].questions}
    lines = []
    for answered in found:
        line = f"{answered.name:12} {_(answered.verdict)}"
        line += _(": ") + answered.note if answered.note else ""
        if hint and answered.verdict != RIGHT:
            line += _(" (hint: {})", _(hints[answered.name]))
        lines.append(line)
    verdict = _("passed") if passed else _("FAILED")
    lines.append(_("{}: {}, {} of {} right", name, verdict, right, len(found)))
    values = {"exercise": name, "passed": passed, "answers": [row._asdict() for row in found]}
    return passed, values, "\n".join(lines)


def check_mine(path: str, hint: bool) -> tuple[bool, list[dict[str, Any]], str]:
    """Judges the functions in a student's file, and returns what `check_numbers` does."""
    if path.endswith(".toml"):
        raise UserError(f"{path}: jaxnets exercise check {path} checks computed numbers")

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
    return all(verdicts), [_values(verdict) for verdict in verdicts], "\n".join(lines)


def grade(folder: str, limits: Any, sandbox: Any, as_json: bool) -> None:
    """Grades a folder of submissions, and prints each row as soon as it is known.

    Args:
      folder: The folder.
      limits: grade.Limits.
      sandbox: sandbox.Sandbox.
      as_json: Whether the rows are the objects of a list in JSON, else the lines of a table.
    """
    from jaxnets.course.exercises.grade import grades_of, submissions_in
    from jaxnets.machine.platform import set_up_jax

    set_up_jax(keep_memory=False)
    submissions = submissions_in(folder)
    head = ["name", "exercise", "verdict", "first wrong, or why"]
    names = [[_cell(found.name), _cell(found.exercise)] for found in submissions]
    widths = [max(map(display.width_of, column)) for column in zip(head, *names, strict=False)]
    passed, before = 0, "["
    for found, cells in zip(grades_of(submissions, limits, sandbox), names, strict=True):
        passed += found.passed
        if as_json:
            print(f"{before}\n{json.dumps(found._asdict(), indent=2)}", end="", flush=True)
            before = ","
            continue
        if head:
            print(display.line(head, [*widths[:2], 7, 0], "<<<<"))
            head = []
        why = ": ".join(filter(None, (found.wrong, found.reason)))
        row = [*cells, "passed" if found.passed else "FAILED", display.one_line(why)]
        print(display.line(row, [*widths[:2], 7, 0], "<<<<"), flush=True)
    print("\n]" if as_json else f"{passed} of {len(submissions)} passed")


def _cell(name: str) -> str:
    """A name in its column: spaces that could separate columns are escaped, too."""
    return re.sub("  +", lambda spaces: r"\x20" * len(spaces[0]), display.printable(name))


def _values(verdict: Any) -> dict[str, Any]:
    wrong: Sequence[str] = verdict.wrong
    return {
        "exercise": verdict.exercise,
        "passed": verdict.passed,
        "wrong": list(wrong),
        "reason": verdict.reason,
        "hints": list(verdict.hints),
    }
