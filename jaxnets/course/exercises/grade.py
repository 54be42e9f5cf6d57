"""Grades a folder of submissions: each runs in a separate sandbox, which answers with arrays.

The judge stays in this process. It compares the arrays with the right ones. So nothing that a
submission prints, patches or exits with makes it pass, and nothing ends or changes another row.
"""

import ast
import os
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from jaxnets.base.display import one_line, shortened
from jaxnets.base.errors import RunFailedError, UserError, first_line
from jaxnets.base.language import N_, _
from jaxnets.course.exercises.alike import Alike, alike
from jaxnets.course.exercises.apart import answers_in, task_of
from jaxnets.course.exercises.catalogue import BETS
from jaxnets.course.exercises.compute import check_sheet
from jaxnets.course.exercises.files import (
    exercises_in,
    importable,
    parse_exercise,
    read_source,
    suspicion,
)
from jaxnets.course.exercises.judge import Case, cases_of, is_misshapen, verdict
from jaxnets.course.exercises.sandbox import Limits, Outcome, Sandbox

ENDINGS, HIDDEN = (".py", ".toml"), (".", "__")
MAX_REASON = 200  # Characters of what a submission says.


class Check(NamedTuple):
    """One number of a sheet, or one array that a function returns."""

    name: str
    right: bool  # Of a bet: whether it is made.
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
    alike: Alike = ()  # The other students with the same code, or nearly the same.


class Submission(NamedTuple):
    """One exercise in a student's file, before it is graded."""

    name: str  # The student's.
    exercise: str  # As in Grade; the file's name if it has no exercise.
    source: str = ""
    grade: Grade | None = None  # Set if nothing need run.
    file: str = ""
    flag: str = ""
    given: frozenset[str] = frozenset()  # The names of jaxnets that its file may import.
    alike: Alike = ()


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
    return _with_others_alike(found)


def _with_others_alike(submissions: Sequence[Submission]) -> list[Submission]:
    """The submissions, each with the students whose code is like its own."""
    sources: dict[str, dict[str, str]] = {}
    for one in submissions:
        if one.grade is None:
            sources.setdefault(one.exercise, {})[one.name] = one.source
    found = {exercise: alike(exercise, by_name) for exercise, by_name in sources.items()}
    return [
        one._replace(alike=found.get(one.exercise, {}).get(one.name, ())) for one in submissions
    ]


def _submissions(name: str, path: Path) -> list[Submission]:
    """The submissions in one file; an error in the file fails only this file."""
    try:
        source = read_source(str(path))
        if path.suffix == ".toml":
            grade = _grade_of_sheet(name, path, source)
            return [Submission(name, grade.exercise, grade=grade, file=path.name)]
        functions = exercises_in(source, path.name)
    except Exception as error:
        return [_failed(name, path, first_line(error))]
    tree, found = parse_exercise(source), []
    assert isinstance(tree, ast.Module)  # Or there would be no functions.
    flag = suspicion(tree)
    for function, why in functions.items():
        if why:
            found.append(_failed(name, path, why, function))
        else:
            given = importable(function, list(functions))
            found.append(Submission(name, function, source, None, path.name, flag, given))
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
        checks.append(Check(row.name, row.passed, _short(note)))
    missed = [check.name for check in checks if not check.right]
    counts = len(checks) - len(missed), len(checks)
    said = N_("{} of {} bets made") if sheet.name in BETS else N_("{} of {} right")
    right = _(said, *counts) if missed else ""
    whose = _("numbers of {}", sheet.student) if sheet.student else ""
    reason = _("; ").join(filter(None, (right, whose)))
    wrong = missed[0] if missed else ""
    grade = Grade(name, sheet.name, not missed, wrong, reason, tuple(checks))
    return grade._replace(student=sheet.student)


def grades_of(
    submissions: Sequence[Submission], limits: Limits, sandbox: Sandbox
) -> Generator[tuple[int, Grade], None, None]:
    """Yields a grade for each submission, with its place in their order, as soon as it is known.

    Those that need not run come first. Several sandboxes run at a time, so that none waits for one
    that never ends; JAX computes only in this thread.

    Raises:
      UserError: The sandbox is not installed, or cannot start.
      RunFailedError: The process of a submission did not start.
    """
    to_run = [index for index, one in enumerate(submissions) if one.grade is None]
    if to_run:
        sandbox.check()
    yield from ((index, _of_file(one)) for index, one in enumerate(submissions) if one.grade)
    judges: dict[str, list[Case]] = {}
    running: dict[Future[Outcome], tuple[int, bytes]] = {}

    def next_grades() -> Generator[tuple[int, Grade], None, None]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            index, task = running.pop(future)
            submission, outcome = submissions[index], future.result()
            if outcome.killed or not outcome.started:
                # Another process may have taken the machine's memory: run it once more, alone.
                wait(running)
                outcome = sandbox.run(task, limits)
            yield index, _grade(submission, outcome, judges[submission.exercise], limits)

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in to_run:
                one = submissions[index]
                judges[one.exercise] = cases = judges.get(one.exercise) or cases_of(one.exercise)
                task = task_of(one.exercise, one.source, one.given, cases, limits, sandbox)
                running[pool.submit(sandbox.run, task, limits)] = index, task
                while len(running) > workers:
                    yield from next_grades()
            while running:
                yield from next_grades()
        finally:  # Nothing may run on after Ctrl-C.
            pool.shutdown(wait=False, cancel_futures=True)
            sandbox.end()


def _of_file(submission: Submission) -> Grade:
    """The grade of a submission that need not run."""
    assert submission.grade
    return submission.grade._replace(file=submission.file)


def _grade(
    submission: Submission, outcome: Outcome, cases: Sequence[Case], limits: Limits
) -> Grade:
    """The grade of a submission that has run."""
    name, exercise = submission.name, submission.exercise
    facts = {"file": submission.file, "flag": submission.flag, "alike": submission.alike}
    failed = Grade(name, exercise, False, **facts)
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
    checks = ()
    if not any(is_misshapen(*pair) for pair in zip(cases, answers, strict=True)):
        names = (case.call.gradient_name(leaf) for case in cases for leaf in case.right)
        checks = tuple(Check(one, one not in found.wrong) for one in dict.fromkeys(names))
    wrong = found.wrong[0] if found.wrong else ""
    reason = _short(found.reason)
    return failed._replace(passed=found.passed, wrong=wrong, reason=reason, checks=checks)
