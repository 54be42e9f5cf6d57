"""Judges the formulas that a student has derived."""

from collections.abc import Mapping

from jaxnets.course.exercises.answered import BLANK, RIGHT, WRONG, Answered
from jaxnets.course.exercises.catalogue import Derive, written
from jaxnets.course.formulas.judge import first_wrong, line_of

LONGEST = 100  # Characters of a line of NumPy that is worth reading.


def judged(exercise: Derive, filled: Mapping[str, str]) -> list[Answered]:
    """The result of each gradient: what is wrong with it, or the line of NumPy that it is.

    Args:
      exercise: The exercise.
      filled: The texts in the student's file, by their names.
    """
    return [_judged(exercise, key, _text_of(key, filled)) for key in exercise.formulas]


def _text_of(key: str, filled: Mapping[str, str]) -> str:
    """What a file says about an array, also after dW_dk = in place of dW =."""
    whole = (f"{name} = {text}" for name, text in filled.items() if name.startswith(f"{key}_"))
    text = filled.get(key, "") or next(whole, "")
    return text.strip("\"' ").replace("\\\\", "\\")


def _judged(exercise: Derive, key: str, text: str) -> Answered:
    right, layer = exercise.formulas[key], exercise.facts
    if not text:
        return Answered(key, BLANK)
    if not _is_whole(text):
        text = f"{written(right.name, right.letters)} = {text}"
    if wrong := first_wrong(layer, right.name, text):
        return Answered(key, WRONG, wrong)
    line = line_of(layer, right.name, text)
    return Answered(key, RIGHT, line if len(line) <= LONGEST else "")


def _is_whole(text: str) -> bool:
    """Whether a formula has a left side: an = outside of all brackets."""
    depth = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "=" and depth == 0:
            return True
    return False
