"""Grades a folder of submissions: each runs in a sandbox of its own, which answers with arrays.

The judge stays in this process. It compares the arrays with the right ones, so nothing that a
submission prints, patches or exits with makes it pass, and nothing ends or changes another's row.
"""

import ast
import collections
import contextvars
import functools
import json
import os
import pickle
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.course.exercises import child
from jaxnets.course.exercises.catalogue import BETS, BY_FUNCTION, imports_of
from jaxnets.course.exercises.compute import RIGHT, check_sheet
from jaxnets.course.exercises.files import exercises_in, read_source
from jaxnets.course.exercises.judge import Case, cases_of, verdict
from jaxnets.course.exercises.sandbox import Running, Sandbox
from jaxnets.course.exercises.sources import sources_of
from jaxnets.display import one_line, shortened
from jaxnets.errors import RunFailedError, UserError, first_line
from jaxnets.language import _

ENDINGS, HIDDEN = (".py", ".toml"), (".", "__")
MAX_ANSWER = 1 << 24  # Bytes; the largest right answer has 60 kB.
MAX_HEAD = 1 << 16  # Bytes of the line before the arrays.
MAX_REASON = 200  # Characters of what a submission says.
MAX_AXES = 8
MOST_THREADS = 256  # XLA starts some more than it had at its first program.
ATTEMPTS = 2  # To start a process: another one may just have taken the last that was free.
MIB_FOR_JAX = 1024  # In a container, beside what a submission may take.


class Check(NamedTuple):
    """One number of a sheet, or one array that a function returns."""

    name: str
    right: bool
    note: str = ""  # What is wrong with it.


class Grade(NamedTuple):
    """The result of one exercise of one student."""

    name: str
    exercise: str  # "" where a student has handed in nothing.
    passed: bool
    wrong: str = ""  # The first wrong array, or number.
    reason: str = ""
    checks: tuple[Check, ...] = ()  # Empty where nothing could be compared.
    file: str = ""
    student: str = ""  # Whose numbers a sheet holds; "" are everybody's.


class Limits(NamedTuple):
    """The time and memory that a submission may use."""

    seconds: int = 20  # Of a processor.
    memory: int = 2048  # MiB.
    wait: float = 200.0  # Seconds until it is ended, whatever it waits for.


class Submission(NamedTuple):
    """One exercise in a student's file, before it is graded."""

    name: str  # The student's.
    exercise: str  # As in Grade; the file's name where it has none.
    source: str = ""
    imports: frozenset[str] = frozenset()  # The names of jaxnets that it may import, in full.
    grade: Grade | None = None  # Set where nothing need run.
    file: str = ""


def submissions_in(folder: str) -> list[Submission]:
    """Every exercise of a folder: one file or one folder for each student.

    A folder without an exercise is a student who has handed in nothing. What a system adds, as
    .DS_Store or __MACOSX, is left out.

    Raises:
      UserError: There is no such folder, or nothing is in it.
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
                nothing = Grade(name, "", False, reason=_("no file .py or .toml"))
                found.append(Submission(name, "", grade=nothing))
        for path in files:
            if path.suffix in ENDINGS:
                found += _submissions(name, path)
    if not found:
        raise UserError("{}: expected files .py or .toml, one student each, or in folders", folder)
    return found


def _submissions(name: str, path: Path) -> list[Submission]:
    """The submissions of one file; an error in the file is a failure of this file alone."""
    try:
        source = read_source(str(path))
        if path.suffix == ".toml":
            grade = _grade_of_sheet(name, path, source)
            return [Submission(name, grade.exercise, grade=grade, file=path.name)]
        functions, reason = exercises_in(source, path.name)
    except Exception as error:
        return [_failed(name, path, first_line(error))]
    if reason:
        return [_failed(name, path, reason, function) for function in functions]
    return [
        Submission(name, function, source, _importable(function, functions), file=path.name)
        for function in functions
    ]


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
        # After a bet the judge says what happened: that is the answer.
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
    are no backward pass.
    """
    others = {name for other in beside for name in imports_of(BY_FUNCTION[other])}
    harmless = {name for name in others if name.rpartition(".")[2] not in BY_FUNCTION}
    return imports_of(BY_FUNCTION[function]) | harmless


def grades_of(
    submissions: Sequence[Submission], limits: Limits, sandbox: Sandbox
) -> Generator[Grade, None, None]:
    """Yields a grade for each submission, in their order, as soon as it is known.

    Several sandboxes run at a time; JAX computes in this thread alone.

    Raises:
      UserError: The sandbox is not installed, or cannot start.
      RunFailedError: The process of a submission did not start.
    """
    if any(submission.grade is None for submission in submissions):
        sandbox.check()
    judges: dict[str, list[Case]] = {}
    running: collections.deque[tuple[Submission, Future | None]] = collections.deque()
    workers, processes = os.cpu_count() or 1, Running()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for submission in submissions:
                started = None
                if submission.grade is None:
                    name = submission.exercise
                    judges[name] = cases = judges.get(name) or cases_of(name)
                    # Python's syntax trees want one thread at a time.
                    texts = _texts_in(_sources(submission.imports))
                    job = submission, cases, limits, sandbox, processes, texts
                    speaking = contextvars.copy_context()
                    started = pool.submit(speaking.run, run_submission, *job)
                running.append((submission, started))
                while len(running) > workers:
                    yield _grade(*running.popleft(), judges)
            while running:
                yield _grade(*running.popleft(), judges)
        finally:  # After Ctrl-C nothing runs on.
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()


def _grade(
    submission: Submission, started: Future | None, judges: Mapping[str, list[Case]]
) -> Grade:
    name, exercise, file = submission.name, submission.exercise, submission.file
    failed = Grade(name, exercise, False, file=file)
    if submission.grade is not None or started is None:
        return (submission.grade or failed)._replace(file=file)
    try:
        answers = started.result()
        if isinstance(answers, str):
            return failed._replace(reason=_short(answers))
        found = verdict(exercise, cases := judges[exercise], answers)
    except RunFailedError:
        raise
    except Exception as error:  # Its row alone.
        fault = f"{type(error).__name__}: {first_line(error)}"
        return failed._replace(reason=_short(_("it cannot be graded: {}", fault)))
    names = dict.fromkeys(case.call.gradient_name(leaf) for case in cases for leaf in case.right)
    checks = tuple(Check(one, one not in found.wrong) for one in names)
    wrong = found.wrong[0] if found.wrong else ""
    return Grade(name, exercise, found.passed, wrong, _short(found.reason), checks, file)


def run_submission(
    submission: Submission,
    cases: Sequence[Case],
    limits: Limits,
    sandbox: Sandbox,
    running: Running | None = None,
    texts: Mapping[str, str] | None = None,  # In which it says what is wrong.
) -> list[dict[str, np.ndarray]] | str:
    """Runs a submission in a sandbox; its arrays, or why there are none.

    Raises:
      RunFailedError: Its process did not start: the machine's fault, not the submission's.
    """
    task = {
        "source": submission.source,
        "name": submission.exercise,
        "sources": _sources(submission.imports),
        "texts": texts,
        "kind": type(cases[0].call).__name__,
        "calls": [tuple(case.call) for case in cases],
        "seconds": limits.seconds,
        "memory": limits.memory << 20,
        "threads": MOST_THREADS if sandbox.counts_alone else None,
    }
    for _attempt in range(ATTEMPTS):
        answer = sandbox.run(
            Path(child.__file__).read_text("utf-8"),
            pickle.dumps(task),
            memory=limits.memory + MIB_FOR_JAX,
            wait=limits.wait,
            most=MAX_ANSWER,
            running=running,
        )
        if answer is None or answer.startswith(child.STARTED):
            break
    else:
        said = _short(answer.decode(errors="replace")) or "it said nothing"
        who = f"{submission.name}: {submission.exercise}"
        raise RunFailedError("{}: its process did not start, which is no verdict: {}", who, said)
    if answer is None:
        return _("it was still running: its time is over")
    if len(answer) > MAX_ANSWER:
        return _("it answered with more than is right")
    return arrays_of(answer.removeprefix(child.STARTED), cases) or _(
        "it ended without an answer: its process ended itself, or passed {} s or {} MiB",
        *(limits.seconds, limits.memory),
    )


def _texts_in(sources: Mapping[str, str]) -> dict[str, str]:
    """What the texts in these sources are in the reader's language, if that is not English."""
    nodes = (node for source in sources.values() for node in ast.walk(ast.parse(source)))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant))
    return {text: said for text in texts if isinstance(text, str) and (said := _(text)) != text}


@functools.cache
def _sources(imports: frozenset[str]) -> dict[str, str]:
    passes = "jaxnets.course.exercises.passes"
    needed = [f"{passes}.Call", f"{passes}.gradients_of", f"{passes}.run_source"]
    needed += ["jaxnets.language.speak"]
    return sources_of([*needed, *sorted(imports)])


def arrays_of(answer: bytes, cases: Sequence[Case]) -> list[dict[str, np.ndarray]] | str:
    """Reads an answer that may be forged: a line of JSON, then numbers in float64.

    Nothing is computed before all shapes are the right ones. An empty answer is "".
    """
    if not answer:
        return ""
    head, _end, content = answer.partition(b"\n")
    try:
        values: Any = json.loads(head) if len(head) <= MAX_HEAD else None
        if isinstance(reason := values.get("reason"), str):
            return reason or _("it gave no reason")
        rows = [dict(row) for row in values["shapes"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return _("its answer cannot be read")
    if [set(row) for row in rows] != [set(case.right) for case in cases]:
        return _("its answer has not the gradients that were asked for")
    zipped = list(zip(rows, cases, strict=True))
    for row, case in zipped:
        for name, shape in row.items():
            if shape != list(right := case.right[name].shape):
                label = case.call.gradient_name(name)
                return _("{}: expected the shape {}, got {}", label, right, _got(shape))
    counts = [case.right[name].size for row, case in zipped for name in row]
    if 8 * sum(counts) != len(content):
        return _("its answer has not the size that it says")
    arrays = iter(np.split(np.frombuffer(content, "<f8"), np.cumsum(counts)[:-1]))
    return [
        {name: next(arrays).reshape(case.right[name].shape) for name in row} for row, case in zipped
    ]


def _got(shape: Any) -> str:
    sizes = isinstance(shape, list) and len(shape) <= MAX_AXES
    if not sizes or not all(type(size) is int and 0 <= size <= MAX_ANSWER for size in shape):
        return _("no shape")
    return str(tuple(shape))
