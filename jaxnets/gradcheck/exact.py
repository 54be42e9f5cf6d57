"""Shows without a tolerance that a gradient is right: by computing in a finite field.

A backward pass is right if <dy, J x'> = <Jᵀ dy, x'> for every direction x' and the forward pass's
Jacobian J. `interpret` runs both passes' own operations modulo a prime: the left side from slopes
along a random direction, the right side from the gradient by hand. No number is rounded, so both
sides are equal to the bit, or the gradient is wrong. With random residues a wrong rational function
of degree d is equal by chance in about d of 2^50 draws. Not a step size, not autodiff: only what
the two passes do.

Source: Schwartz 1980 and Zippel 1979 for the chance; Wu et al. 2024 (Mirage) for exp.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnets.gradcheck import field, residues
from jaxnets.gradcheck.field import P, Q
from jaxnets.gradcheck.interpret import Interpreter, NotInterpretedError, Roots, Traced, is_numbers
from jaxnets.gradcheck.residues import Numbers, UnluckyError

EXACT, WRONG, OPEN = "exact", "WRONG", "open"
REDRAWS = 5  # Of all residues, where a divisor is 0.
MOST_ROOTS = 40  # That are searched.
ROOT_TRIES = 600  # Single numbers drawn again until all roots exist.
SAME_REAL = 1e-9  # Of two functions with a logarithm, whose slopes are equal.

Tree = Any


class Claim(NamedTuple):
    """What a function computes, and what must hold of it."""

    number: Any = 0.0
    gradient: Tree = (
        None  # Of the number, a tree like the inputs; where it is None, none is claimed.
    )
    same: tuple[Tree, Tree] = ((), ())  # Two trees that must be equal.


class Verdict(NamedTuple):
    """What the exact check found."""

    kind: str  # EXACT, WRONG, or OPEN: not decided.
    why: str = ""  # Where it is wrong, or the operation that is not interpreted.

    def __str__(self) -> str:
        return f"{self.kind} {self.why}" if self.kind == WRONG else self.kind


class Draw:
    """Draws residues for ordinary arrays."""

    def __init__(self, seed: int, *, with_exponent: bool):
        """Starts at a seed; residues with exponents can be arguments of exp."""
        self.random, self.with_exponent = np.random.default_rng(seed), with_exponent

    def numbers(self, real: Any, *, slope: bool = False) -> Numbers:
        """Random residues, which stand for an array, and a random direction if it has a slope."""
        real = np.asarray(real, np.float64)
        draw = self.random.integers
        return Numbers(
            draw(0, P, real.shape),
            real,
            draw(0, P, real.shape) if slope else None,
            draw(0, Q, real.shape) if self.with_exponent else None,
        )

    def shares(self, real: Any) -> Numbers:
        """The same, but each row adds up to exactly 1, as probabilities do."""
        drawn = self.numbers(real)

        def completed(part: np.ndarray, p: int) -> np.ndarray:
            rest = field.negative(field.sum_along(part[..., :-1], (part.ndim - 1,), p), p)
            return np.concatenate(
                [part[..., :-1], field.total(rest, 1 + 0 * rest, p)[..., None]], -1
            )

        exponent = None if drawn.exponent is None else completed(drawn.exponent, Q)
        return dataclasses.replace(drawn, value=completed(drawn.value, P), exponent=exponent)


# What the constants of a function are in a draw.
Constants = Callable[[Draw], Tree]


def check_exactly(
    function: Callable[[Tree, Tree], Claim], inputs: Tree, constants: Constants
) -> Verdict:
    """Shows that a function's claims hold, or names the first entry that is wrong.

    Half of all residues have no root. First a root is any function with its derivative: what then
    is right is right for the root. Only where that fails are residues searched that have roots.

    Args:
      function: (inputs, constants) -> what it computes, by hand and otherwise.
      inputs: Arrays; they decide on which branch of each kink the check is made.
      constants: Draws the function's other arguments.
    """
    for seed in range(REDRAWS):
        try:
            evaluation = Evaluation(function, inputs, constants, seed)
            verdict = Verdict(OPEN)
            for roots in Roots if evaluation.traced.takes_roots else (Roots.REAL,):
                evaluation.interpreter.roots = roots
                if roots is Roots.REAL and not evaluation.find_roots():
                    return Verdict(OPEN, "roots of so many numbers")
                verdict = evaluation.verdict()
                if verdict.kind == EXACT:
                    break
        except UnluckyError:
            continue
        except NotInterpretedError as error:
            return Verdict(OPEN, str(error))
        return verdict
    return Verdict(OPEN, "a divisor is 0")


class Evaluation:
    """A function and its arguments in one draw."""

    def __init__(self, function: Callable[..., Any], inputs: Tree, constants: Constants, seed: int):
        """Traces the function, and draws its arguments."""
        self.traced = Traced(function, *_drawn(Draw(seed, with_exponent=False), inputs, constants))
        self.draw = Draw(seed, with_exponent=self.traced.takes_exp)
        self.inputs, self.constants = _drawn(self.draw, inputs, constants)
        self.interpreter = Interpreter(with_exponent=self.traced.takes_exp)
        self.takes_log = not self.traced.names.isdisjoint({"log", "log1p"})

    def __call__(self, inputs: Tree) -> Any:
        """The function's result on these inputs."""
        self.interpreter.missing_roots = 0
        return self.traced(self.interpreter, inputs, self.constants)

    def verdict(self) -> Verdict:
        """Whether the claims hold in this draw."""
        claim = self(self.inputs)
        if differs := self._difference(*claim.same):
            return Verdict(WRONG, differs)
        if claim.gradient is not None and not _agree(claim, self.inputs):
            return Verdict(WRONG, self._wrong_entry())
        return Verdict(EXACT)

    def _difference(self, ours: Tree, theirs: Tree) -> str:
        """The first entry of two trees that differs; "" if none does.

        The field does not know a logarithm's value. Where one is taken, the slopes must be equal,
        and the numbers at one point in float64.
        """
        found, expected = list(_named(ours)), list(_named(theirs))
        if [name for name, _ in found] != [name for name, _ in expected]:
            return f"got {', '.join(name for name, _ in found)}"
        for (name, one), (_name, other) in zip(found, expected, strict=True):
            a, b = self.interpreter.lift(one), self.interpreter.lift(other)
            if a.shape != b.shape:
                return f"{name}, whose shape is {a.shape}, not {b.shape}"
            differs = a.value != b.value
            if self.takes_log:
                close = np.isclose(a.real, b.real, rtol=SAME_REAL, atol=SAME_REAL, equal_nan=True)
                differs &= (_slopes(a) != _slopes(b)) | ~close
            if differs.any():
                return name + _index(int(np.argmax(differs)), a.shape)
        return ""

    def _wrong_entry(self) -> str:
        """The first wrong entry of the gradient: a direction has ever fewer numbers."""
        leaves, tree = jax.tree.flatten(self.inputs, is_leaf=is_numbers)

        def wrong(number: int, places: range) -> bool:
            kept = np.zeros(leaves[number].value.size, bool)
            kept[places.start : places.stop] = True
            masked = [
                dataclasses.replace(
                    x, slope=_slopes(x) * (kept.reshape(x.shape) if n == number else 0)
                )
                for n, x in enumerate(leaves)
            ]
            inputs = jax.tree.unflatten(tree, masked)
            return not _agree(self(inputs), inputs)

        for number, (name, x) in enumerate(_named(self.inputs)):
            places = range(x.value.size)
            if not wrong(number, places):
                continue
            while len(places) > 1:
                middle = places.start + len(places) // 2
                first = range(places.start, middle)
                places = first if wrong(number, first) else range(middle, places.stop)
            return f"gradient.{name}" + _index(places.start, x.shape)
        return "gradient"

    def find_roots(self) -> bool:
        """Draws single numbers again until every root exists; False: not all were found."""
        self(self.inputs)
        missing = self.interpreter.missing_roots
        if missing > MOST_ROOTS:
            return False
        leaves, tree = jax.tree.flatten(self.inputs, is_leaf=is_numbers)
        sizes = np.array([leaf.value.size for leaf in leaves])
        for _ in range(ROOT_TRIES if missing else 0):
            number = self.draw.random.choice(len(leaves), p=sizes / sizes.sum())
            changed = list(leaves)
            changed[number] = self._redrawn(leaves[number])
            inputs = jax.tree.unflatten(tree, changed)
            self(inputs)
            if self.interpreter.missing_roots <= missing:
                leaves, self.inputs = changed, inputs
                missing = self.interpreter.missing_roots
            if not missing:
                break
        return not missing

    def _redrawn(self, numbers: Numbers) -> Numbers:
        """The same numbers but one."""
        place = self.draw.random.integers(numbers.value.size)
        fresh = self.draw.numbers(np.zeros(()), slope=True)
        there = np.zeros(numbers.value.size, bool)
        there[place] = True
        there = there.reshape(numbers.shape)
        new = residues.together(lambda old, new: np.where(there, new, old), numbers, fresh)
        return dataclasses.replace(new, real=numbers.real)


def _drawn(draw: Draw, inputs: Tree, constants: Constants) -> tuple[Tree, Tree]:
    return jax.tree.map(lambda x: draw.numbers(x, slope=True), inputs), constants(draw)


def _slopes(x: Numbers) -> np.ndarray:
    return np.zeros_like(x.value) if x.slope is None else x.slope


def _agree(claim: Claim, inputs: Tree) -> bool:
    """Whether the number's slope is <gradient, direction>; an entry of the wrong shape is wrong."""
    slope = int(_slopes(claim.number)) if isinstance(claim.number, Numbers) else 0
    given = jax.tree.leaves(claim.gradient, is_leaf=lambda x: x is None or is_numbers(x))
    expected = 0
    leaves = jax.tree.leaves(inputs, is_leaf=is_numbers)
    if len(given) != len(leaves):
        return False
    for one, x in zip(given, leaves, strict=True):
        if one is None:
            continue
        if one.shape != x.shape:
            return False
        value = (
            residues.constant(one, with_exponent=False).value
            if isinstance(one, np.ndarray)
            else one.value
        )
        terms = field.product(value, _slopes(x))
        expected += int(field.sum_along(terms, tuple(range(terms.ndim))))
    return slope == expected % P


def _index(place: int | np.integer, shape: tuple[int, ...]) -> str:
    return f"{list(map(int, np.unravel_index(place, shape)))}" if shape else ""


def _named(tree: Tree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_numbers):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf
