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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnets.base.language import Text
from jaxnets.gradcheck import field, residues
from jaxnets.gradcheck.errors import named_leaves
from jaxnets.gradcheck.field import P, Q
from jaxnets.gradcheck.interpret import (
    Interpreter,
    MissingRootsError,
    NotInterpretedError,
    Roots,
    Traced,
)
from jaxnets.gradcheck.residues import Numbers, UnluckyError

EXACT, WRONG, OPEN = "exact", "WRONG", "open"
REDRAWS = 5  # Of all residues, where a divisor is 0.
MOST_ROOTS = 40  # That are searched.
ROOT_TRIES = 400  # Single numbers drawn again in vain: then the roots are given up.
SAME_REAL = 1e-9  # Of two functions with a logarithm, whose slopes are equal.

Tree = Any  # Numbers or ordinary arrays in dicts, tuples or other containers.


class Claim(NamedTuple):
    """What a function computes, and what must hold of it."""

    number: Any = 0.0
    gradient: Tree = None  # The number's, a tree like the inputs; None in a place: not computed.
    same: tuple[Tree, Tree] = ((), ())  # Two trees that must be equal.


class Verdict(NamedTuple):
    """What the exact check found."""

    kind: str  # EXACT, WRONG, or OPEN: not decided.
    why: Text | str = ""  # The entry that is wrong, or why it is not decided.


TOO_MANY_ROOTS = Verdict(OPEN, Text("too many numbers need a root"))


class Draw:
    """Draws residues for ordinary arrays."""

    def __init__(self, seed: int, *, with_exponent: bool = False, with_sign: bool = False):
        """Says what the residues are drawn for.

        Args:
          seed: The seed of the draws.
          with_exponent: Whether they have exponents, to be arguments of exp.
          with_sign: Whether those of negative numbers are no squares, as all others are: then
            sqrt(x²) is |x|.
        """
        self.random = np.random.default_rng(seed)
        self.with_exponent, self.with_sign = with_exponent, with_sign

    def numbers(self, real: Any, *, slope: bool = False) -> Numbers:
        """Random residues, which stand for an array, and a random direction if it has a slope."""
        real = np.asarray(real, np.float64)
        draw = self.random.integers
        value = draw(0, P, real.shape)
        if self.with_sign:  # Of a residue and its negative, one is a square.
            value = np.where(field.is_square(value) == (real >= 0), value, field.negative(value))
        return Numbers(
            value,
            real,
            draw(0, P, real.shape) if slope else None,
            draw(0, Q, real.shape) if self.with_exponent else None,
        )

    def shares(self, real: Any) -> Numbers:
        """The same, but each row adds up to exactly 1, as probabilities do."""
        drawn = self.numbers(real)

        def completed(part: np.ndarray, p: int) -> np.ndarray:
            others = part[..., :-1]
            rest = field.negative(field.sum_along(others, (part.ndim - 1,), p), p)
            last = field.total(rest, np.ones_like(rest), p)
            return np.concatenate([others, last[..., None]], -1)

        exponent = None if drawn.exponent is None else completed(drawn.exponent, Q)
        return dataclasses.replace(drawn, value=completed(drawn.value, P), exponent=exponent)


class Question(NamedTuple):
    """What is to be shown of a function."""

    claim: Callable[[Tree, Tree], Claim]  # Of (inputs, constants).
    constants: Callable[[Draw], Tree]  # Draws the constants.


class Defect(NamedTuple):
    """A claim that does not hold: what differs, and by how much."""

    entry: str
    amount: object  # Does not depend on the functions that the field does not know.


def check_exactly(question: Question, inputs: Tree) -> Verdict:
    """Shows that a function's claims hold, or names the first entry that is wrong.

    Half of all residues have no root. First a root is any function with its derivative: what then
    is right is right for the root. Only where that fails are residues searched that have roots.

    Args:
      question: What is to be shown.
      inputs: Arrays; they decide on which branch of each kink the check is made.
    """
    for seed in range(REDRAWS):
        try:
            return _verdict_of(Evaluation(question, inputs, seed))
        except UnluckyError:
            continue
        except MissingRootsError:  # With other functions, whose values have no root.
            return TOO_MANY_ROOTS
        except NotInterpretedError as error:
            return Verdict(OPEN, str(error))
    return Verdict(OPEN, Text("a divisor is 0"))


def _verdict_of(evaluation: "Evaluation") -> Verdict:
    """The verdict with the first kind of root that shows the claims, or with real roots."""
    if evaluation.traced.takes_roots:
        for roots in (Roots.FORMAL, Roots.ALONE):
            evaluation.interpreter.roots = roots
            if evaluation.defect() is None:
                return Verdict(EXACT)
        evaluation.interpreter.roots = Roots.REAL
        if not evaluation.find_roots():
            return TOO_MANY_ROOTS
    defect = evaluation.defect()
    if defect is None:
        return Verdict(EXACT)
    with residues.other_functions():
        if evaluation.defect() != defect:
            return Verdict(OPEN, Text("the value of a logarithm, or of another such function"))
    return Verdict(WRONG, defect.entry or evaluation.wrong_entry())


class Evaluation:
    """A function and its arguments in one draw."""

    def __init__(self, question: Question, inputs: Tree, seed: int):
        """Traces the function, and draws its arguments."""

        def drawn(draw: Draw) -> tuple[Tree, Tree]:
            numbers = jax.tree.map(lambda x: draw.numbers(x, slope=True), inputs)
            return numbers, question.constants(draw)

        self.traced = Traced(question.claim, *drawn(Draw(seed)))
        takes_exp = self.traced.takes_exp
        self.draw = Draw(seed, with_exponent=takes_exp, with_sign=self.traced.takes_roots)
        self.inputs, self.constants = drawn(self.draw)
        self.interpreter = Interpreter(with_exponent=takes_exp)
        self.takes_log = not self.traced.names.isdisjoint({"log", "log1p"})

    def __call__(self, inputs: Tree) -> Claim:
        """What the function claims of these inputs."""
        self.interpreter.roots_taken = 0
        # With a logarithm, equal trees have equal slopes.
        return self.traced(self.interpreter, inputs, self.constants, first_slope=not self.takes_log)

    def defect(self) -> Defect | None:
        """What differs in this draw; None if all claims hold."""
        claim = self(self.inputs)
        if differs := self._difference(*claim.same):
            return differs
        amount = 0 if claim.gradient is None else self._error_of(claim, self.inputs)
        return None if amount == 0 else Defect("", amount)

    def _difference(self, ours: Tree, theirs: Tree) -> Defect | None:
        """The first entry in which two trees differ.

        The field does not know a logarithm's value. Where one is taken, the slopes must be equal,
        and the numbers at one point in float64.
        """
        found, expected = dict(named_leaves(ours)), dict(named_leaves(theirs))
        if list(found) != list(expected):
            return Defect(f"{', '.join(expected)}, got {', '.join(found)}", None)
        for name, other in expected.items():
            a, b = self.interpreter.lift(found[name]), self.interpreter.lift(other)
            if a.shape != b.shape:
                return Defect(f"{name}, whose shape is {a.shape}, not {b.shape}", None)
            values, slopes = _minus(a.value, b.value), _minus(_slopes(a), _slopes(b))
            differs = values != 0
            if self.takes_log:
                close = np.isclose(a.real, b.real, rtol=SAME_REAL, atol=SAME_REAL, equal_nan=True)
                differs &= (slopes != 0) | ~close
                values = slopes
            if differs.any():
                place = int(np.argmax(differs))
                return Defect(name + _index(place, a.shape), int(values.flat[place]))
        return None

    def _error_of(self, claim: Claim, inputs: Tree) -> int | str:
        """By how much the number's slope and <gradient, direction> differ; or the wrong shape."""
        error = int(_slopes(self.interpreter.lift(claim.number)))
        given = jax.tree.leaves(claim.gradient, is_leaf=lambda x: x is None)
        leaves = jax.tree.leaves(inputs)
        if len(given) != len(leaves):
            return "number of arrays"
        for one, x in zip(given, leaves, strict=True):
            if one is None:
                continue
            if one.shape != x.shape:
                return "shape"
            terms = field.product(self.interpreter.lift(one).value, _slopes(x))
            error -= int(field.sum_along(terms, tuple(range(terms.ndim))))
        return error % P

    def wrong_entry(self) -> str:
        """The first wrong entry of the gradient: a direction has ever fewer numbers."""
        leaves, tree = jax.tree.flatten(self.inputs)

        def wrong(number: int, places: range) -> bool:
            kept = np.zeros(leaves[number].value.size, bool)
            kept[places.start : places.stop] = True
            masked = [dataclasses.replace(x, slope=np.zeros_like(x.value)) for x in leaves]
            slope = _slopes(leaves[number]) * kept.reshape(leaves[number].shape)
            masked[number] = dataclasses.replace(leaves[number], slope=slope)
            inputs = jax.tree.unflatten(tree, masked)
            return self._error_of(self(inputs), inputs) != 0

        for number, (name, x) in enumerate(named_leaves(self.inputs)):
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
        """Draws single numbers again until every root exists; False: not all were found.

        The operations get their roots in the program's order: a try ends at the first without.
        """
        leaves, tree = jax.tree.flatten(self.inputs)
        missing, in_vain = self._missing_roots(self.inputs), 0
        while missing and missing.numbers <= MOST_ROOTS and in_vain < ROOT_TRIES:
            number = int(self.draw.random.integers(len(leaves)))  # Few arrays lead to a root.
            changed = list(leaves)
            changed[number] = self._redrawn(leaves[number])
            inputs = jax.tree.unflatten(tree, changed)
            left = self._missing_roots(inputs)
            in_vain = 0 if not left or left.is_less_than(missing) else in_vain + 1
            if not left or not missing.is_less_than(left):
                leaves, self.inputs, missing = changed, inputs, left
        return not missing

    def _missing_roots(self, inputs: Tree) -> MissingRootsError | None:
        """The first roots that do not exist for these inputs."""
        try:
            self(inputs)
        except MissingRootsError as error:
            return error
        return None

    def _redrawn(self, numbers: Numbers) -> Numbers:
        """The same numbers but one."""
        place = self.draw.random.integers(numbers.value.size)
        fresh = self.draw.numbers(numbers.real.flat[place], slope=True)
        there = np.zeros(numbers.value.size, bool)
        there[place] = True
        there = there.reshape(numbers.shape)
        new = residues.together(lambda old, new: np.where(there, new, old), numbers, fresh)
        return dataclasses.replace(new, real=numbers.real)


def _slopes(x: Numbers) -> np.ndarray:
    return np.zeros_like(x.value) if x.slope is None else x.slope


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return field.total(a, field.negative(b))


def _index(place: int | np.integer, shape: tuple[int, ...]) -> str:
    return f"{list(map(int, np.unravel_index(place, shape)))}" if shape else ""
