"""Gradients by hand against autodiff of the plain formulation, and against differences.

Neither oracle knows a rule of `backprop`. Autodiff works in every precision. Differences need only
the forward pass; they are taken in float64 where the exact check has not shown the gradient.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnets.base.language import N_
from jaxnets.gradcheck.differences import Differences, Slopes
from jaxnets.gradcheck.errors import floor_of, largest, named_leaves, relative_error
from jaxnets.gradcheck.exact import (
    EXACT,
    WRONG,
    Claim,
    Draw,
    Question,
    Verdict,
    check_exactly,
)
from jaxnets.gradcheck.quick import precision, quick_options
from jaxnets.gradcheck.rounding import MARGIN, roundings_of
from jaxnets.machine.platform import return_freed_memory
from jaxnets.models.batch_norm import join_statistics, split_statistics

PRECISIONS = ("float64", "float32", "bfloat16")
DIFFERENCES = N_("differences")
# The largest allowed error. bfloat16 has 8 binary digits: it rounds by up to 2^-9 = 0.002. Autodiff
# adds a bias's gradient up in bfloat16, so that of a convolution is wrong by 0.02.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 4e-2, DIFFERENCES: 1e-6}
EPS = float(np.finfo(np.float64).eps)
DIRECTION = "a direction"
MOVES = 3  # The number of directions, and of coordinates of every array, that are compared.
ATTEMPTS = 40  # At moves along which a difference tells something.

Inputs = Mapping[str, Any]  # Arrays by name, or trees of them.


class Passes(NamedTuple):
    """The passes that are compared, in one precision. The functions take (inputs, constants)."""

    inputs: Inputs  # The arrays with respect to which the gradient is taken.
    constants: Any
    # -> {"output": ..., "gradient": a tree like inputs}, and for a network the "terms" that
    # `errors.recording_terms` records.
    manual: Callable[..., dict[str, Any]]
    automatic: Callable[..., dict[str, Any]]  # The same by autodiff of the plain formulation.
    # The number of the plain formulation that has this gradient. None: no differences are taken.
    number: Callable[..., jax.Array] | None = None
    question: Question | None = None  # The exact check's; None: it is asked nothing.


def with_statistics_aside(passes: Passes) -> Passes:
    """The same comparison with the gradients of running statistics among the outputs.

    These gradients lead towards the batch's statistics. The number does not depend on the running
    statistics, so no difference could be taken.
    """
    weights, running = split_statistics(passes.inputs)
    if not running:
        return passes

    def apart(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def outcome(inputs: Inputs, constants: tuple[Any, Inputs]) -> dict[str, Any]:
            found = function(join_statistics(inputs, constants[1]), constants[0])
            gradient, followed = split_statistics(found["gradient"])
            return {**found, "output": [found["output"], followed], "gradient": gradient}

        return outcome

    number_of_all = passes.number

    def number(inputs: Inputs, constants: tuple[Any, Inputs]) -> jax.Array:
        assert number_of_all is not None
        return number_of_all(join_statistics(inputs, constants[1]), constants[0])

    return Passes(
        weights,
        (passes.constants, running),
        apart(passes.manual),
        apart(passes.automatic),
        number if number_of_all else None,
        passes.question and _question_of_weights(passes.question, running, number_of_all),
    )


def _question_of_weights(
    question: Question, running: Inputs, number: Callable[..., jax.Array] | None
) -> Question:
    """The same question with the running statistics among the constants.

    No slope of the number has their gradient, so it must be the plain formulation's by autodiff.
    """

    def claim(inputs: Inputs, constants: tuple[Any, Inputs]) -> Claim:
        given, running = constants
        found = question.claim(join_statistics(inputs, running), given)
        if found.gradient is None:
            return found
        gradient, followed = split_statistics(found.gradient)
        if (plain := number) is None:
            return found._replace(gradient=gradient)
        by_autodiff = jax.grad(lambda running: plain(join_statistics(inputs, running), given))
        ours, theirs = found.same
        same = {**ours, "statistics": followed}, {**theirs, "statistics": by_autodiff(running)}
        return Claim(found.number, gradient, same)

    def constants(draw: Draw) -> tuple[Any, Inputs]:
        return question.constants(draw), jax.tree.map(draw.numbers, running)

    return Question(claim, constants)


class Problem(NamedTuple):
    """One set of shapes and numbers on which to compare."""

    label: str
    at: Callable[[str], Passes]  # Takes one of PRECISIONS.
    large: bool = False  # Whether it takes longer to run than to compile well.
    brief: bool = False  # Whether only float64 and autodiff are tried, which costs a fifth.
    verdict: Verdict | None = None  # The exact check's; None: it was not asked.

    @property
    def decided(self) -> "Problem":
        """The same problem with the verdict of the exact check."""
        with precision("float64"):
            passes = self.at("float64")
            if passes.question is None:
                return self
            return self._replace(verdict=check_exactly(passes.question, passes.inputs))

    @property
    def is_shown(self) -> bool:
        """Whether the exact check has shown it: then float64 has nothing to add."""
        return self.verdict is not None and self.verdict.kind == EXACT


class RelativeError(NamedTuple):
    """A relative error, the leaf that has it, and the problem's label."""

    value: float = 0.0
    leaf: str = ""
    problem: str = ""


class CheckResult(NamedTuple):
    """The result of checking a layer or network."""

    name: str
    tried: list[str]  # The problems' labels.
    errors: dict[
        str, RelativeError
    ]  # The largest in each precision that is used, and of DIFFERENCES.
    tolerances: dict[str, float]  # The largest allowed value of each error.
    compared: int  # The number of slopes by differences.
    passed_over: int  # The number of those that told nothing, as across a kink.
    seconds: float
    note: str = ""  # The last column's text, instead of the worst leaf.
    causes: tuple[str, ...] = ()  # For a wrong layer: two lines on each wrong gradient.
    # How many problems the exact check was asked, and its verdicts other than "exact".
    asked: int = 0
    verdicts: tuple[Verdict, ...] = ()
    narrower: int = 1  # What the widths of a network's layers were divided by for the exact check.

    def __repr__(self) -> str:
        errors = ", ".join(f"{key} {error.value:.1e}" for key, error in self.errors.items())
        verdict = "agrees" if self.ok else f"FAILED, worst in {self.worst}"
        exact = f"exact in {self.shown} of {self.asked} settings; " if self.asked else ""
        line = f"{self.name}: {verdict}; {exact}relative errors: {errors}"
        return "\n".join([line, *self.causes])

    @property
    def shown(self) -> int:
        """In how many problems the exact check has shown that the gradients are right."""
        return self.asked - len(self.verdicts)

    @property
    def ok(self) -> bool:
        """Whether every error is within its tolerance, and the exact check found no error."""
        is_wrong = any(verdict.kind == WRONG for verdict in self.verdicts)
        return self.within_tolerances and not is_wrong

    @property
    def within_tolerances(self) -> bool:
        """Whether every error is within its tolerance."""
        return all(error.value <= self.tolerances[key] for key, error in self.errors.items())

    @property
    def worst(self) -> str:
        """The leaf that comes nearest to its tolerance, or exceeds it the most; or the note.

        What the exact check found goes first, unless an array has the wrong name or shape.
        """
        key = max(
            self.errors, key=lambda key: self.errors[key].value / self.tolerances[key], default=""
        )
        misshapen = key and self.errors[key].value == np.inf
        wrong = [str(verdict.why) for verdict in self.verdicts if verdict.kind == WRONG]
        if wrong and not misshapen:
            return wrong[0]
        return self.note or (self.errors[key].leaf if key else "")


class Differenced(NamedTuple):
    """The largest error against differences; how many were taken, and how many passed over."""

    error: RelativeError = RelativeError()
    compared: int = 0
    passed_over: int = 0


def check_problems(
    name: str, problems: Sequence[Problem], tolerances: dict[str, float]
) -> CheckResult:
    """Compares the passes of every problem with autodiff, and with differences.

    What the exact check has shown is not compared in float64 again.
    """
    started = time.perf_counter()
    wanted = [
        (problem, dtype)
        for problem in problems
        for dtype in (("float64",) if problem.brief else PRECISIONS)
        if dtype in tolerances and not (dtype == "float64" and problem.is_shown)
    ]
    errors: dict[str, RelativeError] = {}
    compared = passed_over = 0

    def keep(column: str, error: RelativeError, problem: Problem) -> None:
        here = error._replace(problem=problem.label)
        errors[column] = max(errors.get(column, RelativeError()), here)

    for program in compiled(wanted):
        error, found = errors_of(program)
        keep(program.dtype, error, program.problem)
        if found is not None and DIFFERENCES in tolerances:
            keep(DIFFERENCES, found.error, program.problem)
            compared, passed_over = compared + found.compared, passed_over + found.passed_over
    in_order = {column: errors[column] for column in tolerances if column in errors}
    labels = [problem.label for problem in problems]
    seconds = time.perf_counter() - started
    row = CheckResult(name, labels, in_order, tolerances, compared, passed_over, seconds)
    return with_verdicts(row, problems)


def with_verdicts(row: CheckResult, problems: Sequence[Problem]) -> CheckResult:
    """The row with what the exact check found in the problems that it was asked."""
    asked = [problem.verdict for problem in problems if problem.verdict is not None]
    others = tuple(verdict for verdict in asked if verdict.kind != EXACT)
    return row._replace(asked=len(asked), verdicts=others)


class Program(NamedTuple):
    """A problem in one precision, ready to run. Its numbers are made when it runs."""

    problem: Problem
    dtype: str
    both: Any  # Compiled (inputs, constants) -> what passes.manual and passes.automatic return.


def compiled(wanted: Sequence[tuple[Problem, str]]) -> Iterator[Program]:
    """Compiles problems, each in a precision: several at a time, one on each core."""
    lowered = [_lowered(problem, dtype) for problem, dtype in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        both = pool.map(lambda program: program.both.compile(), lowered)
    # No program compiles while another one runs: for an AlexNet, each of the two takes a gigabyte.
    for program, ready in zip(lowered, both, strict=True):
        if program.problem.large:
            return_freed_memory()
        yield program._replace(both=ready)


def _lowered(problem: Problem, dtype: str) -> Program:
    with precision(dtype):
        passes = problem.at(dtype)

        def both(inputs: Inputs, constants: object) -> tuple[dict[str, Any], dict[str, Any]]:
            return passes.manual(inputs, constants), passes.automatic(inputs, constants)

        options = quick_options(fast=problem.large and dtype == "float64")
        jitted = jax.jit(both, compiler_options=options)
        return Program(problem, dtype, jitted.lower(passes.inputs, passes.constants))


def errors_of(program: Program) -> tuple[RelativeError, Differenced | None]:
    """The error against autodiff and, in float64, against differences."""
    with precision(program.dtype):
        passes = program.problem.at(program.dtype)
        manual, automatic = program.both(passes.inputs, passes.constants)
        terms = manual.pop("terms", ())
        summed = automatic["gradient"], terms
        floor = floor_of(summed, program.dtype, TOLERANCES[program.dtype])
        error = disagreement(manual, automatic, floor)
        if TOLERANCES[program.dtype] < error.value < np.inf and program.dtype != "float64":
            error = disagreement(manual, automatic, _measured_floor(program))
        if passes.number is None or program.problem.brief or program.dtype != "float64":
            return error, None
        with np.errstate(all="ignore"):  # A wrong gradient may hold anything.
            return error, against_differences(passes, manual["gradient"])


def _measured_floor(program: Program) -> float:
    """`errors.floor_of` with autodiff's measured rounding in place of T.

    The terms that cancel within a layer are not among those of T. A norm subtracts a mean that may
    be many times as large as what it leaves, and divides by what it leaves.
    """
    with precision("float64"):
        passes = program.problem.at("float64")
        given = passes.inputs, passes.constants
        changes = roundings_of(passes.automatic, program.dtype, given)
    return MARGIN * largest(changes) / TOLERANCES[program.dtype]


def disagreement(ours: object, theirs: object, floor: float = 0.0) -> RelativeError:
    """The largest relative error of a leaf; infinite if one has the wrong name or shape.

    Args:
      ours: The tree to check.
      theirs: The oracle's.
      floor: `errors.floor_of` the gradients among them.
    """
    pairs = zip(named_leaves(theirs), jax.tree.leaves(ours), strict=True)
    errors = (
        RelativeError(relative_error(value, expected, floor)[0], name)
        for (name, expected), value in pairs
    )
    return _misshapen(ours, theirs) or max(errors, key=lambda error: error.value)


def _misshapen(ours: object, theirs: object) -> RelativeError | None:
    """The error of the first leaf that does not have the name or the shape it should have."""
    nothing = ("nothing", None)
    pairs = zip_longest(named_leaves(theirs), named_leaves(ours), fillvalue=nothing)
    for (name, expected), (called, value) in pairs:
        if called != name or expected is None or value is None:
            return RelativeError(np.inf, f"{name}, got {called}")
        if value.shape != expected.shape:
            return RelativeError(
                np.inf, f"{name}, whose shape is {value.shape}, not {expected.shape}"
            )
    return None


def against_differences(passes: Passes, gradient: Inputs) -> Differenced:
    """Compares a gradient with slopes by differences, which need no derivative.

    Along random directions of length 1 the slope is the inner product of gradient and direction.
    Errors are relative to that product's typical size, |gradient| / sqrt(its size). Along
    coordinates the slopes are the gradient's numbers, and errors are relative to the array's
    largest. On a kink each number between the slopes on both sides is right. Where a slope tells
    nothing, as that of a direction across a kink, another one takes its place.
    """
    if misshapen := _misshapen(gradient, passes.inputs):
        return Differenced(misshapen)
    number: Any = passes.number
    start, unravel = ravel_pytree(passes.inputs)
    slope = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
    differences = Differences(
        lambda vector: number(unravel(vector), passes.constants)[None],
        np.asarray(start),
        EPS,
    )
    random = np.random.default_rng(0)

    def directions() -> Iterator[tuple[float, Slopes]]:
        for _ in range(ATTEMPTS):
            move = random.standard_normal(slope.size)
            move /= np.linalg.norm(move)
            yield float(slope @ move), differences.along(move)

    def coordinates(part: slice) -> Iterator[tuple[float, Slopes]]:
        """The one whose slope is steepest, then random ones."""
        size = part.stop - part.start
        others = random.choice(size, min(size, ATTEMPTS), replace=False)
        for place in part.start + np.append(np.argmax(np.abs(slope[part])), others):
            yield float(slope[place]), differences.along_coordinate(place)

    trials = [(DIRECTION, directions(), np.linalg.norm(slope) / np.sqrt(slope.size))]
    end = 0
    for name, leaf in named_leaves(passes.inputs):
        part = slice(end, end := end + leaf.size)
        trials.append((name, coordinates(part), np.abs(slope[part]).max(initial=0.0)))
    worst, compared, passed_over = RelativeError(), 0, 0
    for name, moves, typical in trials:
        found = 0
        for ours, slopes in moves:
            error = _beyond(differences, slopes, ours, float(typical))
            if error is None or (slopes.on_a_kink.any() and name == DIRECTION):
                passed_over += 1
                continue
            worst = max(worst, RelativeError(error, name))
            found += 1
            if found == MOVES:
                break
        if not found and name != DIRECTION:
            worst = max(worst, RelativeError(np.inf, f"{name}, of which no difference tells"))
        compared += found
    return Differenced(worst, compared, passed_over)


def _beyond(differences: Differences, slopes: Slopes, ours: float, typical: float) -> float | None:
    """How far a number is beyond a slope's bounds, relative to its size; None: it tells nothing."""
    low, high, error = slopes.bounds()
    size = np.maximum(typical, np.abs(low + high) / 2)
    if not differences.tells(error, size)[0]:
        return None
    distance = float(np.maximum(low - ours, ours - high)[0] - 10 * error[0])
    return max(distance, 0.0) / (float(size[0]) or 1.0) if np.isfinite(ours) else np.inf
