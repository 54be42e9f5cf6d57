"""A sheet's numbers: what NumPy computes from them, and how a student's numbers are drawn."""

import functools
import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnets.base.errors import UserError

# Relative to a number's size, or to 1 if that is larger: three digits after the point are enough.
TOLERANCE = 1e-3
NAME = re.compile(r"\w[\w.@'-]{0,60}( [\w.@'-]+){0,5}")
TRIES = 20_000  # In the worst case, a sheet accepts one draw in a thousand.


def value_of(expression: str, names: Mapping[str, Any]) -> Any:
    """The value of a sheet's expression, in which np is NumPy."""
    with np.errstate(all="ignore"):
        return eval(_compiled(expression), {"np": np}, dict(names))


@functools.cache
def _compiled(expression: str) -> Any:
    return compile(expression, "a sheet", "eval")


def values_of(numbers: Mapping[str, Any], expressions: Mapping[str, str]) -> dict[str, Any]:
    """The numbers, lists as arrays, and each expression's value, which the next ones may use."""
    found = {
        name: np.array(value, float) if isinstance(value, list) else value
        for name, value in numbers.items()
    }
    for name, expression in expressions.items():
        found[name] = value_of(expression, found)
    return found


def without_noise(value: Any) -> Any:
    """A number, or lists of numbers, with 0 where rounding leaves a tiny number."""
    array = np.asarray(value, float)
    return np.where(np.abs(array) < 1e-12, 0.0, array).tolist()


def shown(value: Any) -> str:
    """A number in six digits, or rows of numbers such as [1, 2]."""
    value = without_noise(value)
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:.6g}"


def near(given: Any, wanted: Any) -> bool:
    """Whether two answers are the same number by number, up to TOLERANCE."""
    given, wanted = np.asarray(given, float), np.asarray(wanted, float)
    if given.shape != wanted.shape:
        return False
    return bool((np.abs(given - wanted) <= TOLERANCE * np.maximum(1, np.abs(wanted))).all())


def student_called(name: str) -> str:
    """A student's name with single spaces.

    Raises:
      UserError: It is not a valid name.
    """
    name = " ".join(name.split())
    if not NAME.fullmatch(name):
        raise UserError(
            "student: expected a name or number, such as ada or 2024-117, got {}", repr(name)
        )
    return name


def draw_numbers(
    exercise: str,
    student: str,
    numbers: Mapping[str, Any],
    draw: Mapping[str, Sequence[Any]],
    takes: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """A student's own numbers, the same in every process and version of Python.

    Args:
      exercise: The sheet's name.
      student: The student's name; capital letters do not matter.
      numbers: Everybody's numbers, which no student gets.
      draw: The values from which each element of a number, or the whole number, is drawn.
      takes: Whether the sheet can be computed by hand with these numbers.
    """
    seed = hashlib.sha256(f"{exercise}/{student.casefold()}".encode()).digest()
    uniform = random.Random(int.from_bytes(seed, "big")).random
    for _try in range(TRIES):
        found = {
            name: _draw_like(value, draw[name], uniform) if name in draw else value
            for name, value in numbers.items()
        }
        if found != numbers and takes(found):
            return found
    raise AssertionError(f"{exercise}: no numbers for {student}")


def _draw_like(like: Any, choices: Sequence[Any], uniform: Callable[[], float]) -> Any:
    if np.ndim(like) == np.ndim(choices[0]):
        return choices[int(uniform() * len(choices))]
    return [_draw_like(part, choices, uniform) for part in like]
