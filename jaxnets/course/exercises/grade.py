"""Grades a folder of submissions: each runs in a separate sandbox, which answers with arrays.

The judge stays in this process. It compares the arrays with the right ones. So nothing that a
submission prints, patches or exits with makes it pass, and nothing ends or changes another row.
"""

import ast
import collections
import json
import os
import pickle
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.base.display import one_line, shortened
from jaxnets.base.errors import RunFailedError, UserError, first_line
from jaxnets.base.language import _, spoken
from jaxnets.course.exercises.catalogue import BETS, BY_FUNCTION, imports_of
from jaxnets.course.exercises.compute import RIGHT, check_sheet
from jaxnets.course.exercises.files import (
    exercises_in,
    parse_exercise,
    read_source,
    suspicion,
    violation,
)
from jaxnets.course.exercises.judge import Case, cases_of, verdict
from jaxnets.course.exercises.sandbox import MOST_ANSWER, Limits, Outcome, Sandbox

ENDINGS, HIDDEN = (".py", ".toml"), (".", "__")
MAX_REASON = 200  # Characters of what a submission says.
# Beyond those that JAX has at its first program: its compiler starts more, one for each core.
MOST_PROCESSES = 8 + (os.cpu_count() or 1)


class Check(NamedTuple):
    """One number of a sheet, or one array that a function returns."""

    name: str
    right: bool
    note: str = ""  # What is wrong with it.


class Grade(NamedTuple):
    """The result of one exercise of one student."""

    name: str
    exercise: str  # "" if a student has handed in nothing.
    passed: bool
    wrong: str = ""  # The first wrong array, or number.
    reason: str = ""
    checks: tuple[Check, ...] = ()  # Empty if nothing could be compared.
    file: str = ""
    student: str = ""  # The student whose numbers a sheet holds; "" means everybody's.
    flag: str = ""  # What a teacher should read in the file, passed or not.


class Submission(NamedTuple):
    """One exercise in a student's file, before it is graded."""

    name: str  # The student's.
    exercise: str  # As in Grade; the file's name if it has no exercise.
    source: str = ""
    grade: Grade | None = None  # Set if nothing need run.
    file: str = ""
    flag: str = ""


def submissions_in(folder: str) -> list[Submission]:
    """Every exercise of a folder: one file or one folder for each student.

    A folder without an exercise is a student who has handed in nothing. Files that a system adds,
    such as .DS_Store or __MACOSX, are left out.

    Raises:
      UserError: There is no such folder, or it is empty.
    """
    if not Path(folder).is_dir():
        raise UserError("{}: expected a folder of submissions", folder)
    found = []
    for entry in sorted(Path(folder).iterdir()):
        name, files = entry.stem, [entry]
        if entry.name.startswith(HIDDEN):
            continue
        if entry.is_dir() and not entry.is_symlink():  # A link leads to no submission.
            try:
                name, files = entry.name, sorted(entry.iterdir())
            except OSError as error:
                found.append(_failed(entry.name, entry, str(error.strerror)))
                continue
            files = [path for path in files if not path.name.startswith(HIDDEN)]
            if not any(path.suffix in ENDINGS for path in files):
                nothing = Grade(name, "", False, reason=_("no .py or .toml file"))
                found.append(Submission(name, "", grade=nothing))
        for path in files:
            if path.suffix in ENDINGS:
                found += _submissions(name, path)
    if not found:
        raise UserError(
            "{}: expected .py or .toml files, one for each student, or a folder for each", folder
        )
    return found


def _submissions(name: str, path: Path) -> list[Submission]:
    """The submissions in one file; an error in the file fails only this file."""
    try:
        source = read_source(str(path))
        if path.suffix == ".toml":
            grade = _grade_of_sheet(name, path, source)
            return [Submission(name, grade.exercise, grade=grade, file=path.name)]
        functions, reason = exercises_in(source, path.name)
    except Exception as error:
        return [_failed(name, path, first_line(error))]
    tree, found = parse_exercise(source), []
    assert isinstance(tree, ast.Module)  # Or there would be no functions.
    for function in functions:
        if why := reason or violation(tree, _importable(function, functions)):
            found.append(_failed(name, path, why, function))
        else:
            found.append(Submission(name, function, source, None, path.name, suspicion(tree)))
    return found


def _failed(name: str, path: Path, reason: str, exercise: str = "") -> Submission:
    exercise = exercise or path.name
    reason = reason.removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
    grade = Grade(name, exercise, False, reason=_short(reason))
    return Submission(name, exercise, grade=grade, file=path.name)


def _short(text: str) -> str:
    return shortened(one_line(text), MAX_REASON)


def _grade_of_sheet(name: str, path: Path, source: str) -> Grade:
    sheet, answered = check_sheet(source, path.name)
    checks = []
    for row in answered:
        # After a bet the judge says what happened, which is the answer.
        note = "" if sheet.name in BETS else row.note
        note = _(": ").join(filter(None, (_(row.verdict), note)))
        checks.append(Check(row.name, row.verdict == RIGHT, _short(note)))
    missed = [check.name for check in checks if not check.right]
    right = _("{} of {} right", len(checks) - len(missed), len(checks)) if missed else ""
    whose = _("numbers of {}", sheet.student) if sheet.student else ""
    reason = _("; ").join(filter(None, (right, whose)))
    wrong = missed[0] if missed else ""
    grade = Grade(name, sheet.name, not missed, wrong, reason, tuple(checks))
    return grade._replace(student=sheet.student)


def _importable(function: str, beside: Sequence[str]) -> frozenset[str]:
    """The names of jaxnets that a function may import.

    These are the imports of its own exercise, and those of the other exercises in its file that
    are not backward passes.
    """
    others = {name for other in beside for name in imports_of(BY_FUNCTION[other])}
    harmless = {name for name in others if name.rpartition(".")[2] not in BY_FUNCTION}
    return imports_of(BY_FUNCTION[function]) | harmless


def grades_of(
    submissions: Sequence[Submission], limits: Limits, sandbox: Sandbox
) -> Generator[Grade, None, None]:
    """Yields a grade for each submission, in their order, as soon as it is known.

    Several sandboxes run at a time; JAX computes only in this thread.

    Raises:
      UserError: The sandbox is not installed, or cannot start.
      RunFailedError: The process of a submission did not start.
    """
    if any(submission.grade is None for submission in submissions):
        sandbox.check()
    judges: dict[str, list[Case]] = {}
    running: collections.deque[tuple[Submission, bytes, Future[Outcome] | None]]
    running = collections.deque()

    def next_grade() -> Grade:
        submission, task, started = running.popleft()
        if started is None:
            return _of_file(submission)
        outcome = started.result()
        if outcome.killed or not outcome.started:
            # Another process may have taken the machine's memory: run it once more, alone.
            wait([other for _one, _task, other in running if other])
            outcome = sandbox.run(task, limits)
        return _grade(submission, outcome, judges[submission.exercise], limits)

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        try:
            for submission in submissions:
                task, started = b"", None
                if submission.grade is None:
                    name = submission.exercise
                    judges[name] = cases = judges.get(name) or cases_of(name)
                    task = task_of(submission, cases, limits, sandbox)
                    started = pool.submit(sandbox.run, task, limits)
                running.append((submission, task, started))
                while len(running) > workers:
                    yield next_grade()
            while running:
                yield next_grade()
        finally:  # Nothing may run on after Ctrl-C.
            pool.shutdown(wait=False, cancel_futures=True)
            sandbox.end()


def task_of(
    submission: Submission, cases: Sequence[Case], limits: Limits, sandbox: Sandbox
) -> bytes:
    """A submission as child.py takes it."""
    task = {
        "source": submission.source,
        "name": submission.exercise,
        "language": spoken(),
        "calls": [case.call for case in cases],
        "seconds": limits.seconds,
        "memory": limits.memory << 20,
        "processes": MOST_PROCESSES if sandbox.limits_processes else None,
    }
    return pickle.dumps(task)


def _of_file(submission: Submission) -> Grade:
    """The grade of a submission that need not run."""
    assert submission.grade
    return submission.grade._replace(file=submission.file)


def _grade(
    submission: Submission, outcome: Outcome, cases: Sequence[Case], limits: Limits
) -> Grade:
    """The grade of a submission that has run."""
    name, exercise, _source, _none, file, flag = submission
    failed = Grade(name, exercise, False, file=file, flag=flag)
    if not outcome.started:
        said = _short(outcome.said.decode(errors="replace")) or "it said nothing"
        who = f"{name}: {exercise}"
        raise RunFailedError("{}: its process did not start, so there is no verdict: {}", who, said)
    answers = answers_in(outcome, cases, limits)
    if isinstance(answers, str):
        return failed._replace(reason=_short(answers))
    try:
        found = verdict(exercise, cases, answers)
    except Exception as error:  # It fails only its own row.
        fault = f"{type(error).__name__}: {first_line(error)}"
        return failed._replace(reason=_short(_("it cannot be graded: {}", fault)))
    names = dict.fromkeys(case.call.gradient_name(leaf) for case in cases for leaf in case.right)
    checks = tuple(Check(one, one not in found.wrong) for one in names)
    wrong = found.wrong[0] if found.wrong else ""
    reason = _short(found.reason)
    return failed._replace(passed=found.passed, wrong=wrong, reason=reason, checks=checks)


def answers_in(
    outcome: Outcome, cases: Sequence[Case], limits: Limits
) -> list[dict[str, np.ndarray]] | str:
    """The arrays of a submission that has run, or why there are none."""
    if outcome.timed_out:
        return _("it was still running when its time was over")
    if len(outcome.said) > MOST_ANSWER:
        return _("its answer is too long")
    if not outcome.said:
        return _(
            "it ended without an answer: its process ended itself, or exceeded {} s or {} MiB",
            limits.seconds,
            limits.memory,
        )
    return arrays_of(outcome.said, cases)


def arrays_of(said: bytes, cases: Sequence[Case]) -> list[dict[str, np.ndarray]] | str:
    """Reads an answer in JSON that may be forged: arrays of the right shapes, or a reason."""
    try:
        values: Any = json.loads(said)
        if isinstance(values, dict):
            return str(values["reason"])
        rows = [
            {name: np.asarray(value, np.float64) for name, value in row.items()} for row in values
        ]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return _("its answer cannot be read")
    if [set(row) for row in rows] != [set(case.right) for case in cases]:
        return _("its answer does not have the gradients that were asked for")
    for row, case in zip(rows, cases, strict=True):
        for name, right in case.right.items():
            if row[name].shape != right.shape:
                label = case.call.gradient_name(name)
                return _("{}: expected the shape {}, got {}", label, right.shape, row[name].shape)
    return rows
