"""Grades a folder of submissions: each runs in a process of its own, which answers with arrays.

The judge stays in this process. It compares the arrays with the right ones, so nothing that a
submission prints, patches or exits with makes it pass.
"""

import json
import math
import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.display import one_line
from jaxnets.errors import UserError
from jaxnets.exercises.child import STARTED, Task
from jaxnets.exercises.compute import check_sheet
from jaxnets.exercises.confine import can_confine
from jaxnets.exercises.files import exercises_in, read_source
from jaxnets.exercises.judge import Case, cases_of, verdict

MAX_ANSWER = 1 << 24  # Bytes; the largest right answer has 60 kB.
MAX_REASON = 200  # Characters of what a submission says.
START = 300  # Seconds until a child has imported JAX, on a busy machine.


class Grade(NamedTuple):
    """What became of one exercise of one student."""

    name: str
    exercise: str
    passed: bool
    wrong: str = ""  # The first wrong array, or number.
    reason: str = ""


class Limits(NamedTuple):
    """What a submission may use."""

    seconds: int = 20  # Of a processor.
    memory: int = 2048  # MiB.
    wait: float = 200.0  # Seconds until it is ended, whatever it waits for.


def grade_folder(folder: str, limits: Limits, *, confined: bool = True) -> Iterator[Grade]:
    """Yields the grades of a folder: one file or one folder for each student.

    Raises:
      UserError: There is no such folder, or this system cannot confine a process.
    """
    if os.name != "posix":
        raise UserError("grade needs Linux or macOS; on Windows, WSL has it")
    if confined and not can_confine():
        raise UserError(
            "expected Linux on x86-64, where a submission can be confined, got another system; "
            "--no_confined runs them with limits alone"
        )
    judges: dict[str, list[Case]] = {}
    for name, path in _submissions(Path(folder)):
        try:
            source = read_source(str(path))
        except UserError as error:
            yield Grade(name, path.name, False, reason=_short(str(error), path))
            continue
        if path.suffix == ".toml":
            yield _grade_sheet(name, path, source)
        else:
            yield from _grade_source(name, path, source, judges, limits, confined)


def _submissions(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each student's files; a link leads to no submission."""
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of submissions")
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            found += [(entry.name, path) for path in sorted(entry.iterdir())]
        else:
            found.append((entry.stem, entry))
    found = [(name, path) for name, path in found if path.suffix in (".py", ".toml")]
    if not found:
        raise UserError(f"{folder}: expected files .py or .toml, one student each, or in folders")
    yield from found


def _grade_sheet(name: str, path: Path, source: str) -> Grade:
    try:
        exercise, answered = check_sheet(source, path.name)
    except UserError as error:
        return Grade(name, path.name, False, reason=_short(str(error), path))
    missed = [row for row in answered if row.verdict != "right"]
    if not missed:
        return Grade(name, exercise, True)
    right = len(answered) - len(missed)
    return Grade(name, exercise, False, missed[0].name, f"{right} of {len(answered)} right")


def _grade_source(
    name: str,
    path: Path,
    source: str,
    judges: dict[str, list[Case]],
    limits: Limits,
    confined: bool,
) -> Iterator[Grade]:
    try:
        functions, reason = exercises_in(source, path.name)
    except UserError as error:
        yield Grade(name, path.name, False, reason=_short(str(error), path))
        return
    for function in functions:
        if reason:
            yield Grade(name, function, False, reason=_short(reason, path))
            continue
        if function not in judges:
            judges[function] = cases_of(function)
        cases = judges[function]
        answers = run_confined(source, function, cases, limits, confined=confined)
        if isinstance(answers, str):
            yield Grade(name, function, False, reason=_short(answers, path))
            continue
        found = verdict(function, cases, answers)
        wrong = found.wrong[0] if found.wrong else ""
        yield Grade(name, function, found.passed, wrong, _short(found.reason, path))


def _short(text: str, path: Path) -> str:
    text = one_line(text.removeprefix(f"{path}: ").removeprefix(f"{path.name}: "))
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def run_confined(
    source: str, function: str, cases: Sequence[Case], limits: Limits, *, confined: bool = True
) -> list[dict[str, np.ndarray]] | str:
    """Runs a submission in a process of its own; its arrays, or why there are none."""
    calls = [case.call for case in cases]
    memory = limits.memory << 20
    task = pickle.dumps(Task(source, function, calls, limits.seconds, memory, confined))
    root = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {root!r})\n"
    code += "from jaxnets.exercises.child import main; main()"
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    env = {**kept, "JAX_PLATFORMS": "cpu", "HOME": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        cwd=root,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin and process.stdout
            process.stdin.write(task)
            process.stdin.close()
            answer = _read(process.stdout.fileno(), limits.wait)
        except BrokenPipeError:
            answer = "its process did not start"
        finally:
            process.kill()
    if isinstance(answer, str):
        return answer
    return _arrays(answer, cases) if answer else _how_it_ended(process.wait(), limits)


def _how_it_ended(status: int, limits: Limits) -> str:
    return (
        f"it ended without an answer (status {status}): its process ended itself, or passed "
        f"{limits.seconds} s or {limits.memory} MiB"
    )


def _read(file: int, wait: float) -> bytes | str:
    """What a child writes after it has started, b"" if it ended first."""
    parts: list[bytes] = []
    size, started, deadline = 0, False, time.monotonic() + START
    while True:
        ready, _, _ = select.select([file], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return "it was still running: its time is over" if started else "it did not start"
        part = os.read(file, 1 << 16)
        if not part:
            content = b"".join(parts)
            return content.removeprefix(STARTED) if started else "its process did not start"
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            return "it answered with more than is right"
        if not started and b"".join(parts).startswith(STARTED):
            started, deadline = True, time.monotonic() + wait


def _arrays(answer: bytes, cases: Sequence[Case]) -> list[dict[str, np.ndarray]] | str:
    """Reads an answer that may be forged: a line of JSON, then numbers in float64."""
    head, _, content = answer.partition(b"\n")
    try:
        values = json.loads(head)
        if isinstance(reason := values.get("reason"), str):
            return reason
        rows = [
            {str(name): tuple(map(_size, shape)) for name, shape in row.items()}
            for row in values["shapes"]
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "its answer cannot be read"
    if [set(row) for row in rows] != [set(case.right) for case in cases]:
        return "its answer has not the gradients that were asked for"
    if 8 * sum(math.prod(shape) for row in rows for shape in row.values()) != len(content):
        return "its answer has not the size that it says"
    return list(_split(rows, content))


def _size(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_ANSWER:
        raise ValueError(f"no size: {value}")
    return value


def _split(
    rows: Sequence[Mapping[str, tuple[int, ...]]], content: bytes
) -> Iterator[dict[str, np.ndarray]]:
    start = 0
    for row in rows:
        found = {}
        for name, shape in row.items():
            count = math.prod(shape)
            found[name] = np.frombuffer(content, "<f8", count, start).reshape(shape)
            start += 8 * count
        yield found
