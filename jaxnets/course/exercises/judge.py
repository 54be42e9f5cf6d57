"""Judges a student's function by the arrays that it returns.

A backward pass is judged as `gradcheck` judges ours: by autodiff and by differences. The right
gradients are computed from the forward pass. Other functions are judged by numbers, in tasks.py.
"""

import ast
import inspect
import math
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.pooling import max_pool_forward
from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.base.errors import RunFailedError, unknown
from jaxnets.base.language import _, speaking
from jaxnets.course.exercises import tasks
from jaxnets.course.exercises.apart import answers_in, task_of
from jaxnets.course.exercises.catalogue import BUGS, Blank, Bug, Task, exercise_of_function
from jaxnets.course.exercises.derived import DERIVED
from jaxnets.course.exercises.error_messages import ResultError
from jaxnets.course.exercises.exact_cases import ExactCase, exact_cases
from jaxnets.course.exercises.files import exercises_in, importable, read_source, violation
from jaxnets.course.exercises.passes import Call, answers_of
from jaxnets.course.exercises.reasons import are_wrong, reasons_of
from jaxnets.course.exercises.sandbox import TRUST, Limits, Sandbox
from jaxnets.course.exercises.small_settings import small_settings
from jaxnets.course.exercises.where import TIES, without_ties
from jaxnets.gradcheck import exact
from jaxnets.gradcheck.compare import (
    PRECISIONS,
    TOLERANCES,
    CheckResult,
    Passes,
    RelativeError,
    disagreement,
)
from jaxnets.gradcheck.errors import floor_of
from jaxnets.gradcheck.layer_check import call_layer, whole_problem_of, with_backward
from jaxnets.gradcheck.quick import precision, quick_options

# In low precision, a right sum of more numbers than these may be far from the exact one.
MOST_NUMBERS = 1000
# For a larger window, a student's loop over the elements takes JAX too long to compile.
WIDEST = 64
# For a student's own file; `grade` gives it a third of the time.
AT_HOME = Limits(seconds=60, wait=600)


@dataclass(frozen=True)
class Case:
    """A layer in one setting and precision: the call, and what it must return."""

    setting: Setting
    label: str  # The setting's.
    dtype: str
    call: Call
    right: dict[str, np.ndarray]  # By autodiff of the plain formulation.


@dataclass(frozen=True)
class Verdict:
    """The judge's result; a notebook shows it, and it is true if the exercise is passed."""

    exercise: str
    passed: bool
    wrong: tuple[str, ...] = ()  # The wrong gradients; the first is the one to report.
    reason: str = ""  # Why nothing could be compared, or the shape of the first wrong gradient.
    row: CheckResult | None = None
    hints: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    @speaking(None)
    def __repr__(self) -> str:
        return "\n".join([self.line, *self.hints])

    @property
    def line(self) -> str:
        """One line: passed or failed, and which gradient is wrong."""
        if self.passed:
            return _("{}: passed", self.exercise)
        reason = _(": ").join([*self.wrong[:1], self.reason])
        why = reason if self.reason else are_wrong(self.wrong)
        return _("{}: FAILED: {}", self.exercise, why)


@speaking(None)  # The locale's language, as in the commands.
def judge(function: Callable[..., Any], *, hint: bool = False) -> Verdict:
    """Checks your solution to an exercise, in a notebook.

    Args:
      function: Your function, named after its exercise: `dense_backward`, `bug15`.
      hint: Whether to say more than which gradient is wrong.

    Raises:
      UserError: No exercise has this name.
    """
    name = function.__name__
    exercise_of_function(name)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        tree = ast.Module([], [])  # Python does not have its source.
    if found := violation(tree):
        return Verdict(name, False, reason=found)
    cases = cases_of(name)
    try:
        answers = answers_of(function, [case.call for case in cases])
    except ResultError as error:
        answers = str(error)
    return verdict(name, cases, answers, hint=hint)


def mutant(name: str) -> LayerRule:
    """The layer that a bug breaks, by the bug's name.

    Raises:
      UserError: There is no such bug.
    """
    known = mutants()
    if name not in known:
        raise unknown("mutant", name, known)
    return known[name]


def mutants() -> dict[str, LayerRule]:
    """The layer that each bug breaks, by the bug's name."""
    return {bug.mutant: broken(bug) for bug in BUGS.values()}


def broken(bug: Bug) -> LayerRule:
    """The layer that a bug breaks, with the bug's passes."""
    passes = dict[str, Any]()
    exec(bug.code, passes)
    return with_backward(layer_of(bug), passes[bug.name])


def layer_of(exercise: Blank | Bug) -> LayerRule:
    """The layer of an exercise, with the forward pass whose cache the exercise takes."""
    rule = DERIVED[exercise.layer]
    if isinstance(exercise, Bug) and exercise.forward:
        passes = dict[str, Any]()
        exec(exercise.forward, {"jnp": jnp, "max_pool_forward": max_pool_forward}, passes)
        (forward,) = passes.values()
        rule = rule._replace(forward=forward)
    return rule


def cases_of(function: str) -> list[Any]:
    """A list of Case: a layer in all its settings and precisions. For a Task, of tasks.TaskCase.

    Each precision is compiled as one program. In float64 a layer is also tried in drawn settings.
    An ExactCase follows for each small setting.
    """
    exercise = exercise_of_function(function)
    if isinstance(exercise, Task):
        return tasks.task_cases(exercise)
    rule = layer_of(exercise)
    rule = rule._replace(settings=[setting for setting in rule.settings if setting.taught])
    declared = [one for one in rule.settings if math.prod(one.static.get("window", ())) <= WIDEST]
    cases = []
    for dtype in PRECISIONS:
        settings = [one for one in declared if math.prod(one.x) <= MOST_NUMBERS]
        if dtype == "float64":
            ties = [one for one in declared if one.numbers in TIES] if rule.has_kinks else []
            settings = [*declared, *small_settings(exercise.layer, rule), *map(without_ties, ties)]
        problems = [whole_problem_of(rule, setting) for setting in settings]
        with precision(dtype):
            whole = [problem.at(dtype) for problem in problems]
            outcomes = _outcomes(rule, settings, whole)
            for index, setting in enumerate(settings):
                cache, d_out, gradient = outcomes[index]
                static, params = dict(setting.static), tuple(setting.params)
                call = Call(dtype, cache, d_out, static, params, exercise.gradient)
                cases.append(Case(setting, problems[index].label, dtype, call, _flat(gradient)))
    few = [one for one in declared if math.prod(one.x) <= MOST_NUMBERS]
    few += small_settings(exercise.layer, rule)
    return [*cases, *exact_cases(rule, few, exercise.gradient)]


def _outcomes(
    rule: LayerRule, settings: Sequence[Setting], passes: Sequence[Passes]
) -> list[tuple[Any, Any, Any]]:
    """The cache, the gradient from above and autodiff's gradient in each setting."""
    arrays = [(one.inputs, one.constants) for one in passes]

    def run(arrays):
        found = []
        for setting, one, (inputs, constants) in zip(settings, passes, arrays, strict=True):
            labels, d_out = constants
            _out, cache = call_layer(rule, setting, rule.forward, inputs, labels)
            found.append((cache, d_out, one.automatic(inputs, constants)["gradient"]))
        return found

    return jax.tree.map(np.asarray, _compiled(run, arrays)(arrays))


def _compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.jit(function, compiler_options=quick_options()).lower(*arguments).compile()


def verdict(
    name: str,
    cases: Sequence[Any],  # As cases_of gives them.
    answers: Sequence[Mapping[str, Any]] | str,
    *,
    hint: bool = False,
) -> Verdict:
    """Compares the arrays that a function has returned for each case, or says why not."""
    exercise = exercise_of_function(name)
    if isinstance(exercise, Task):
        if isinstance(answers, str):
            return Verdict(name, False, reason=answers)
        return Verdict(name, *tasks.compared(exercise, cases, answers, hint))
    if isinstance(answers, str):
        call, right = cases[0].call, cases[0].right
        shapes = ", ".join(f"{call.gradient_name(leaf)} {right[leaf].shape}" for leaf in right)
        hints = (_("the first setting asks for {}", shapes),) if hint else ()
        return Verdict(name, False, reason=answers, hints=hints)
    started = time.perf_counter()
    errors: dict[str, RelativeError] = {dtype: RelativeError() for dtype in PRECISIONS}
    wrong: list[str] = []
    reason = ""
    verdicts: list[exact.Verdict] = []
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(case, ExactCase):
            verdicts.append(case.verdict_on(answer))
            continue
        dtype = case.dtype
        floor = floor_of(case.right, dtype, TOLERANCES[dtype])
        for leaf, expected in case.right.items():
            error = disagreement({leaf: answer[leaf]}, {leaf: expected}, floor)
            errors[dtype] = max(errors[dtype], error)
            if answer[leaf].shape != expected.shape and not reason:
                wrong.insert(0, case.call.gradient_name(leaf))
                reason = _("expected the shape {}, got {}", expected.shape, answer[leaf].shape)
            if not error.value <= TOLERANCES[dtype]:
                wrong.append(case.call.gradient_name(leaf))
    entries = [str(one.why) for one in verdicts if one.kind == exact.WRONG]
    if entries and not wrong:
        wrong.append(entries[0].rpartition("[")[0])
        reason = _("right to ten digits, but not exactly: {} is wrong", entries[0])
    labels = list(dict.fromkeys(case.label for case in cases))
    seconds = time.perf_counter() - started
    row = CheckResult(name, labels, errors, TOLERANCES, 0, 0, seconds)
    others = tuple(one for one in verdicts if one.kind != exact.EXACT)
    row = row._replace(asked=len(verdicts), verdicts=others)
    wrong = list(dict.fromkeys(wrong))
    hints = tuple(_hints(exercise, row, cases, answers)) if hint else ()
    return Verdict(name, row.ok, tuple(wrong), reason, row, hints)


def _flat(gradient: Mapping[str, Any]) -> dict[str, np.ndarray]:
    named = {f"params.{name}": leaf for name, leaf in gradient.get("params", {}).items()}
    return named | {"x": gradient["x"]}


def judge_file(path: str, *, hint: bool = False) -> list[Verdict]:
    """Judges every exercise in a student's file.

    Each function runs in a process of its own, as in `grade`: so it cannot end the judge.

    Raises:
      UserError: The file cannot be read, or has no function that is named after an exercise.
      RunFailedError: The process did not start.
    """
    source = read_source(path)
    names = exercises_in(source, path)
    at_home = Sandbox(TRUST, prints=True)
    verdicts = []
    for name, reason in names.items():
        if reason:
            verdicts.append(Verdict(name, False, reason=reason))
            continue
        with at_home.started(AT_HOME) as process:  # It loads JAX meanwhile.
            cases = cases_of(name)
            given = importable(name, list(names))
            task = task_of(name, source, given, cases, AT_HOME, at_home)
            outcome = at_home.outcome(process, task, AT_HOME)
        if not outcome.started:
            raise RunFailedError("{}: its process did not start, so there is no verdict", name)
        answers = answers_in(outcome, cases, AT_HOME)
        verdicts.append(verdict(name, cases, answers, hint=hint))
    return verdicts


def _hints(
    exercise: Blank | Bug, row: CheckResult, cases: Sequence[Case], answers: Sequence[Mapping]
) -> Iterator[str]:
    """Yields what is wrong with each gradient and where, then the errors.

    Args:
      exercise: The exercise.
      row: The result of the comparison.
      cases: A layer in all its settings and precisions.
      answers: The gradients for each case.
    """
    pairs = [pair for pair in zip(cases, answers, strict=True) if isinstance(pair[0], Case)]
    if not row.within_tolerances:
        yield from reasons_of(exercise, [pair for pair in pairs if pair[0].dtype == "float64"])
    elif not row.ok:
        yield _("a constant may be rounded, as 0.3333333333 for 1/3")
    if not any(is_misshapen(*pair) for pair in pairs):
        found = []
        for key, error in row.errors.items():
            most = format(row.tolerances[key], ".0e")
            found.append(_("{} {} (at most {})", key, format(error.value, ".1e"), most))
        errors = _("relative errors: {}", _(", ").join(found))
        shown = _("exact in {} of {} settings", row.shown, row.asked)
        yield _("; ").join([shown, errors]) if row.asked else errors


def is_misshapen(case: Any, answer: Mapping[str, np.ndarray]) -> bool:
    """Whether an array of an answer has another shape than the right one; nothing is compared."""
    return any(answer[leaf].shape != right.shape for leaf, right in case.right.items())
