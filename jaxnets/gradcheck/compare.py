"""Gradients by hand against two oracles: autodiff of the plain formulation, central differences.

Neither oracle knows a rule of `backprop`. Autodiff is exact and works in every precision; central
differences need only the forward pass and work in float64.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from types import EllipsisType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnets.base.language import N_
from jaxnets.gradcheck.errors import (
    MAX_PART,
    floor_of,
    floor_of_differences,
    largest,
    named_leaves,
    relative_error,
)
from jaxnets.gradcheck.exact import (
    EXACT,
    WRONG,
    Claim,
    Draw,
    Question,
    Verdict,
    check_exactly,
)
from jaxnets.machine.platform import (
    OLDER_EMITTER,
    compiler_options,
    compiler_options_for_init,
    default_platform,
    return_freed_memory,
)
from jaxnets.models.batch_norm import join_statistics, split_statistics

PRECISIONS = ("float64", "float32", "bfloat16")
DIFFERENCES = N_("differences")
# The largest allowed error. bfloat16 has 8 binary digits: it rounds by up to 2^-9 = 0.002. Autodiff
# adds a bias's gradient up in bfloat16, so that of a convolution is wrong by 0.02.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 4e-2, DIFFERENCES: 1e-6}
ATTEMPTS = 40  # at directions, or at coordinates of a leaf, without a kink

# For hundreds of programs that run once: the compiler spends no time on making them fast.
QUICK_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
    **OLDER_EMITTER,
}


def quick_options(*, fast: bool = False) -> dict[str, Any]:
    """Options for jax.jit of a program that runs once.

    Args:
      fast: Whether LLVM optimizes a little. Without it a network's convolutions in float64 run ten
        times as long, which is more than the compilation saves.
    """
    platform = default_platform()
    options = (compiler_options(platform) or {}) | QUICK_COMPILATION
    return options | (compiler_options_for_init(platform) or {}) if fast else options


LeafChange = dict[int, np.ndarray]  # The change of each leaf that changes, by the leaf's number.


Inputs = Mapping[str, Any]  # Arrays by name, or trees of them.


class Passes(NamedTuple):
    """The passes that are compared, in one precision. The functions take (inputs, constants)."""

    inputs: Inputs  # The arrays with respect to which the gradient is taken.
    constants: Any
    # -> {"output": ..., "gradient": a tree like inputs}, and for a network the "terms" that
    # `errors.recording_terms` records.
    manual: Callable[..., dict[str, Any]]
    automatic: Callable[..., dict[str, Any]]  # The same by autodiff of the plain formulation.
    # The number of the plain formulation that has this gradient, and the side of every kink on
    # which it was computed. None: no differences are taken.
    number: Callable[..., tuple[jax.Array, list[jax.Array]]] | None
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

    differenced = passes.number

    def number(inputs: Inputs, constants: tuple[Any, Inputs]) -> tuple[jax.Array, list[jax.Array]]:
        assert differenced is not None
        return differenced(join_statistics(inputs, constants[1]), constants[0])

    return Passes(
        weights,
        (passes.constants, running),
        apart(passes.manual),
        apart(passes.automatic),
        number if differenced else None,
        passes.question and _question_of_weights(passes.question, running),
    )


def _question_of_weights(question: Question, running: Inputs) -> Question:
    """The same question with the running statistics among the constants."""

    def claim(inputs: Inputs, constants: tuple[Any, Inputs]) -> Claim:
        found = question.claim(join_statistics(inputs, constants[1]), constants[0])
        if found.gradient is None:
            return found
        return found._replace(gradient=split_statistics(found.gradient)[0])

    def constants(draw: Draw) -> tuple[Any, Inputs]:
        return question.constants(draw), jax.tree.map(draw.numbers, running)

    return Question(claim, constants)


class Problem(NamedTuple):
    """One set of shapes and numbers on which to compare."""

    label: str
    at: Callable[[str], Passes]  # Takes one of PRECISIONS.
    step: float = 1e-5  # h of the central differences.
    ties: bool = False  # Whether inputs are on kinks: a leaf may then allow no difference.
    large: bool = False  # Whether it takes longer to run than to compile well.
    moves: int = 3  # The number of directions, and of coordinates of every leaf, that are tried.
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
    compared: int  # The number of directions and coordinates that were differenced.
    kinks: int  # The number of those skipped because they crossed a kink.
    seconds: float
    note: str = ""  # The last column's text, instead of the worst leaf.
    causes: tuple[str, ...] = ()  # For a wrong layer: two lines on each wrong gradient.
    # How many problems the exact check was asked, and its verdicts other than "exact".
    asked: int = 0
    verdicts: tuple[Verdict, ...] = ()

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
        """Whether every error is within its tolerance, and the exact check found no mistake."""
        within = all(error.value <= self.tolerances[key] for key, error in self.errors.items())
        return within and not any(verdict.kind == WRONG for verdict in self.verdicts)

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


class Differences(NamedTuple):
    """The largest error against central differences; how many were taken, and how many skipped."""

    error: RelativeError = RelativeError()
    compared: int = 0
    kinks: int = 0


def check_problems(
    name: str, problems: Sequence[Problem], tolerances: dict[str, float]
) -> CheckResult:
    """Compares the passes of every problem with both oracles.

    What the exact check has shown is not compared in float64 again.
    """
    started = time.perf_counter()
    compared = kinks = 0
    wanted = [
        (problem, dtype)
        for problem in problems
        for dtype in (("float64",) if problem.brief else PRECISIONS)
        if dtype in tolerances and not (dtype == "float64" and problem.is_shown)
    ]
    tried = {dtype for _, dtype in wanted}
    if any(dtype == "float64" and not problem.brief for problem, dtype in wanted):
        tried.add(DIFFERENCES)
    errors = {column: RelativeError() for column in tolerances if column in tried}
    for program in compiled(wanted):
        error, found = errors_of(program)
        on = program.problem.label
        errors[program.dtype] = max(errors[program.dtype], error._replace(problem=on))
        if DIFFERENCES in errors:
            errors[DIFFERENCES] = max(errors[DIFFERENCES], found.error._replace(problem=on))
        compared, kinks = compared + found.compared, kinks + found.kinks
    labels = [problem.label for problem in problems]
    seconds = time.perf_counter() - started
    row = CheckResult(name, labels, errors, tolerances, compared, kinks, seconds)
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
    number: Any  # Compiled passes.number in float64, else None.


def compiled(wanted: Sequence[tuple[Problem, str]]) -> Iterator[Program]:
    """Compiles problems, each in a precision: several at a time, one on each core."""
    lowered = [_lowered(problem, dtype) for problem, dtype in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        both = pool.map(lambda program: program.both.compile(), lowered)
        number = pool.map(lambda program: program.number and program.number.compile(), lowered)
    # No program compiles while another one runs: for an AlexNet, each of the two takes a gigabyte.
    for program, first, second in zip(lowered, both, number, strict=True):
        if program.problem.large:
            return_freed_memory()
        yield program._replace(both=first, number=second)


def _lowered(problem: Problem, dtype: str) -> Program:
    with precision(dtype):
        passes = problem.at(dtype)

        def both(inputs: Inputs, constants: object) -> tuple[dict[str, Any], dict[str, Any]]:
            return passes.manual(inputs, constants), passes.automatic(inputs, constants)

        def lower(function: Callable[..., Any]) -> jax.stages.Lowered:
            options = quick_options(fast=problem.large and dtype == "float64")
            jitted = jax.jit(function, compiler_options=options)
            return jitted.lower(passes.inputs, passes.constants)

        differenced = dtype == "float64" and not problem.brief
        number = lower(passes.number) if passes.number and differenced else None
        return Program(problem, dtype, lower(both), number)


def errors_of(program: Program) -> tuple[RelativeError, Differences]:
    """The error against autodiff and, in float64, against central differences."""
    with precision(program.dtype):
        passes = program.problem.at(program.dtype)
        manual, automatic = program.both(passes.inputs, passes.constants)
        terms = manual.pop("terms", ())
        summed = automatic["gradient"], terms
        floor = floor_of(summed, program.dtype, TOLERANCES[program.dtype])
        error = disagreement(manual, automatic, floor)
        del automatic  # AlexNet's parameters alone are 500 MB.
        if program.number is None:
            return error, Differences()
        return error, central_differences(program, passes, manual["gradient"], terms)


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


def central_differences(
    program: Program, passes: Passes, gradient: Inputs, terms: Sequence[jax.Array] = ()
) -> Differences:
    """Compares a gradient with (f(x + h d) - f(x - h d)) / 2h, which needs no derivative.

    Along random directions d of length 1 it is compared with the inner product of gradient and d.
    Errors are relative to that product's typical size, |gradient| / sqrt(its size). Along
    coordinates it is compared with the gradient's elements, and errors are relative to the leaf's
    largest. They are relative to at least `errors.floor_of_differences`. Where they disagree, a
    move of h / 10 decides.
    A move that changes a side of a kink need not agree: then it is counted and another one takes
    its place. If none agrees and every one crosses a kink, the error is infinite, unless the
    problem has ties.
    """
    if misshapen := _misshapen(gradient, passes.inputs):
        return Differences(misshapen)
    slopes = [np.asarray(slope) for slope in jax.tree.leaves(gradient)]
    length = np.sqrt(sum(np.vdot(slope, slope) for slope in slopes))
    size = sum(slope.size for slope in slopes)
    rng = np.random.default_rng(0)

    # One after the other, because a direction is as large as the slopes.
    def trials() -> Iterator[tuple[str, Iterator[LeafChange], Any]]:
        yield "a direction", _directions(slopes, rng), length / np.sqrt(size)
        names = [name for name, _ in named_leaves(passes.inputs)]
        for number, (name, slope) in enumerate(zip(names, slopes, strict=True)):
            yield name, _coordinates(number, slope, rng), largest(slope)

    worst, compared, kinks = RelativeError(), 0, 0
    for name, moves, typical in trials():
        found = 0
        for move in moves:
            error, crosses = 0.0, False
            # h^2 / 6 times f's third derivative is not a mistake: it shrinks with h, but a wrong
            # slope does not.
            for step in (program.problem.step, program.problem.step / 10):
                ends = _ends_of(move, step, program, passes, slopes)
                error, crosses = _error_of(ends, typical, step, terms), ends.crosses
                if error <= TOLERANCES[DIFFERENCES]:
                    break
            # A pool's winners may be equal up to rounding: any move changes the winners, but no
            # number.
            if crosses and not error <= TOLERANCES[DIFFERENCES]:
                kinks += 1
                continue
            worst = max(worst, RelativeError(error, name))
            found += 1
            if found == program.problem.moves:
                break
        if not found and not program.problem.ties:
            worst = max(worst, RelativeError(np.inf, f"{name}, which has kinks everywhere"))
        compared += found
    return Differences(worst, compared, kinks)


class Ends(NamedTuple):
    """The plain formulation at both ends of a move, and the rise that the slopes predict."""

    below: float
    above: float
    rise: float  # From below to above, by the slopes.
    crosses: bool  # Whether a kink is between them.


def _error_of(ends: Ends, typical: float, step: float, terms: Sequence[jax.Array]) -> float:
    """The relative error of the slopes along a move whose typical slope is given."""
    measured, expected = (ends.above - ends.below) / (2 * step), ends.rise / (2 * step)
    floor = floor_of_differences((ends.above, terms), step, TOLERANCES[DIFFERENCES])
    error = abs(measured - expected) / (max(typical, abs(measured), floor) or 1.0)
    return error if np.isfinite(error) else float("inf")


def _ends_of(
    move: LeafChange, step: float, program: Program, passes: Passes, slopes: list[np.ndarray]
) -> Ends:
    """Both ends of a move. The slopes are multiplied by the move after rounding."""
    leaves, tree = jax.tree.flatten(passes.inputs)
    leaves = [np.asarray(leaf) for leaf in leaves]

    # One buffer for both ends: JAX reads it in place, and those of AlexNet take 500 MB each.
    rooms = {index: np.empty(leaves[index].shape) for index in move}

    def end(
        index: int, sign: int, rows: slice | EllipsisType = ..., out: np.ndarray | None = None
    ) -> np.ndarray:
        moved = np.multiply(move[index][rows], sign * step, out=out, dtype=np.float64)
        moved += leaves[index][rows]
        return moved

    def number_at(sign: int) -> tuple[float, list[np.ndarray]]:
        for index, room in rooms.items():
            end(index, sign, out=room)
        ends = [rooms.get(index, leaf) for index, leaf in enumerate(leaves)]
        number, sides = program.number(jax.tree.unflatten(tree, ends), passes.constants)
        return float(number), jax.device_get(sides)

    (below, sides_below), (above, sides_above) = number_at(-1), number_at(1)
    crosses = not all(map(np.array_equal, sides_above, sides_below))
    rise = sum(
        np.vdot(slopes[index][rows], end(index, 1, rows) - end(index, -1, rows))
        for index in move
        for rows in _rows(slopes[index])
    )
    return Ends(below, above, float(rise), crosses)


def _rows(array: np.ndarray) -> Iterator[slice | EllipsisType]:
    """Indices of an array's rows in parts of some megabytes: AlexNet's largest array takes 300."""
    if array.size <= MAX_PART:
        yield ...
    else:
        rows = max(1, MAX_PART * len(array) // array.size)
        yield from (slice(start, start + rows) for start in range(0, len(array), rows))


def _directions(slopes: list[np.ndarray], rng: np.random.Generator) -> Iterator[LeafChange]:
    for _ in range(ATTEMPTS):
        changes = [rng.standard_normal(slope.shape, np.float32) for slope in slopes]
        length = np.sqrt(sum(np.vdot(change, change) for change in changes))
        for change in changes:
            change /= length
        yield dict(enumerate(changes))


def _coordinates(number: int, slope: np.ndarray, rng: np.random.Generator) -> Iterator[LeafChange]:
    """Yields single elements of a leaf: the one whose slope is steepest, then random ones."""

    def along(index: int) -> LeafChange:
        change = np.zeros(slope.shape, np.float32)
        change.flat[index] = 1
        return {number: change}

    yield along(int(slope.argmax() if slope.max() >= -slope.min() else slope.argmin()))
    yield from map(along, rng.choice(slope.size, min(slope.size, ATTEMPTS), replace=False))


@contextlib.contextmanager
def precision(dtype: str) -> Generator[None]:
    """Allows float64 only where it is wanted, and computes matrix products in full precision."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        jax.config.update("jax_enable_x64", before)
