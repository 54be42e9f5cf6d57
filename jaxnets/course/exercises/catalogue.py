"""All exercises. They are data, in this folder's .toml files; no JAX is needed."""

import ast
import functools
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from jaxnets.base.display import fill
from jaxnets.base.errors import UserError, did_you_mean
from jaxnets.base.language import N_, _
from jaxnets.course.exercises.student import (
    draw_numbers,
    near,
    shown,
    student_called,
    value_of,
    values_of,
    without_noise,
)
from jaxnets.course.formulas.layers import LAYERS, Layer
from jaxnets.course.formulas.numpy_code import python_name
from jaxnets.course.formulas.tree import Formula

COMPUTE, FILL_IN, FIND_THE_BUG = N_("compute"), N_("fill in"), N_("find the bug")
BET, WRITE, DERIVE = N_("bet first"), N_("write code"), N_("derive")
BLANKS_TO_FILL = N_("Level {}, about {} minutes. Replace every `...` below, then ask the judge:")
TO_REPAIR = N_(
    "Level {}, about {} minutes. Find it by reading, repair it here, then ask the judge:"
)
AUTHOR = N_("The function's docstring says what its author thought.")
WIDTH = 88
Some = TypeVar("Some", bound="Task")
# The first line of a docstring, or a comment.
PROSE = re.compile(r'(?<=""")[^"\n]+|(?<=# ).+')


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise, which is written into a file for the student."""

    name: str  # As `jaxnets exercise new` takes it.
    level: int  # 1 easy, 3 hard.
    about: str
    week: int  # In the course, from 1.
    place: int  # In the week, from 1.
    required: bool  # Whether the week's page asks for it.
    minutes: int
    idea: str
    kind: ClassVar[str]
    suffix: ClassVar[str] = ".py"
    function: ClassVar[str] = ""  # The name of the student's function; "" where there is none.

    @property
    def file(self) -> str:
        """The name of its file, if the student gives none."""
        return f"my_{self.name}{self.suffix}"

    def text(self, file: str = "") -> str:
        """The text of its file, in the reader's language; its first lines name the file."""
        raise NotImplementedError

    def _module(self, file: str, title: str, how: str, parts: Sequence[str], code: str) -> str:
        """A Python file, whose docstring says what to do, followed by these parts."""
        check = f"    {check_command(file or self.file)}"
        parts = [title, _(how, self.level, self.minutes), check, *parts]
        return '"""' + "\n\n".join(parts) + f'\n"""\n\n{code}'


@dataclass(frozen=True, kw_only=True)
class Question:
    """One line of a sheet to fill in."""

    name: str
    asks: str
    answer: Any  # A number, or lists of numbers.
    hint: str
    then: str = ""  # Said after a bet: what happened, and why.
    slips: Sequence[tuple[Any, str]] = ()  # Wrong answers, and their causes.


@dataclass(frozen=True, kw_only=True)
class Sheet(Exercise):
    """Questions about one situation, whose answers are numbers."""

    kind, suffix = COMPUTE, ".toml"
    how: ClassVar[str] = N_(
        'Replace each "" with a number such as 1.5 or 1/8, or with rows such as [[1, 2], [3, 4]]. '
        "Three digits after the point are enough. Then:"
    )
    given: str
    commands: Sequence[str] = ()
    asked: Mapping[str, Mapping[str, Any]]  # The questions as in the file.
    numbers: Mapping[str, Any] = field(default_factory=dict)
    draw: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)
    keep: Sequence[str] = ()
    student: str = ""  # The student whose numbers it has; "" means everybody's.

    @functools.cached_property
    def values(self) -> Mapping[str, Any]:
        """The numbers, what follows from them, and the answers."""
        answers = {name: str(question["answer"]) for name, question in self.asked.items()}
        return values_of(self.numbers, {**self.also, **answers})

    @functools.cached_property
    def questions(self) -> list[Question]:
        """The questions with their answers."""
        found = []
        for name, question in self.asked.items():
            slips = question.get("slips", {}).items()
            wrong = [(without_noise(value_of(slip, self.values)), says) for slip, says in slips]
            answer = without_noise(self.values[name])
            found.append(Question(**{**question, "name": name, "answer": answer, "slips": wrong}))
        return found

    def of(self, student: str) -> Self:
        """The sheet with a student's own numbers; this sheet if all students have the same.

        Raises:
          UserError: The name is not valid.
        """
        if not self.draw:
            return self
        student = student_called(student)
        found = draw_numbers(self.name, student, self.numbers, self.draw, self._takes)
        return replace(self, student=student, numbers=found)

    def _takes(self, numbers: Mapping[str, Any]) -> bool:
        """Whether the answers are finite, and each wrong answer has one cause."""
        sheet = replace(self, numbers=numbers)
        if not all(bool(value_of(condition, sheet.values)) for condition in self.keep):
            return False
        for question in sheet.questions:
            known = [question.answer]
            if not np.isfinite(question.answer).all():
                return False
            for wrong, _says in question.slips:
                if any(near(wrong, other) for other in known):
                    return False
                known.append(wrong)
        return True

    @property
    def hints(self) -> dict[str, str]:
        """What --hint says about each question, in the reader's language."""
        return {question.name: self.said(question.hint) for question in self.questions}

    def said(self, text: str) -> str:
        """One of its texts in the reader's language, with its numbers."""
        rows = {name: shown(value) for name, value in self.values.items()}
        facts = {
            name: f"({row[1:-1]})" if np.ndim(self.values[name]) == 1 else row
            for name, row in rows.items()
        }
        return Template(_(text)).substitute(facts)

    def text(self, file: str = "") -> str:
        parts = [
            fill(self.said(self.given), WIDTH - 2),
            *([_indented("\n".join(self.commands))] if self.commands else []),
        ]
        return _sheet(self, file, parts, {one.name: self.said(one.asks) for one in self.questions})


@dataclass(frozen=True, kw_only=True)
class Bet(Sheet):
    """Questions on what trainings do, with the numbers of possible answers."""

    kind = BET
    how = N_(
        'Replace each "" with the number of your bet, 1 to 4. A lost bet counts as much as a won '
        "one. This command says what happened, and why:"
    )


@dataclass(frozen=True, kw_only=True)
class Derive(Exercise):
    """Gradients to derive, which are answered as formulas in index notation."""

    kind, suffix = DERIVE, ".toml"
    how: ClassVar[str] = N_(
        'Replace each "" with a formula of the array above it: its right side, or all of it. Type '
        "C_ij = Σ_k A_ik B_kj, or C[i,j] = sum(k) A[i,k] B[k,j]. exp(x), log(x), σ(x), tanh(x), "
        "√x, x^2 and max(x, 0) are read, [x > 0] is 1 or 0, and δ_ij is 1 where i = j, else 0. "
        "Then:"
    )
    may_use: ClassVar[str] = N_(
        "Given: {}. A formula may also use what the forward pass computes, and the gradients "
        "above it."
    )
    student: ClassVar[str] = ""  # All students have the same sheet.
    layer: str  # In backprop/formulas.toml.
    given: str
    code: str = ""  # The exercise that computes the same gradients; "" if there is none.
    asked: Mapping[str, str]  # A hint for each gradient.

    @property
    def facts(self) -> Layer:
        """The layer's formulas."""
        return LAYERS[self.layer]

    @functools.cached_property
    def formulas(self) -> dict[str, Formula]:
        """The answers, by their names in the file."""
        return {python_name(name): one for name, one in self.facts.gradients.items()}

    @property
    def hints(self) -> dict[str, str]:
        """What --hint says about each array, in the reader's language."""
        return {name: _(hint) for name, hint in self.asked.items()}

    def text(self, file: str = "") -> str:
        given = [written(name, letters) for name, letters in self.facts.drawn.items()]
        scalars = [*self.facts.scalars]
        runs = [_("{} from 0 to {} - 1", *pair) for pair in self.facts.letters.items()]
        parts = [
            fill(_(self.given), WIDTH - 2),
            _("The forward pass:"),
            _indented("\n".join(self.facts.forward)),
            fill(_(self.may_use, _(", ").join([*given, *scalars])), WIDTH - 2),
            fill(_("Each index runs: {}.", _(", ").join(runs)), WIDTH - 2),
        ]
        formulas = self.formulas.items()
        return _sheet(self, file, parts, {key: written(x.name, x.letters) for key, x in formulas})


def _sheet(
    exercise: Sheet | Derive, file: str, parts: Sequence[str], blanks: Mapping[str, str]
) -> str:
    """A TOML file of comments, and a blank for each question under what it asks."""
    facts = exercise.name, _(exercise.about), exercise.level, exercise.minutes
    title = _("Exercise {}: {}. Level {}, about {} minutes.", *facts)
    check = f"    {check_command(file or exercise.file)}"
    parts = [title, *parts, fill(_(exercise.how), WIDTH - 2), check]
    lines = [f"# {line}".rstrip() for line in "\n\n".join(parts).split("\n")]
    lines += ["", f'exercise = "{exercise.name}"']
    lines += [f'student = "{exercise.student}"'] if exercise.student else []
    for name, asks in blanks.items():
        lines += ["", *(f"# {line}" for line in fill(asks, WIDTH - 2).split("\n")), f'{name} = ""']
    return "\n".join(lines) + "\n"


def written(name: str, letters: Sequence[str]) -> str:
    """An array with its indices, such as dW_dk."""
    return f"{name}_{''.join(letters)}" if letters else name


@dataclass(frozen=True, kw_only=True)
class Blank(Exercise):
    """A backward pass to fill in."""

    kind = FILL_IN
    forward: str  # The formula of the forward pass.
    arguments: str  # What the backward pass takes and returns, for its docstring.
    code: str  # The backward pass; $arguments in it is replaced by them.
    gradient: str = "dx"  # The name of its input's gradient.

    @property
    def layer(self) -> str:
        """The layer whose backward pass it is."""
        return self.name

    @property
    def function(self) -> str:
        return f"{self.name}_backward"

    def text(self, file: str = "") -> str:
        code = Template(_said(self.code)).substitute(arguments=_indented(_(self.arguments)))
        title = _("Exercise {}: {}, backward.", self.name, _(self.about))
        parts = [_("The forward pass:"), _indented(_(self.forward))]
        return self._module(file, title, BLANKS_TO_FILL, parts, code)


@dataclass(frozen=True, kw_only=True)
class Bug(Exercise):
    """A backward pass that is wrong in one way."""

    kind = FIND_THE_BUG
    right: Blank  # The exercise of the same layer.
    mutant: str  # The bug's name for `gradcheck --mutant`; no student sees it.
    question: str
    hint: str
    says: str  # What the judge says of a gradient that is this one, also in another exercise.
    code: str
    forward: str = ""  # A forward pass whose cache differs from the layer's.

    @property
    def layer(self) -> str:
        """The layer that it breaks."""
        return self.right.layer

    @property
    def function(self) -> str:
        return self.name

    @property
    def gradient(self) -> str:
        """The name of its input's gradient."""
        return self.right.gradient

    def text(self, file: str = "") -> str:
        title = N_("Exercise {}: one thing is wrong in this backward pass ({}).")
        title = _(title, self.name, _(self.about))
        if self.forward:
            parts = [_("The forward pass, which returns (y, cache):")]
            parts += [_indented(_said(self.forward).replace('"""', "'''"))]
        else:
            parts = [_("The forward pass:"), _indented(_(self.right.forward))]
            parts += [_(self.right.arguments)]
        parts += [_(AUTHOR), fill(_(self.question), WIDTH)]
        return self._module(file, title, TO_REPAIR, parts, _said(self.code))


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A usual error: the change to the solution that makes it, and what the judge says."""

    says: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Task(Exercise):
    """A function to write; the judge compares the numbers that it returns."""

    kind = WRITE
    formula: str
    arguments: str  # What the function takes and returns, for its docstring.
    returns: Sequence[str]  # The names of its results.
    code: str  # The function with blanks; $arguments in it is replaced by them.
    solution: str
    causes: list[Cause]
    # What to look at again, by the result that is wrong, where no line of the formula says it.
    hints: Mapping[str, str] = field(default_factory=dict)

    @property
    def function(self) -> str:
        return self.name

    def text(self, file: str = "") -> str:
        code = Template(_said(self.code)).substitute(arguments=_indented(_(self.arguments)))
        title = _("Exercise {}: {}.", self.name, _(self.about))
        return self._module(file, title, BLANKS_TO_FILL, [_indented(_(self.formula))], code)


@dataclass(frozen=True, kw_only=True)
class Repair(Task):
    """A piece of a training program that is wrong in one way: the first of its causes."""

    kind = FIND_THE_BUG
    formula: str = ""
    arguments: str = ""
    question: str
    hint: str

    def text(self, file: str = "") -> str:
        title = N_("Exercise {}: one thing is wrong in this function ({}).")
        title = _(title, self.name, _(self.about))
        parts = [_(AUTHOR), fill(_(self.question), WIDTH)]
        return self._module(file, title, TO_REPAIR, parts, _said(self.code))


def _said(code: str) -> str:
    """The code with its comments and the first lines of its docstrings in the reader's language."""
    return PROSE.sub(lambda found: _(found[0]), code)


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ")


def _data(file: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(file).read_text("utf-8"))


def _course(weeks: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the course says about each exercise, by name in the course's order."""
    found = {}
    for week, facts in enumerate(weeks, 1):
        names = {**facts.get("required", {}), **facts["optional"]}
        for place, (name, said) in enumerate(names.items(), 1):
            required = name in facts.get("required", {})
            where = {"week": week, "place": place, "required": required}
            found[name] = {"name": name, **where, **said}
    return found


def _sheets(kind: type[Sheet], file: str) -> dict[str, Sheet]:
    found = {}
    for name, facts in _data(file).items():
        found[name] = kind(asked=facts.pop("questions"), **facts, **_COURSE[name])
    return found


def _bug(name: str, layer: str, code: str, helpers: dict[str, str], **facts: Any) -> Bug:
    about, code = layer.replace("_", " "), Template(code).substitute(helpers)
    return Bug(right=BLANKS[layer], about=about, code=code, **facts, **_COURSE[name])


def _tasks(kind: type[Some], file: str) -> dict[str, Some]:
    found = {}
    for name, facts in _data(file).items():
        causes = [Cause(**cause) for cause in facts.pop("causes")]
        found[name] = kind(causes=causes, **facts, **_COURSE[name])
    return found


_weeks = _data("course.toml")["weeks"]
WEEKS: list[str] = [week["title"] for week in _weeks]
_COURSE = _course(_weeks)
SHEETS = _sheets(Sheet, "sheets.toml")
BETS = _sheets(Bet, "bets.toml")
DERIVES = {name: Derive(**facts, **_COURSE[name]) for name, facts in _data("derive.toml").items()}
BLANKS = {name: Blank(**facts, **_COURSE[name]) for name, facts in _data("blanks.toml").items()}
_bugs = _data("bugs.toml")
_helpers = _bugs.pop("helpers")  # Functions that several bugs call.
BUGS = {name: _bug(name, helpers=_helpers, **facts) for name, facts in _bugs.items()}
LOOPS = _tasks(Repair, "loops.toml")
TASKS: dict[str, Task] = {**_tasks(Task, "tasks.toml"), **LOOPS}
_all: dict[str, Exercise] = {**SHEETS, **BETS, **DERIVES, **BLANKS, **TASKS, **BUGS}
# All exercises in the course's order.
EXERCISES = {name: _all[name] for name in _COURSE}
BY_FUNCTION: dict[str, Blank | Bug | Task] = {
    exercise.function: exercise for exercise in [*BLANKS.values(), *BUGS.values(), *TASKS.values()]
}


def exercise_called(name: str) -> Exercise:
    """The exercise with this name.

    Raises:
      UserError: There is no such exercise.
    """
    if name not in EXERCISES:
        raise _unknown(name, EXERCISES)
    return EXERCISES[name]


def _unknown(name: str, known: Iterable[str]) -> UserError:
    hint = did_you_mean(name, known, quoted=True)
    return UserError('unknown exercise "{}"{} (jaxnets exercise lists all)', name, hint)


def check_command(file: str) -> str:
    """The command that checks an exercise in a file."""
    return f"jaxnets exercise check {file}"


def exercise_of_function(function: str) -> Blank | Bug | Task:
    """The exercise that a function of this name answers.

    Raises:
      UserError: There is no such exercise.
    """
    if function not in BY_FUNCTION:
        raise _unknown(function, BY_FUNCTION)
    return BY_FUNCTION[function]


def imports_of(exercise: Blank | Bug | Task) -> frozenset[str]:
    """The names that an exercise's file imports, such as "jaxnets.losses.probabilities_of"."""
    return frozenset(
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(exercise.code))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jaxnets.")
        for alias in node.names
    )
