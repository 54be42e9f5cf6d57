"""Reads a student's file, and finds the exercises in it."""

import os
import stat

from jaxnets.course.exercises.catalogue import exercise_of_function, exercises
from jaxnets.course.exercises.new import imports_of
from jaxnets.course.exercises.rules import MAX_SOURCE, functions_of, parse_exercise, violation
from jaxnets.errors import UserError, did_you_mean


def read_source(path: str) -> str:
    """Reads a regular file that is no link.

    Raises:
      UserError: It is none, too large, or no text.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _without_waiting())
    except OSError as error:
        raise UserError(f"{path}: expected a file of yours: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UserError(f"{path}: expected a file, got a folder or a device")
        with open(file, "rb", closefd=False) as opened:
            content = opened.read(4 * MAX_SOURCE + 1)
    finally:
        os.close(file)
    try:
        source = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected a text in UTF-8: {error.reason}") from error
    if len(source) > MAX_SOURCE:
        raise UserError(f"{path}: expected at most {MAX_SOURCE:,} characters")
    return source


def _without_waiting() -> int:
    return getattr(os, "O_NONBLOCK", 0)  # A named pipe would keep the reader waiting.


def exercises_in(source: str, path: str) -> tuple[list[str], str]:
    """The functions that are exercises, and why they cannot be judged: "" if they can.

    Raises:
      UserError: There is none.
    """
    tree = parse_exercise(source)
    if isinstance(tree, str):
        raise UserError(f"{path}: {tree}")
    defined = functions_of(tree)
    known = {exercise.function for exercise in exercises().values()} - {""}
    names = list(dict.fromkeys(name for name in defined if name in known))
    if not names:
        hint = next(filter(None, (did_you_mean(name, known) for name in defined)), "")
        got = ", ".join(defined) or "none"
        wanted = "expected a function of an exercise, as dense_backward or bug15"
        raise UserError(f"{path}: {wanted}, got {got}{hint} (jaxnets exercise lists all)")
    allowed = frozenset().union(*(imports_of(exercise_of_function(name)) for name in names))
    return names, violation(tree, allowed) or ""
