"""Compares a wrong gradient with the right one, and names the common error that explains it."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnets.base.language import _

CLOSE = 1e-9  # The tolerance for numbers in float64 that should be the same.
NICE = (-1, 2, -2, 1 / 2, -1 / 2)  # Factors of one number that are a hint.
MOST_FACTORS = 3  # In a term, besides the incoming gradient,
MOST_ARRAYS = 12  # of the first so many arrays.

Known = Mapping[str, np.ndarray]  # What a backward pass computes with, by the names in its code.


def same(yours: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays are the same, up to rounding."""
    largest = np.abs(right[np.isfinite(right)]).max(initial=0) or 1
    return yours.shape == right.shape and np.allclose(
        yours, right, rtol=CLOSE, atol=CLOSE * largest, equal_nan=True
    )


def looks(label: str, yours: np.ndarray, right: np.ndarray) -> str:
    """Compares a wrong array with the right one, without showing the right one."""
    if yours.ndim > 1 and same(yours.T, right):
        return _("{}: it is transposed", label)
    if yours.shape != right.shape:
        return _("{}: expected the shape {}, got {}", label, right.shape, yours.shape)
    if not np.isfinite(yours).all():
        return _("{}: it holds numbers that are not finite", label)
    if np.allclose(yours, right):
        if np.array_equal(yours, yours.astype(np.float32)):
            return _("{}: right, but rounded to fewer digits than float64 has", label)
        return _("{}: almost right; is it by differences, or is a small number added?", label)
    steepest = np.abs(right).argmax()
    ratio = yours.flat[steepest] / (right.flat[steepest] or 1)
    if math.isclose(ratio, 100):
        return _("{}: 100 times the right number; is it in percent?", label)
    if yours.size == 1 and not any(math.isclose(ratio, nice) for nice in NICE):
        return _("{}: the number is wrong", label)  # Its factor would tell the right one.
    if ratio and np.allclose(yours, ratio * right, rtol=0, atol=CLOSE * np.abs(yours).max()):
        return _("{}: each number is {} times the right one", label, format(ratio, ".4g"))
    if np.allclose(np.sort(yours, axis=None), np.sort(right, axis=None)):
        return _("{}: the right numbers are in the wrong places", label)
    return _("{}: {} of {} numbers are wrong", label, _wrong(yours, right).sum(), yours.size)


def without(label: str, yours: np.ndarray, right: np.ndarray, name: str, d_out: np.ndarray) -> str:
    """Says that a gradient lacks the incoming gradient as a factor; "" if it does not.

    Args:
      label: The gradient's name in the code.
      yours: The wrong gradient, in float64.
      right: The right one.
      name: The name of the incoming gradient in the code.
      d_out: That gradient, a number for each output or for each example.
    """
    if yours.shape != right.shape or d_out.shape != right.shape[: d_out.ndim]:
        return ""
    factor = d_out.reshape(d_out.shape + (1,) * (right.ndim - d_out.ndim))
    if same(yours * factor, right):
        return _("{}: the factor {} is missing", label, name)
    if same(-yours * factor, right):
        return _("{}: the factor {} is missing, and the sign is wrong", label, name)
    return ""


def _wrong(yours: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which numbers of an array are wrong."""
    return ~(np.abs(yours - right) <= CLOSE * (np.abs(right).max(initial=0) or 1))


def cause(label: str, yours: np.ndarray, right: np.ndarray, d_out: str, known: Known) -> str:
    """Says what is wrong with a gradient of a user's own layer.

    Args:
      label: Its name in the code: dx, or d_params["kernel"].
      yours: The wrong gradient, in float64.
      right: Autodiff's.
      d_out: The name of the incoming gradient in `known`.
      known: The arrays that the backward pass uses.
    """
    look = looks(label, yours, right)
    if not np.isfinite(yours).all():
        return look
    for axes, total in _sums(yours, right.shape):
        if axes and same(total, right):
            return _("{}: the sum over {} is missing", label, _axes(axes))
    for axes in _choices(known[d_out].ndim):
        size = math.prod(known[d_out].shape[axis] for axis in axes)
        if size > 1 and same(size * yours, right):
            hint = _("{} is the size of {}: a mean in place of a sum?", size, _axes(axes))
            return f"{look} ({hint})"
    if same(yours.T, right) or _factor(yours, right):
        return look
    if text := _untransposed(yours, right, d_out, known):
        return _("{}: a transpose is missing: {}", label, text)
    factors = _factors(d_out, known)
    for term in _terms(Term(d_out, known[d_out]), factors):
        for axes, found in _sums(term.value, yours.shape):
            if factor := _factor(yours, found):  # Then yours is this term.
                for others, total in _sums(term.value, right.shape):
                    if same(factor * total, right):
                        over = _axes(axes), _axes(others)
                        return _("{}: summed over {}, expected over {}", label, *over)
                for one in factors:
                    more = _product([term, one])
                    if more and (times := _factor(right, factor * more.value.sum(axes))):
                        return _("{}: a factor is missing: {}", label, _multiple(times, one.text))
            elif yours.shape == right.shape and (factor := _factor(right - yours, found)):
                text = _multiple(factor, term.text)
                text += _(", summed over {}", _axes(axes)) if axes else ""
                return _("{}: a term is missing: {}", label, text)
    return look


def _untransposed(yours: np.ndarray, right: np.ndarray, d_out: str, known: Known) -> str:
    """The matrix product that a gradient should be, if it has the matrix without its transpose."""
    dy = known[d_out]
    for name, array in known.items():
        if array.ndim == dy.ndim == 2 and array.shape == array.T.shape:
            if dy.shape[1] == len(array) and same(dy @ array, yours) and same(dy @ array.T, right):
                return f"{d_out} @ {name}.T"
            if dy.shape[0] == len(array) and same(array @ dy, yours) and same(array.T @ dy, right):
                return f"{name}.T @ {d_out}"
    return ""


def first_wrong(label: str, yours: np.ndarray, right: np.ndarray) -> str:
    """Shows the first wrong number of an array and the right one, or the shapes if they differ."""
    if yours.shape != right.shape:
        return _("{}: expected the shape {}, got {}", label, right.shape, yours.shape)
    where = np.argwhere(_wrong(yours, right))[0]
    place = f"{label}[{', '.join(map(str, where))}]" if yours.ndim else label
    got, expected = (format(array[tuple(where)], ".6g") for array in (yours, right))
    return _("the first wrong number, {}, is {}, expected {}", place, got, expected)


class Term(NamedTuple):
    """A product that may be part of a gradient."""

    text: str  # As it could stand in the code.
    value: np.ndarray


def _factors(d_out: str, known: Known) -> list[Term]:
    """The arrays other than the incoming gradient, each once, and 1 - a for a probability a."""
    factors = list[Term]()
    for name, array in known.items():
        if name != d_out and not any(np.array_equal(array, one.value) for one in factors):
            factors.append(Term(name, array))
            if np.all((array >= 0) & (array <= 1)):
                factors.append(Term(f"(1 - {name})", 1 - array))
    return factors[:MOST_ARRAYS]


def _terms(start: Term, factors: Sequence[Term]) -> Iterator[Term]:
    """Yields a term times a few of the factors, for each way to choose them."""
    for count in range(MOST_FACTORS + 1):
        for chosen in itertools.combinations_with_replacement(factors, count):
            if product := _product([start, *chosen]):
                yield product


def _product(terms: Sequence[Term]) -> Term | None:
    """The product of terms; None if their shapes do not fit."""
    try:
        value = math.prod((one.value for one in terms[1:]), start=terms[0].value)
    except ValueError:
        return None
    return Term(" * ".join(one.text for one in terms), value)


def _sums(term: np.ndarray, shape: Sequence[int]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yields each sum of a term over some axes, or none, that has the given shape."""
    for axes in ((), *_choices(term.ndim)):
        if tuple(size for axis, size in enumerate(term.shape) if axis not in axes) == shape:
            yield axes, term.sum(axes)


def _choices(ndim: int) -> list[tuple[int, ...]]:
    """Each way to choose some of an array's axes."""
    counts = range(1, ndim + 1)
    return [axes for n in counts for axes in itertools.combinations(range(ndim), n)]


def _factor(array: np.ndarray, term: np.ndarray) -> float:
    """The number c for which array = c term; 0 if there is none."""
    if array.shape != term.shape or not np.any(array) or not np.any(term):
        return 0
    steepest = np.abs(term).argmax()
    factor = float(array.flat[steepest] / term.flat[steepest])
    if abs(factor - np.rint(factor)) <= CLOSE:
        factor = float(np.rint(factor))
    return factor if same(factor * term, array) else 0


def _multiple(factor: float, text: str) -> str:
    return text if factor == 1 else f"{factor:.4g} * {text}"


def _axes(axes: Sequence[int]) -> str:
    return _(" and ").join(_("axis {}", axis) for axis in axes)
