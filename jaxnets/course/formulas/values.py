"""Computes a formula on arrays: of NumPy in float64, or of JAX, also while JAX traces."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.course.formulas.tree import (
    Call,
    Condition,
    Entry,
    Formula,
    Letter,
    Node,
    Number,
    Over,
    Power,
    Product,
    Scalar,
    Total,
)

GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715
MOST_NUMBERS = (
    10_000_000  # Of all combinations of a term's letters: a formula may come from anyone.
)


class TooLargeError(ValueError):
    """A term has too many letters."""


class Function(NamedTuple):
    """A function that formulas may use, on arrays of `xp`, which is NumPy or jax.numpy."""

    compute: Callable[..., Any]  # (xp, *arrays)
    arguments: int = 1


def _sigmoid(xp: Any, x: Any) -> Any:
    return 1 / (1 + xp.exp(-x))


def _sigmoid_slope(xp: Any, x: Any) -> Any:
    y = _sigmoid(xp, x)
    return y * (1 - y)


def _gelu(xp: Any, x: Any) -> Any:
    return x * (1 + xp.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3))) / 2


def _gelu_slope(xp: Any, x: Any) -> Any:
    t = xp.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3))
    return (1 + t) / 2 + x * (1 - t**2) * GELU_SCALE * (1 + 3 * GELU_CUBIC * x**2) / 2


# Each activation, and its slope with ′.
FUNCTIONS: dict[str, Function] = {
    "exp": Function(lambda xp, x: xp.exp(x)),
    "log": Function(lambda xp, x: xp.log(x)),
    "sqrt": Function(lambda xp, x: xp.sqrt(x)),
    "max": Function(lambda xp, a, b: xp.maximum(a, b), 2),
    "min": Function(lambda xp, a, b: xp.minimum(a, b), 2),
    "σ": Function(_sigmoid),
    "σ′": Function(_sigmoid_slope),
    "tanh": Function(lambda xp, x: xp.tanh(x)),
    "tanh′": Function(lambda xp, x: 1 - xp.tanh(x) ** 2),
    "relu": Function(lambda xp, x: xp.maximum(x, 0)),
    "relu′": Function(lambda xp, x: xp.where(x > 0, 1.0, 0.0)),
    "gelu": Function(_gelu),
    "gelu′": Function(_gelu_slope),
}
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">": lambda a, b: a > b,
    "≥": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "≤": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    "≠": lambda a, b: a != b,
}


class Named(NamedTuple):
    """An array with a letter for each axis."""

    array: Any
    letters: str


class Values(NamedTuple):
    """What the names of a formula stand for."""

    arrays: Mapping[str, Any]
    scalars: Mapping[str, float]
    sizes: Mapping[str, int]  # Of each letter.
    xp: Any = np  # NumPy, or jax.numpy.


def value_of(formula: Formula, values: Values) -> Any:
    """The array of a formula; an index on the left alone repeats the numbers.

    Raises:
      TooLargeError: A term has too many letters.
    """
    _expect_small(formula.letters, values.sizes)
    found = named_value(formula.value, values)
    wanted = "".join(formula.letters)
    array = _arranged(values.xp, found, wanted)
    shape = [values.sizes[letter] for letter in wanted]
    return values.xp.broadcast_to(array, shape)


def _expect_small(letters: Sequence[str], sizes: Mapping[str, int]) -> None:
    if math.prod(sizes[letter] for letter in set(letters)) > MOST_NUMBERS:
        raise TooLargeError


def _arranged(xp: Any, named: Named, letters: str) -> Any:
    """The array with its axes in the order of these letters, and an axis of size 1 for each other.

    `parse` has refused a formula whose right side has further letters.
    """
    if not named.letters:
        return named.array  # It fits every shape.
    order = [named.letters.index(letter) for letter in letters if letter in named.letters]
    array = named.array
    if order != sorted(order):
        array = xp.transpose(array, order)
    new = [axis for axis, letter in enumerate(letters) if letter not in named.letters]
    return xp.expand_dims(array, new) if new else array


def _together(values: Values, *parts: Named) -> tuple[str, list[Any]]:
    """The letters of several arrays, and the arrays with these axes."""
    letters = "".join(dict.fromkeys("".join(part.letters for part in parts)))
    _expect_small(letters, values.sizes)
    return letters, [_arranged(values.xp, part, letters) for part in parts]


def named_value(node: Node, values: Values) -> Named:
    """The value of a part of a formula.

    Raises:
      TooLargeError: A term has too many letters.
    """
    match node:
        case Number(value):
            return Named(np.float64(value), "")
        case Scalar(name):
            return Named(np.float64(values.scalars[name]), "")
        case Letter(letter):
            return Named(np.arange(float(values.sizes[letter])), letter)
        case Entry():
            return _entry(node, values)
        case Condition(terms, signs):
            letters, arrays = _together(values, *(named_value(one, values) for one in terms))
            holds = True
            for sign, left, right in zip(signs, arrays[:-1], arrays[1:], strict=True):
                holds = holds & COMPARISONS[sign](left, right)
            return Named(values.xp.where(holds, 1.0, 0.0), letters)
        case Call(function, arguments):
            parts = (named_value(one, values) for one in arguments)
            letters, arrays = _together(values, *parts)
            return Named(FUNCTIONS[function].compute(values.xp, *arrays), letters)
        case Power(base, exponent):
            return _power(base, exponent, values)
        case Product():
            return _product(node, (), values)
        case Total(terms, signs):
            letters, arrays = _together(values, *(named_value(one, values) for one in terms))
            signed = [
                array if sign > 0 else -array for sign, array in zip(signs, arrays, strict=True)
            ]
            total = signed[0]
            for array in signed[1:]:
                total = total + array
            return Named(total, letters)
        case Over(kind, letters, body):
            return _sum(letters, body, values) if kind == "sum" else _max(letters, body, values)
    raise TypeError(node)


def _entry(entry: Entry, values: Values) -> Named:
    """An array by its indices; beyond its ends it is 0."""
    array, xp = values.arrays[entry.name], values.xp
    if all(entry.letters) and len(set(entry.letters)) == len(entry.letters):
        return Named(array, "".join(entry.letters))
    indices = [named_value(one, values._replace(xp=np)) for one in entry.indices]
    letters, places = _together(values._replace(xp=np), *indices)
    inside = np.array(True)
    kept = []
    for place, size in zip(places, array.shape, strict=True):
        place = np.asarray(place)
        whole = place.astype(int)
        inside = inside & (place == whole) & (whole >= 0) & (whole < size)
        kept.append(np.clip(whole, 0, size - 1))
    found = array[tuple(np.broadcast_arrays(*kept))]
    return Named(found if inside.all() else xp.where(inside, found, 0.0), letters)


def _power(base: Node, exponent: Node, values: Values) -> Named:
    under, over = named_value(base, values), named_value(exponent, values)
    if not over.letters:
        number = float(over.array)
        return Named(under.array ** (int(number) if number.is_integer() else number), under.letters)
    letters, (a, b) = _together(values, under, over)
    return Named(a**b, letters)


def _product(node: Product, summed: Sequence[str], values: Values) -> Named:
    """A product, summed over some letters: one einsum."""
    parts = [named_value(one, values) for one in node.factors]
    for divisor in node.divisors:
        found = named_value(divisor, values)
        parts.append(Named(1 / found.array, found.letters))
    scalars = [part.array for part in parts if not part.letters]
    arrays = [part for part in parts if part.letters]
    _expect_small("".join(part.letters for part in arrays), values.sizes)
    letters = "".join(dict.fromkeys("".join(part.letters for part in arrays)))
    out = "".join(letter for letter in letters if letter not in summed)
    repeated = math.prod(values.sizes[letter] for letter in summed if letter not in letters)
    if len(arrays) == 1 and out == letters:
        found = arrays[0].array
    elif arrays:
        subscripts = f"{','.join(part.letters for part in arrays)}->{out}"
        operands = [part.array for part in arrays]
        found = values.xp.einsum(subscripts, *operands, optimize="greedy")
    else:
        found = np.float64(1)
    for scalar in [*scalars, *([repeated] if repeated != 1 else [])]:
        found = found * scalar
    return Named(found, out)


def _sum(letters: Sequence[str], body: Node, values: Values) -> Named:
    while isinstance(body, Over) and body.kind == "sum" and not set(body.letters) & set(letters):
        letters, body = (*letters, *body.letters), body.body
    if isinstance(body, Product):
        return _product(body, letters, values)
    return _product(Product((body,)), letters, values)


def _max(letters: Sequence[str], body: Node, values: Values) -> Named:
    found = named_value(body, values)
    axes = tuple(found.letters.index(letter) for letter in letters if letter in found.letters)
    rest = "".join(letter for letter in found.letters if letter not in letters)
    return Named(values.xp.max(found.array, axis=axes), rest) if axes else found
