"""Arrays of numbers of the exact check: residues, with a slope and an exponential."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from fractions import Fraction

import numpy as np

from jaxnets.gradcheck import field
from jaxnets.gradcheck.field import P, Q, Residues

LARGEST_DENOMINATOR = 1_000_000  # Of a number that is recognized as a fraction.
MOST_DIGITS = 12  # Of a number that is taken as the decimal fraction that it is written as.
ROUNDING = 1e-15  # Relative: Python has computed a constant such as 2 * 0.1 * 0.1.
SQRT_PI = 3**20 % P  # A square that stands for the root of π: π is no fraction.


class UnluckyError(Exception):
    """These random residues cannot be used: a divisor is 0."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """An array of numbers of the field.

    `exponent` and `factor` say what exp of a number is: OMEGA^exponent times the factor. So exp
    turns sums into products, and takes a logarithm back, with the factor's own exponent. `real` is
    an ordinary number; it only decides which branch is taken.
    """

    value: Residues  # Modulo P.
    real: np.ndarray  # float64.
    slope: Residues | None = None  # Its derivative along the direction; None: 0.
    exponent: Residues | None = None  # Modulo Q; None in a program without exp.
    factor: Residues | None = None  # Modulo P; None: 1.
    factor_exponent: Residues | None = None  # The factor's exponent, modulo Q.

    def __post_init__(self) -> None:
        """Gives the parts of one operand the shape of the result."""
        for name in ("slope", "exponent", "factor", "factor_exponent"):
            part = getattr(self, name)
            if part is not None and part.shape != self.value.shape:
                object.__setattr__(self, name, np.broadcast_to(part, self.value.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.value.shape

    def without_slope(self) -> "Numbers":
        """The same numbers as constants."""
        return dataclasses.replace(self, slope=None)

    def alone(self) -> "Numbers":
        """The same numbers, whose exponential is a function of their value and nothing else.

        It is for what takes products of numbers, which may hold logarithms.
        """
        if self.factor is None:
            return self
        exponent = unknown(self.value)
        return dataclasses.replace(self, exponent=exponent, factor=None, factor_exponent=None)


Values = Numbers | np.ndarray  # Arrays that no input reaches stay ordinary ones.


_choice: ContextVar[int] = ContextVar("choice", default=0)


@contextlib.contextmanager
def other_functions() -> Generator[None]:
    """Lets `stand_in` choose other functions within the block."""
    token = _choice.set(_choice.get() + 1)
    try:
        yield
    finally:
        _choice.reset(token)


def stand_in(value: Residues, salt: int) -> Residues:
    """A random function in place of one whose values the field does not know: log, erf, a root."""
    return field.scrambled(value, P, salt + (_choice.get() << 32))


def unknown(value: Residues) -> Residues:
    """An exponent for a number whose exponential is not related to any other's."""
    return field.scrambled(value, Q, salt=1)


@functools.cache
def literal(x: float) -> tuple[int, int]:
    """The residues modulo P and Q of a constant of a program.

    It is the fraction that it rounds, or the root of one, also times or divided by π; otherwise it
    is taken as it is stored.

    >>> from jaxnets.gradcheck.field import P
    >>> literal(1 / 3)[0] * 3 % P, literal(0.044715)[0] * 1_000_000 % P
    (1, 44715)
    >>> two, quotient = literal(math.sqrt(2))[0], literal(math.sqrt(2 / math.pi))[0]
    >>> two * two % P, quotient * literal(math.sqrt(math.pi))[0] % P == two
    (2, True)
    """
    if not math.isfinite(x):
        return 0, 0  # The filling of a maximum, which no finite number loses to.
    if (fraction := _rounded_fraction(x)) is not None:
        return _residues(fraction)
    for power in (-1, 0, 1):
        square = Fraction(x * x / math.pi**power).limit_denominator(100)
        rounded = math.copysign(math.sqrt(square * math.pi**power), x)
        if square and math.isclose(rounded, x, rel_tol=ROUNDING):
            of_square = np.array([_residues(square)[0]])
            if field.is_square(of_square).all():
                value = int(field.root(of_square)[0]) * pow(SQRT_PI, power, P) % P
                value = value if x > 0 else P - value
                return value, int(unknown(np.array(value)))
    return _residues(Fraction(x))


def fraction_of(x: float) -> Fraction:
    """The fraction that a constant rounds; the constant as it is stored, if it is no simple one."""
    return _rounded_fraction(x) or Fraction(x)


def _rounded_fraction(x: float) -> Fraction | None:
    simple = Fraction(x).limit_denominator(LARGEST_DENOMINATOR)
    for fraction in (simple, Fraction(f"{x:.{MOST_DIGITS}g}")):
        if math.isclose(float(fraction), x, rel_tol=ROUNDING):
            return fraction
    return None


def _residues(fraction: Fraction) -> tuple[int, int]:
    up, down = fraction.numerator, fraction.denominator
    return up * pow(down, -1, P) % P, up * pow(down, -1, Q) % Q


def constant(array: np.ndarray, *, with_exponent: bool) -> Numbers:
    """An ordinary array as numbers of the field."""
    real = np.asarray(array, np.float64)
    different, places = np.unique(real, return_inverse=True)
    pairs = np.array([literal(float(x)) for x in different], np.int64).reshape(-1, 2)
    value, exponent = pairs[places].reshape(*real.shape, 2).transpose(-1, *range(real.ndim))
    return Numbers(value, real, exponent=exponent if with_exponent else None)


def together(function: Callable[..., np.ndarray], *numbers: Numbers) -> Numbers:
    """Moves numbers: the function moves the arrays of each of their parts in the same way."""

    def moved(parts: Sequence[np.ndarray | None], filling: int) -> np.ndarray | None:
        if all(part is None for part in parts):
            return None
        filled = [
            np.full(x.shape, filling, np.int64) if part is None else part
            for part, x in zip(parts, numbers, strict=True)
        ]
        return function(*filled)

    return Numbers(
        function(*(x.value for x in numbers)),
        function(*(x.real for x in numbers)),
        moved([x.slope for x in numbers], 0),
        moved([x.exponent for x in numbers], 0),
        moved([x.factor for x in numbers], 1),
        moved([x.factor_exponent for x in numbers], 1),
    )


def _sum_of_parts(a: Residues | None, b: Residues | None, p: int = P) -> Residues | None:
    if a is None or b is None:
        return b if a is None else a
    return field.total(a, b, p)


def _product_of_parts(a: Residues | None, b: Residues | None, p: int = P) -> Residues | None:
    if a is None or b is None:
        return b if a is None else a
    return field.product(a, b, p)


def _scaled(slope: Residues | None, by: Residues) -> Residues | None:
    return None if slope is None else field.product(slope, by)


def add(a: Numbers, b: Numbers) -> Numbers:
    """The sum; exp(a + b) = exp(a) exp(b)."""
    return Numbers(
        field.total(a.value, b.value),
        a.real + b.real,
        _sum_of_parts(a.slope, b.slope),
        _sum_of_parts(a.exponent, b.exponent, Q) if a.exponent is not None else None,
        _product_of_parts(a.factor, b.factor),
        _product_of_parts(a.factor_exponent, b.factor_exponent, Q),
    )


def neg(a: Numbers) -> Numbers:
    """The negative; exp(-a) = 1 / exp(a)."""
    return Numbers(
        field.negative(a.value),
        -a.real,
        None if a.slope is None else field.negative(a.slope),
        None if a.exponent is None else field.negative(a.exponent, Q),
        None if a.factor is None else field.inverse(a.factor),
        None if a.factor_exponent is None else field.inverse(a.factor_exponent, Q),
    )


def sub(a: Numbers, b: Numbers) -> Numbers:
    """The difference."""
    return add(a, neg(b))


def mul(a: Numbers, b: Numbers) -> Numbers:
    """The product, with the slope a' b + a b'."""
    a, b, exponent = a.alone(), b.alone(), None
    if a.exponent is not None and b.exponent is not None:
        exponent = field.product(a.exponent, b.exponent, Q)
    return Numbers(
        field.product(a.value, b.value),
        a.real * b.real,
        _sum_of_parts(_scaled(a.slope, b.value), _scaled(b.slope, a.value)),
        exponent,
    )


def reciprocal(a: Numbers) -> Numbers:
    """1 / a, with the slope -a' / a².

    1 / 0 is 0: an ordinary 0 divides only on a branch that is not taken.

    Raises:
      UnluckyError: A residue is 0 by chance.
    """
    if np.any((a.value == 0) & (a.real != 0)):
        raise UnluckyError("a divisor is 0")
    a, value = a.alone(), field.inverse(a.value)
    slope = None if a.slope is None else field.negative(a.slope)
    return Numbers(
        value,
        1 / a.real,
        _scaled(_scaled(slope, value), value),
        None if a.exponent is None else field.inverse(a.exponent, Q),
    )


def div(a: Numbers, b: Numbers) -> Numbers:
    """The quotient."""
    return mul(a, reciprocal(b))


def integer_pow(a: Numbers, power: int) -> Numbers:
    """a^power for a whole number; the slope is power a^(power - 1) a'."""
    if power < 0:
        return reciprocal(integer_pow(a, -power))
    a = a.alone()
    by = field.product(field.power(a.value, power - 1), power) if power else 0 * a.value
    return Numbers(
        field.power(a.value, power),
        a.real**power,
        _scaled(a.slope, by),
        None if a.exponent is None else field.power(a.exponent, power, Q),
    )


def of_value(a: Numbers, value: Residues, real: np.ndarray, by: Residues) -> Numbers:
    """f(a) for a function with the derivative `by`; its own exponential is not known."""
    exponent = None if a.exponent is None else unknown(value)
    return Numbers(value, real, _scaled(a.slope, by), exponent)


def exp(a: Numbers) -> Numbers:
    """The exponential, which is its own derivative; that of -infinity, a mask's filling, is 0."""
    assert a.exponent is not None
    value = field.power_of_omega(a.exponent)
    value = value if a.factor is None else field.product(value, a.factor)
    value = np.where(a.real == -np.inf, 0, value)
    exponent = unknown(value)
    if a.factor_exponent is not None:  # exp takes a logarithm back, if that is all of a.
        exponent = np.where(a.exponent == 0, a.factor_exponent, exponent)
    return Numbers(value, np.exp(a.real), _scaled(a.slope, value), exponent)


def log(a: Numbers) -> Numbers:
    """The logarithm: any value, but the slope a' / a, and exp(log(a)) = a."""
    value = stand_in(a.value, salt=2)
    slope = _scaled(a.slope, field.inverse(a.value))
    return Numbers(value, np.log(a.real), slope, np.zeros_like(a.value), a.value, a.exponent)


def _odd(value: Residues, salt: int) -> Residues:
    """An odd function in place of one whose values the field does not know."""
    smaller = np.minimum(value, field.negative(value))
    found = stand_in(smaller, salt)
    found = np.where(smaller == value, found, field.negative(found))
    return np.where(value == 0, 0, found)


def erf(a: Numbers) -> Numbers:
    """The error function: any odd function with the slope 2 / sqrt(π) exp(-a²)."""
    bell = exp(neg(mul(a.without_slope(), a.without_slope()))).value
    by = field.product(bell, literal(2 / math.sqrt(math.pi))[0])
    real = np.vectorize(math.erf, otypes=[float])(a.real)
    return of_value(a, _odd(a.value, salt=3), real, by)


def _sine_and_cosine(a: Numbers) -> tuple[Residues, Residues]:
    """An odd and an even function; sin² + cos² is not 1, nor do angles add."""
    even = stand_in(np.minimum(a.value, field.negative(a.value)), salt=12)
    return _odd(a.value, salt=11), np.where(a.value == 0, 1, even)


def sin(a: Numbers) -> Numbers:
    """The sine: its slope is the cosine."""
    sine, cosine = _sine_and_cosine(a)
    return of_value(a, sine, np.sin(a.real), cosine)


def cos(a: Numbers) -> Numbers:
    """The cosine: its slope is minus the sine."""
    sine, cosine = _sine_and_cosine(a)
    return of_value(a, cosine, np.cos(a.real), field.negative(sine))


def power_of_value(a: Numbers, value: Residues, power: Fraction) -> Numbers:
    """a^power with this value; the slope is power a^power / a · a'."""
    by = field.product(value, field.inverse(a.value))
    by = field.product(by, _residues(power)[0])
    return of_value(a, value, a.real ** float(power), by)


def root_pow(a: Numbers, power: Fraction) -> Numbers:
    """a^power where the power's denominator is a power of 2, of numbers that have roots."""
    value = a.value
    for _ in range(power.denominator.bit_length() - 1):
        value = field.root(value)
    return power_of_value(a, field.power(value, power.numerator), power)


def sum_along(a: Numbers, axes: tuple[int, ...]) -> Numbers:
    """The sum along axes."""
    if not axes:
        return a
    a = a.alone()
    return Numbers(
        field.sum_along(a.value, axes),
        a.real.sum(axes),
        None if a.slope is None else field.sum_along(a.slope, axes),
        None if a.exponent is None else field.sum_along(a.exponent, axes, Q),
    )


def matrix_product(a: Numbers, b: Numbers) -> Numbers:
    """The matrix product of [..., M, K] and [..., K, N], with the slope a' b + a b'."""
    a, b = a.alone(), b.alone()
    left = None if a.slope is None else field.matrix_product(a.slope, b.value)
    right = None if b.slope is None else field.matrix_product(a.value, b.slope)
    exponent = None
    if a.exponent is not None and b.exponent is not None:
        exponent = field.matrix_product(a.exponent, b.exponent, Q)
    return Numbers(
        field.matrix_product(a.value, b.value),
        a.real @ b.real,
        _sum_of_parts(left, right),
        exponent,
    )
