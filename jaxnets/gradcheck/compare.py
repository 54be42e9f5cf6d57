"""Gradients by hand against two oracles: autodiff of the plain formulation, central differences.

Neither oracle knows a rule of `backprop`. Autodiff is exact and serves in every precision; central
differences need the forward pass only and serve in float64.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnets.backprop.check import relative_error
from jaxnets.machine.platform import compiler_options

PRECISIONS = ("float64", "float32", "bfloat16")
DIFFERENCES = "differences"
ATTEMPTS = 40  # at directions, or at coordinates of a leaf, without a kink

# For hundreds of programs that run once: no time is spent on making them fast.
QUICK_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}

Direction = list[np.ndarray]  # of all leaves


class Coordinate(NamedTuple):
    """One element, at an index of a leaf's ravel()."""

    leaf: int
    index: int


Move = Direction | Coordinate


class Passes(NamedTuple):
    """What is compared, in one precision. The functions take (inputs, constants).

    Attributes:
      inputs: A tree of arrays, with respect to which the gradient is taken.
      constants: The other arguments of the functions.
      manual: Returns {"output": ..., "gradient": a tree like inputs}, by hand.
      automatic: The same by autodiff of the plain formulation.
      number: The plain formulation's number whose gradient it is, and a list of arrays: the side
        of every kink on which it was computed (`kinks.py`).
    """

    inputs: Any
    constants: Any
    manual: Callable[..., dict[str, Any]]
    automatic: Callable[..., dict[str, Any]]
    number: Callable[..., tuple[jax.Array, list[jax.Array]]]


class Problem(NamedTuple):
    """One set of shapes and numbers on which to compare.

    Attributes:
      label: A name for the report.
      at: Returns the passes in a precision: "float64", "float32" or "bfloat16".
      step: h of the central differences.
      ties: The inputs stand on kinks: a leaf may have nowhere to take a difference.
      large: It takes longer to run than to compile well.
      moves: How many directions, and coordinates of every leaf, the differences are taken along.
    """

    label: str
    at: Callable[[str], Passes]
    step: float = 1e-5
    ties: bool = False
    large: bool = False
    moves: int = 3


class Error(NamedTuple):
    """A relative error and the leaf that has it."""

    value: float = 0.0
    leaf: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """What a check has found.

    Attributes:
      name: The name of the layer or network.
      tried: The problems' labels.
      errors: The largest error in each precision, and of the "differences".
      tolerances: The largest allowed value of each error.
      compared: How many directions and coordinates were differenced.
      kinks: How many others were passed over because a kink lay within them.
      seconds: The time that the check took.
    """

    name: str
    tried: list[str]
    errors: dict[str, Error]
    tolerances: dict[str, float]
    compared: int
    kinks: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every error is within its tolerance."""
        return all(error.value <= self.tolerances[key] for key, error in self.errors.items())

    @property
    def worst(self) -> str:
        """The leaf that comes nearest to its tolerance, or exceeds it the most."""
        key = max(self.errors, key=lambda key: self.errors[key].value / self.tolerances[key])
        return self.errors[key].leaf


class Differences(NamedTuple):
    """The largest error against central differences; how many were taken, how many passed over."""

    error: Error = Error()
    compared: int = 0
    kinks: int = 0


def check(name: str, problems: Sequence[Problem], tolerances: dict[str, float]) -> Row:
    """Compares the passes of every problem with both oracles.

    Args:
      name: The name in the report.
      problems: The problems on which to compare.
      tolerances: The largest allowed error in each of PRECISIONS, and of DIFFERENCES.
    """
    started = time.perf_counter()
    errors = dict.fromkeys(tolerances, Error())
    compared = kinks = 0
    for program in compiled([(problem, dtype) for problem in problems for dtype in PRECISIONS]):
        error, found = judge(program)
        errors[program.dtype] = max(errors[program.dtype], error)
        errors[DIFFERENCES] = max(errors[DIFFERENCES], found.error)
        compared, kinks = compared + found.compared, kinks + found.kinks
    labels = [problem.label for problem in problems]
    return Row(name, labels, errors, tolerances, compared, kinks, time.perf_counter() - started)


class Program(NamedTuple):
    """A problem in one precision, ready to run.

    Attributes:
      problem: The problem.
      dtype: The precision.
      passes: Its passes.
      both: Compiled (inputs, constants) -> what passes.manual and passes.automatic return.
      number: Compiled passes.number in float64, else None.
    """

    problem: Problem
    dtype: str
    passes: Passes
    both: Any
    number: Any


def compiled(wanted: Sequence[tuple[Problem, str]]) -> Iterator[Program]:
    """Compiles problems, each in a precision: several at once, one on each core."""
    lowered = [_lowered(problem, dtype) for problem, dtype in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        both = [pool.submit(program.both.compile) for program in lowered]
        number = [program.number and pool.submit(program.number.compile) for program in lowered]
        for program, first, second in zip(lowered, both, number, strict=True):
            yield program._replace(both=first.result(), number=second and second.result())


def _lowered(problem: Problem, dtype: str) -> Program:
    """Traces a problem's passes, for `compiled`."""
    with precision(dtype):
        passes = problem.at(dtype)

        def both(inputs, constants):
            return passes.manual(inputs, constants), passes.automatic(inputs, constants)

        def lower(function):
            options = (compiler_options() or {}) | ({} if problem.large else QUICK_COMPILATION)
            jitted = jax.jit(function, compiler_options=options)
            return jitted.lower(passes.inputs, passes.constants)

        number = lower(passes.number) if dtype == "float64" else None
        return Program(problem, dtype, passes, lower(both), number)


def judge(program: Program) -> tuple[Error, Differences]:
    """The error against autodiff and, in float64, against central differences."""
    with precision(program.dtype):
        manual, automatic = program.both(program.passes.inputs, program.passes.constants)
        error = disagreement(manual, automatic)
        if program.dtype != "float64":
            return error, Differences()
        return error, central_differences(program, manual["gradient"])


def disagreement(ours: Any, theirs: Any) -> Error:
    """The largest relative error of a leaf; infinite if one has the wrong shape."""
    return _misshapen(ours, theirs) or max(
        Error(relative_error(value, expected)[0], name)
        for (name, expected), value in zip(
            _named_leaves(theirs), jax.tree.leaves(ours), strict=True
        )
    )


def _misshapen(ours: Any, theirs: Any) -> Error | None:
    """The error of the first leaf that has not the shape it should have."""
    for (name, expected), value in zip(_named_leaves(theirs), jax.tree.leaves(ours), strict=True):
        if value.shape != expected.shape:
            return Error(np.inf, f"{name}, whose shape is {value.shape}, not {expected.shape}")
    return None


def central_differences(program: Program, gradient: Any) -> Differences:
    """Compares a gradient with (f(x + h d) - f(x - h d)) / 2h, which needs no derivative.

    Along random directions d of length 1 it is compared with the inner product of gradient and d,
    and errors are relative to the typical size of that, |gradient| / sqrt(its size). Along
    coordinates it is compared with the gradient's elements, and errors are relative to the leaf's
    largest. A move that changes a side of a kink has no derivative to compare with: it is counted
    and another one takes its place.

    Args:
      program: In float64; h is its problem's step.
      gradient: A tree like its inputs.

    Returns:
      The largest error; infinite where every move crosses a kink, unless the problem has ties.
    """
    inputs = program.passes.inputs
    misshapen = _misshapen(gradient, inputs)
    if misshapen:
        return Differences(misshapen)
    leaves = jax.tree.leaves(inputs)
    slopes = [np.asarray(slope) for slope in jax.tree.leaves(gradient)]
    names = [name for name, _ in _named_leaves(inputs)]
    total = sum(leaf.size for leaf in leaves)
    length = np.sqrt(sum(np.vdot(slope, slope) for slope in slopes))
    rng = np.random.default_rng(0)
    trials: list[Any] = [("a direction", _directions(leaves, rng), length / np.sqrt(total))]
    for number, (name, slope) in enumerate(zip(names, slopes, strict=True)):
        largest = np.max(np.abs(slope), initial=0)
        trials.append((name, _coordinates(slopes, number, rng), largest))

    worst, compared, kinks = Error(), 0, 0
    measure = _measure(program, slopes)
    for name, moves, typical in trials:
        found = 0
        for move in moves:
            slopes_along = measure(move)
            if slopes_along is None:
                kinks += 1
                continue
            measured, expected = slopes_along
            error = float(abs(measured - expected) / (max(typical, abs(measured)) or 1.0))
            worst = max(worst, Error(error if np.isfinite(error) else np.inf, name))
            found += 1
            if found == program.problem.moves:
                break
        if not found and not program.problem.ties:
            worst = max(worst, Error(np.inf, f"{name}, which has kinks everywhere"))
        compared += found
    return Differences(worst, compared, kinks)


def _measure(
    program: Program, slopes: list[np.ndarray]
) -> Callable[[Move], tuple[float, float] | None]:
    """Returns the function that takes a central difference along a move.

    Its outcome is the difference quotient and what the gradient says that it is, for the move as
    it came out after rounding; or None where a kink is crossed.
    """
    step, constants = program.problem.step, program.passes.constants
    leaves, tree = jax.tree.flatten(program.passes.inputs)

    def measure(move: Move) -> tuple[float, float] | None:
        ends = [_moved(leaves, move, h) for h in (step, -step)]
        (above, sides_above), (below, sides_below) = (
            program.number(jax.tree.unflatten(tree, end), constants) for end in ends
        )
        if not all(map(np.array_equal, sides_above, sides_below)):
            return None
        length = 2 * step
        return (float(above) - float(below)) / length, _rise(slopes, move, *ends) / length

    return measure


def _moved(leaves: list[jax.Array], move: Move, step: float) -> list[Any]:
    """The leaves moved by step times the move."""
    if not isinstance(move, Coordinate):
        return [np.asarray(leaf) + step * change for leaf, change in zip(leaves, move, strict=True)]
    leaf = np.array(leaves[move.leaf])
    leaf.flat[move.index] += step
    return [*leaves[: move.leaf], leaf, *leaves[move.leaf + 1 :]]


def _rise(slopes: list[np.ndarray], move: Move, high: list[Any], low: list[Any]) -> float:
    """How much a number of these slopes rises from low to high, the two ends of a move."""
    if isinstance(move, Coordinate):
        slope, up, down = (leaves[move.leaf].flat[move.index] for leaves in (slopes, high, low))
        return float(slope * (up - down))
    return float(sum(np.vdot(s, up - down) for s, up, down in zip(slopes, high, low, strict=True)))


def _directions(leaves: list[jax.Array], rng: np.random.Generator) -> Iterator[Direction]:
    """Yields random directions of length 1."""
    for _ in range(ATTEMPTS):
        changes = [rng.standard_normal(leaf.shape, np.float32) for leaf in leaves]
        length = np.sqrt(sum(np.vdot(change, change) for change in changes))
        yield [change / length for change in changes]


def _coordinates(
    slopes: list[np.ndarray], leaf: int, rng: np.random.Generator
) -> Iterator[Coordinate]:
    """Yields elements of a leaf: the one whose slope is steepest, then random ones."""
    slope = slopes[leaf]
    yield Coordinate(leaf, int(np.abs(slope).argmax()))
    for index in rng.choice(slope.size, min(slope.size, ATTEMPTS), replace=False):
        yield Coordinate(leaf, int(index))


def _named_leaves(tree: Any) -> Iterable[tuple[str, Any]]:
    """The leaves with their paths, as "gradient.conv1.kernel"."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path)[2:-2].replace("']['", "."), leaf


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Allows float64 just where it is wanted, and matrix products in all their digits."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        jax.config.update("jax_enable_x64", before)
