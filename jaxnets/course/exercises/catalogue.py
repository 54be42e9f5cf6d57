"""All exercises by their names; listing them needs no JAX."""

import functools
import re
from pathlib import Path
from typing import NamedTuple

from jaxnets.course.exercises.bugs import BUGS
from jaxnets.course.exercises.compute import SHEETS
from jaxnets.course.exercises.mutant_source import mutant_sources
from jaxnets.errors import unknown

TEMPLATES = Path(__file__).parent / "templates"
COMPUTE, FILL_IN, FIND_THE_BUG = "compute", "fill in", "find the bug"


class Exercise(NamedTuple):
    """One exercise."""

    name: str  # As `jaxnets exercise new` takes it.
    kind: str
    level: int  # 1 easy, 3 hard.
    minutes: int
    about: str
    function: str = ""  # The name of the student's function.


@functools.cache
def exercises() -> dict[str, Exercise]:
    """Every exercise: numbers to compute, backward passes to fill in, and wrong ones."""
    found = [
        Exercise(name, COMPUTE, sheet.level, sheet.minutes, sheet.title)
        for name, sheet in SHEETS.items()
    ]
    for path in sorted(TEMPLATES.glob("[a-z]*.py")):
        facts = re.match(
            r'"""Exercise \w+: (.*), backward\.\n\nLevel (\d), about (\d+) minutes',
            path.read_text("utf-8"),
        )
        assert facts, path
        function = f"{path.stem}_backward"
        level, minutes = int(facts[2]), int(facts[3])
        found.append(Exercise(path.stem, FILL_IN, level, minutes, facts[1], function))
    found.sort(key=lambda exercise: (exercise.kind, exercise.level))
    sources = mutant_sources()
    for name, bug in BUGS.items():
        layer = sources[bug.mutant].layer.replace("_", " ")
        found.append(Exercise(name, FIND_THE_BUG, bug.level, bug.minutes, layer, name))
    return {exercise.name: exercise for exercise in found}


def exercise_called(name: str) -> Exercise:
    """The exercise of a name.

    Raises:
      UserError: There is none.
    """
    if name not in exercises():
        raise unknown("exercise", name, exercises())
    return exercises()[name]


def exercise_of_function(function: str) -> Exercise:
    """The exercise that a function of this name answers.

    Raises:
      UserError: There is none.
    """
    by_function = {found.function: found for found in exercises().values() if found.function}
    if function not in by_function:
        raise unknown("exercise", function, by_function)
    return by_function[function]


def layer_of(exercise: Exercise) -> str:
    """The layer of which an exercise is the backward pass, as its template is called."""
    if exercise.kind == FIND_THE_BUG:
        return mutant_sources()[BUGS[exercise.name].mutant].layer
    return exercise.name


def input_gradient_of(exercise: Exercise) -> str:
    """The name of the input's gradient in an exercise's file: dx, dp or dz."""
    last = (TEMPLATES / f"{layer_of(exercise)}.py").read_text("utf-8").splitlines()[-1]
    return last.split()[-1]
