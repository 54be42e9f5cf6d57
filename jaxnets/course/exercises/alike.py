"""Finds submissions of different students with the same code, or nearly the same.

Comments, docstrings and layout do not count, nor do the lines that the exercise's own file has.
What many students write is the usual answer, and says nothing.
"""

import ast
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence

from jaxnets.course.exercises.catalogue import BY_FUNCTION

SHORTEST = 40  # Words and signs; shorter answers are often the same by chance.
ALIKE = 0.9  # The least share of words and signs that two answers have in common, in order.
FEW = 3  # So many others, or a tenth of the class, may have an answer that is still marked.
Alike = tuple[tuple[str, float], ...]  # The other students, and how much their code has in common.


def alike(exercise: str, sources: Mapping[str, str]) -> dict[str, Alike]:
    """The students whose answers to an exercise are alike, each with the others.

    Args:
      exercise: The function that answers it.
      sources: Each student's file.
    """
    given = set(_lines(BY_FUNCTION[exercise].code, exercise))
    texts = dict[tuple[str, ...], list[str]]()  # The students by what they have written.
    for student, source in sources.items():
        words = _words([line for line in _lines(source, exercise) if line not in given])
        if len(words) >= SHORTEST:
            texts.setdefault(words, []).append(student)
    pairs = dict[str, dict[str, float]]()
    for students in texts.values():
        for one in students:
            pairs[one] = {other: 1.0 for other in students if other != one}
    for (a, ours), (b, theirs) in itertools.combinations(texts.items(), 2):
        if share := _share(a, b):
            for one, other in itertools.product(ours, theirs):
                pairs[one][other] = pairs[other][one] = share
    most = max(FEW, len(sources) // 10)
    found = {one: others for one, others in pairs.items() if 0 < len(others) <= most}
    return {one: tuple(sorted(others.items())) for one, others in found.items()}


def _lines(source: str, exercise: str) -> list[str]:
    """The lines of a file as Python itself would write them, without docstrings.

    Imports and the functions that answer other exercises are left out.
    """
    tree = ast.parse(source)
    names = BY_FUNCTION.keys() - {exercise}
    tree.body = [
        node
        for node in tree.body
        if getattr(node, "name", "") not in names
        and not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [line.strip() for line in ast.unparse(tree).splitlines() if line.strip()]


def _words(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+|\S", "\n".join(lines)))


def _share(a: Sequence[str], b: Sequence[str]) -> float:
    """How much two answers have in common, if that is at least ALIKE; else 0."""
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio):
        if (share := ratio()) < ALIKE:
            return 0.0
    return share
