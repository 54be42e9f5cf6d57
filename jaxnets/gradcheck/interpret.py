"""Runs a function's own operations, as JAX traces them, on numbers of a finite field.

`jax.make_jaxpr` lists a function's primitive operations. Each is done here on `residues.Numbers`:
arithmetic in the field, moves on all parts of a number alike, comparisons on the ordinary numbers,
which only decide the branch. What no input reaches is computed in the ordinary way.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.gradcheck import field, residues
from jaxnets.gradcheck.residues import Numbers, Values

Parts = np.ndarray  # One of the arrays of Numbers, or an ordinary array.
Params = dict[str, Any]  # An operation's, as JAX names them.


class NotInterpretedError(Exception):
    """An operation that has no meaning in the field; the message is its name."""


class MissingRootsError(Exception):
    """Some residues have no root."""

    def __init__(self, operation: int, numbers: int):
        """Says where.

        Args:
          operation: The first operation without a root, among those that take roots.
          numbers: How many of its numbers have none.
        """
        self.operation, self.numbers = operation, numbers

    def is_less_than(self, other: "MissingRootsError") -> bool:
        """Whether it comes later in the program than another, or lacks fewer roots there."""
        return (-self.operation, self.numbers) < (-other.operation, other.numbers)


class Traced:
    """A function as the list of its operations, for arguments of these shapes."""

    def __init__(self, function: Callable[..., Any], *trees: Any):
        """Traces a function; in the trees stand Numbers and ordinary arrays."""
        shapes = jax.tree.map(_shape_of, trees)
        self.jaxpr, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
        self.out = jax.tree.structure(out)
        self.names = frozenset(_names(self.jaxpr.jaxpr))
        self.behind_first = _behind_first(self.jaxpr.jaxpr)

    @property
    def takes_exp(self) -> bool:
        """Whether the numbers need exponents."""
        return not self.names.isdisjoint(WITH_EXP)

    @property
    def takes_roots(self) -> bool:
        """Whether it takes roots, which half of the residues do not have."""
        return not self.names.isdisjoint(WITH_ROOTS) or {"exp", "log"} <= self.names

    def __call__(self, interpreter: "Interpreter", *trees: Any, first_slope: bool = False) -> Any:
        """The function's result on Numbers and ordinary arrays.

        Args:
          interpreter: What runs it.
          *trees: The arguments.
          first_slope: Whether only the slope of its first output is wanted: then what that output
            does not depend on, as a backward pass, is computed without slopes.

        Raises:
          NotInterpretedError: It uses an operation that has no meaning here.
          UnluckyError: These residues cannot be used; draw others.
          MissingRootsError: Some of them have no root.
        """
        leaves = jax.tree.leaves(trees)
        # The ordinary numbers may overflow, as in the function itself.
        with np.errstate(all="ignore"):
            found = interpreter.run(self.jaxpr, leaves, self.behind_first if first_slope else None)
        return jax.tree.unflatten(self.out, found)


def _shape_of(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, np.float64) if isinstance(x, Numbers) else x


def _names(jaxpr: Jaxpr) -> set[str]:
    """The names of all operations of a program, of those within others too."""
    names = {equation.primitive.name for equation in jaxpr.eqns}
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                names |= _names(_closed(inner).jaxpr)
    return names


def _behind_first(jaxpr: Jaxpr) -> set[Any]:
    """The variables of a program on which its first output depends."""
    behind = _variables(jaxpr.outvars[:1])
    for equation in reversed(jaxpr.eqns):
        if not behind.isdisjoint(equation.outvars):
            behind |= _variables(equation.invars)
    return behind


def _variables(names: Sequence[Any]) -> set[Any]:
    return {name for name in names if not isinstance(name, Literal)}


def _is_program(x: object) -> bool:
    return isinstance(x, Jaxpr | ClosedJaxpr)


def _closed(program: Any) -> ClosedJaxpr:
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, [])


class Roots(enum.Enum):
    """What a root is, in the order in which they are tried.

    FORMAL: any function r with the slope 1 / 2r of a root, and powers of r.
    ALONE: any function r with the slope r / (n a) of an n-th root, and powers of r and of a.
    REAL: the root itself, which half of all residues have.

    What is right for any such function is right for the root. But a derivation that needs both r
    and a = r² is shown right only by REAL.
    """

    FORMAL = enum.auto()
    ALONE = enum.auto()
    REAL = enum.auto()


class Interpreter:
    """Runs programs, and counts the operations that take roots."""

    def __init__(self, *, with_exponent: bool, roots: Roots = Roots.REAL):
        """Says how numbers are computed.

        Args:
          with_exponent: Whether the inputs carry exponents; constants then do, too.
          roots: What a root is.
        """
        self.with_exponent, self.roots = with_exponent, roots
        self.roots_taken = 0

    def run(
        self, program: ClosedJaxpr, values: Sequence[Values], sloped: set[Any] | None = None
    ) -> list[Values]:
        """The results of a traced program.

        Args:
          program: The program.
          values: Its arguments.
          sloped: The variables whose slopes are wanted; None: all.
        """
        jaxpr, known = program.jaxpr, dict[Any, Values]()
        known.update(zip(jaxpr.constvars, map(_ordinary, program.consts), strict=True))
        known.update(zip(jaxpr.invars, values, strict=True))

        def read(name: Any) -> Values:
            return np.asarray(name.val) if isinstance(name, Literal) else known[name]

        for equation in jaxpr.eqns:
            operands = [read(name) for name in equation.invars]
            if sloped is not None and sloped.isdisjoint(equation.outvars):
                operands = [x.without_slope() if isinstance(x, Numbers) else x for x in operands]
            results = self._apply(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(name) for name in jaxpr.outvars]

    def lift(self, x: Values) -> Numbers:
        """Ordinary numbers as numbers of the field."""
        if isinstance(x, Numbers):
            return x
        return residues.constant(x, with_exponent=self.with_exponent)

    def _apply(self, equation: Any, values: list[Values]) -> Sequence[Values]:
        """The results of one operation."""
        name, params = equation.primitive.name, equation.params
        reached = any(isinstance(x, Numbers) for x in values)
        if reached and name == "custom_jvp_call" and _called(params) == "exp_neg_sq":
            # jax 0.12 computes exp(-x²) by parts of x's digits, which the field does not have.
            (x,) = map(self.lift, values)
            return [residues.exp(residues.neg(residues.mul(x, x)))]
        if name in PROGRAMS:
            return self.run(_closed(params[PROGRAMS[name]]), values)
        if name in LOOPS:
            return LOOPS[name](self, params, values)
        if not reached:
            return _in_the_ordinary_way(equation, values)
        if name in MOVES:
            return self._move(name, params, values)
        if name in BY_REAL:
            found = BY_REAL[name](params, *map(_real, values))
            return [np.asarray(found)]
        if name in OPERATIONS:
            found = OPERATIONS[name](self, params, *values)
            return found if isinstance(found, list) else [found]
        if name in BY_PLACES:
            return [self._by_places(equation, values)]
        if name in LINEAR:
            return [self._by_limbs(equation, values)]
        raise NotInterpretedError(name)

    def _move(self, name: str, params: Params, values: Sequence[Values]) -> list[Values]:
        lifted = [self.lift(x) for x in values]
        if name == "split":
            count = range(len(params["sizes"]))
            pieces = [lambda x, n=n: _split(params, x)[n] for n in count]
            return [residues.together(piece, *lifted) for piece in pieces]
        return [residues.together(functools.partial(MOVES[name], params), *lifted)]

    def _by_places(self, equation: Any, values: Sequence[Values]) -> Numbers:
        """A move that JAX itself does, on the numbers' places.

        Only operands of the result's type hold numbers; the others are indices.
        """
        dtype = equation.outvars[0].aval.dtype
        moved = [x.aval.dtype == dtype for x in equation.invars]
        numbers = [self.lift(x) for x, moves in zip(values, moved, strict=True) if moves]
        starts = iter(np.cumsum([0, *(x.value.size for x in numbers)]))
        arguments = [
            next(starts) + np.arange(math.prod(x.shape)).reshape(x.shape) if moves else x
            for x, moves in zip(values, moved, strict=True)
        ]
        params = equation.params
        if "fill_value" in params:
            params = {**params, "fill_value": -1}
        places = np.asarray(equation.primitive.bind(*map(jax.device_put, arguments), **params))
        if places.size and places.min() < 0:
            raise NotInterpretedError(f"{equation.primitive.name} beyond an array's end")
        return residues.together(
            lambda *x: np.concatenate([p.ravel() for p in x])[places], *numbers
        )

    def _by_limbs(self, equation: Any, values: Sequence[Values]) -> Numbers:
        """A sum of some of the numbers, which float64 computes exactly for halves of residues."""
        dtype = equation.outvars[0].aval.dtype
        summed = [x.aval.dtype == dtype for x in equation.invars]

        def bound(*arrays: np.ndarray) -> np.ndarray:
            given = iter(arrays)
            filled = [next(given) if s else x for x, s in zip(values, summed, strict=True)]
            found = equation.primitive.bind(*map(jax.device_put, filled), **equation.params)
            return np.asarray(found)

        def modulo(p: int) -> Callable[..., np.ndarray]:
            def of_residues(*parts: np.ndarray) -> np.ndarray:
                low = bound(*((x & (2**25 - 1)).astype(np.float64) for x in parts))
                high = bound(*((x >> 25).astype(np.float64) for x in parts)).astype(np.int64) % p
                return field.total(low.astype(np.int64) % p, field.product(high, 2**25, p), p)

            return of_residues

        numbers = [self.lift(x).alone() for x, s in zip(values, summed, strict=True) if s]
        slopes = [x.slope for x in numbers]
        filled = [np.zeros_like(x.value) if x.slope is None else x.slope for x in numbers]
        exponents = [x.exponent for x in numbers]
        return Numbers(
            modulo(field.P)(*(x.value for x in numbers)),
            bound(*(x.real for x in numbers)),
            None if all(x is None for x in slopes) else modulo(field.P)(*filled),
            modulo(field.Q)(*exponents) if self.with_exponent else None,
        )

    def power(self, a: Numbers, power: Fraction) -> Numbers:
        """a^power for a fraction."""
        whole, degree = math.floor(power), power.denominator
        if degree == 1:
            return residues.integer_pow(a, whole)
        even = degree in (2, 4)
        if even and self.roots is Roots.REAL:
            self.roots_taken += 1
            if missing := int((~field.is_square(a.value)).sum()):
                raise MissingRootsError(self.roots_taken, missing)
            return residues.root_pow(a, power)
        if even and self.roots is Roots.FORMAL:
            # A fourth power, so that roots of roots exist: it stands for the fourth root of a.
            fourth = field.power(residues.stand_in(a.value, salt=4), 4)
            value = field.power(fourth, int(4 * power))
            by = field.power(fourth, int(4 * power) - 4)
            by = field.product(by, residues.literal(float(power))[0])
            return residues.of_value(a, value, a.real ** float(power), by)
        root = field.power(residues.stand_in(a.value, salt=4 + degree), 4)
        value = field.power(root, (power - whole).numerator)
        value = field.product(value, field.power(a.value, whole))
        return residues.power_of_value(a, value, power)

    def scan(self, params: Params, values: Sequence[Values]) -> list[Values]:
        """A loop of fixed length."""
        if "ft_in" in params:  # jax 0.12
            constants, carried, _rows = (len(part.vals) for part in params["ft_in"].unpack())
        else:
            constants, carried = params["num_consts"], params["num_carry"]
        if not params["length"]:
            raise NotInterpretedError("scan of no steps")
        fixed, state = values[:constants], values[constants : constants + carried]
        rows, columns = values[constants + carried :], list[list[Values]]()
        steps = range(params["length"])
        for at in reversed(steps) if params["reverse"] else steps:
            items = [_item(x, at) for x in rows]
            found = self.run(params["jaxpr"], [*fixed, *state, *items])
            state = found[:carried]
            columns.append(found[carried:])
        if params["reverse"]:
            columns.reverse()
        return [*state, *map(self._stacked, zip(*columns, strict=True))]

    def _stacked(self, column: Sequence[Values]) -> Values:
        if any(isinstance(x, Numbers) for x in column):
            return residues.together(lambda *x: np.stack(x), *map(self.lift, column))
        return np.stack([_real(x) for x in column])

    def repeat(self, params: Params, values: Sequence[Values]) -> list[Values]:
        """A loop whose condition depends on no input."""
        first, second = params["cond_nconsts"], params["body_nconsts"]
        of_condition, of_body = values[:first], values[first : first + second]
        state = list(values[first + second :])
        while _known("while", self.run(params["cond_jaxpr"], [*of_condition, *state])[0]):
            state = self.run(params["body_jaxpr"], [*of_body, *state])
        return state

    def branch(self, params: Params, values: Sequence[Values]) -> list[Values]:
        """One of several programs."""
        index = int(_known("cond", values[0]))
        return self.run(_closed(params["branches"][index]), values[1:])


def _called(params: Params) -> str:
    """The name of the function that a program within a program was traced from."""
    return params["call_jaxpr"].jaxpr.debug_info.func_name


def _item(x: Any, at: int) -> Any:
    return residues.together(lambda part: part[at], x) if isinstance(x, Numbers) else x[at]


def _real(x: Values) -> np.ndarray:
    """The ordinary numbers, which decide the branch."""
    return x.real if isinstance(x, Numbers) else x


def _known(name: str, x: Values) -> Any:
    if isinstance(x, Numbers):
        raise NotInterpretedError(name)
    return x


def _ordinary(x: Any) -> Any:
    """An array as NumPy's; a random key has no form there."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def _in_the_ordinary_way(equation: Any, values: Sequence[Any]) -> list[Any]:
    """The results of an operation that no input reaches."""
    name, params = equation.primitive.name, equation.params
    plain = all(isinstance(x, np.ndarray) for x in values)
    if name == "split" and plain:
        return list(_split(params, *values))
    if name == "random_bits":
        return [_random_bits(values[0], equation.outvars[0].aval)]
    if plain and (function := MOVES.get(name) or ORDINARY.get(name)):
        aval = equation.outvars[0].aval
        return [np.asarray(function(params, *values)).astype(aval.dtype).reshape(aval.shape)]
    arrays = [jax.device_put(x) if isinstance(x, np.ndarray) else x for x in values]
    found = equation.primitive.bind(*arrays, **params)
    return [_ordinary(x) for x in (found if equation.primitive.multiple_results else [found])]


def _random_bits(key: Any, aval: Any) -> np.ndarray:
    """Bits that depend on the key: others than JAX's, whose program takes a second to compile."""
    words = np.asarray(jax.random.key_data(key)).ravel()
    most = np.iinfo(aval.dtype).max
    return np.random.default_rng(words).integers(0, most, aval.shape, aval.dtype, endpoint=True)


# Moves: functions of (params, *parts) that are done on each part of the numbers alike.
def _broadcast(params: Params, x: Parts, *_: Parts) -> Parts:
    sizes = [1] * len(params["shape"])
    for place, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        sizes[place] = size
    return np.broadcast_to(x.reshape(sizes), params["shape"])


def _slice(params: Params, x: Parts) -> Parts:
    strides = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*part) for part in bounds)]


def _split(params: Params, x: Parts) -> list[Parts]:
    return np.split(x, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


def _pad(params: Params, x: Parts, filling: Parts) -> Parts:
    return padded(x, params["padding_config"], filling)


def padded(x: Parts, config: Sequence[tuple[int, int, int]], filling: Any = 0) -> Parts:
    """Puts holes between the elements, then pads; a number below 0 cuts elements off.

    Args:
      x: An array.
      config: (before, after, hole) for each axis.
      filling: What stands in the holes and in the padding.
    """
    sizes = [n + max(n - 1, 0) * hole for n, (_, _, hole) in zip(x.shape, config, strict=True)]
    before, after, holes = zip(*config, strict=True) if config else ((), (), ())
    whole = [max(a, 0) + n + max(b, 0) for a, n, b in zip(before, sizes, after, strict=True)]
    wide = np.full(whole, filling, x.dtype)
    starts = [max(a, 0) for a in before]
    steps = zip(starts, sizes, holes, strict=True)
    wide[tuple(slice(start, start + n, hole + 1) for start, n, hole in steps)] = x
    ends = zip(before, after, wide.shape, strict=True)
    return wide[tuple(slice(max(-a, 0), n - max(-b, 0)) for a, b, n in ends)]


def _same(params: Params, *x: Parts) -> Any:
    return x[0]


MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x, *_: x.reshape(params["new_sizes"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "squeeze": lambda params, x: x.squeeze(params["dimensions"]),
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "concatenate": lambda params, *x: np.concatenate(x, params["dimension"]),
    "stack": lambda params, *x: np.stack(x, params.get("axis", 0)),
    "copy": _same,
    "reduce_precision": _same,
}
BY_PLACES = {"gather", "dynamic_slice", "dynamic_update_slice", "scatter"}
LINEAR = {"scatter-add", "cumsum"}

# Programs within a program, by the parameter that holds them.
PROGRAMS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}
LOOPS: dict[str, Callable[..., list[Values]]] = {
    "scan": Interpreter.scan,
    "while": Interpreter.repeat,
    "cond": Interpreter.branch,
}

# What depends on numbers only by the branch that they are on.
BY_REAL: dict[str, Callable[..., Any]] = {
    "gt": lambda params, a, b: a > b,
    "ge": lambda params, a, b: a >= b,
    "lt": lambda params, a, b: a < b,
    "le": lambda params, a, b: a <= b,
    "eq": lambda params, a, b: a == b,
    "ne": lambda params, a, b: a != b,
    "sign": lambda params, a: np.sign(a),
    "floor": lambda params, a: np.floor(a),
    "ceil": lambda params, a: np.ceil(a),
    "round": lambda params, a: np.round(a),
    "is_finite": lambda params, a: np.isfinite(a),
    "argmax": lambda params, a: _argument(np.argmax, params, a),
    "argmin": lambda params, a: _argument(np.argmin, params, a),
}


def _argument(find: Callable[..., Any], params: Params, a: Parts) -> Parts:
    return find(a, axis=params["axes"][0]).astype(params["index_dtype"])


# Ordinary arrays: what is worth no call of JAX, which would compile each for its shape.
ORDINARY: dict[str, Callable[..., Any]] = {
    **BY_REAL,
    "add": lambda params, a, b: a + b,
    "sub": lambda params, a, b: a - b,
    "mul": lambda params, a, b: a * b,
    "neg": lambda params, a: -a,
    "max": lambda params, a, b: np.maximum(a, b),
    "min": lambda params, a, b: np.minimum(a, b),
    "and": lambda params, a, b: a & b,
    "or": lambda params, a, b: a | b,
    "not": lambda params, a: ~a,
    "sqrt": lambda params, a: np.sqrt(a),
    "integer_pow": lambda params, a: a ** params["y"],
    "shift_right_logical": lambda params, a, b: _unsigned(a) >> _unsigned(b),
    "bitcast_convert_type": lambda params, a: a.view(params["new_dtype"]),
    "convert_element_type": _same,
    "stop_gradient": _same,
    "optimization_barrier": _same,
    "select_n": lambda params, which, *cases: np.choose(which.astype(int), cases),
    "reduce_sum": lambda params, a: a.sum(params["axes"]),
    "reduce_max": lambda params, a: a.max(params["axes"]),
    "reduce_and": lambda params, a: a.all(params["axes"]),
    "reduce_or": lambda params, a: a.any(params["axes"]),
    "iota": lambda params: _iota(params),
}  # Not division: that of whole numbers rounds otherwise in NumPy.


def _unsigned(a: Parts) -> Parts:
    """The same bits as numbers without a sign: a logical shift fills with zeros."""
    return a.view(f"u{a.itemsize}")


def _iota(params: Params) -> Parts:
    shape, axis = params["shape"], params["dimension"]
    sizes = [size if number == axis else 1 for number, size in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[axis]).reshape(sizes), shape)


# Operations of the field: functions of (interpreter, params, *values).
def _lifted(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that takes only Numbers, and no parameters."""
    return lambda run, params, *x: function(*map(run.lift, x))


def _chosen(run: Interpreter, which: Parts, *cases: Values) -> Numbers:
    shape = np.broadcast_shapes(*(x.shape for x in cases))
    places = np.broadcast_to(which, shape).astype(int)
    return residues.together(lambda *x: np.choose(places, x), *map(run.lift, cases))


def _larger(sign: int) -> Callable[..., Numbers]:
    """The larger or the smaller one of two numbers.

    Of equal ones it is the constant, as ReLU's slope at 0 is 0, else the first, as a pool's first
    winner.
    """

    def operation(run: Interpreter, params: Params, a: Values, b: Values) -> Numbers:
        first, second = sign * _real(a), sign * _real(b)
        constant_first = not isinstance(a, Numbers) or isinstance(b, Numbers)
        takes_second = second > first if constant_first else second >= first
        return _chosen(run, takes_second, a, b)

    return operation


def _largest(sign: int) -> Callable[..., Numbers]:
    """The largest or the smallest number along axes, the first of equal ones."""

    def operation(run: Interpreter, params: Params, a: Numbers) -> Numbers:
        axes = params["axes"]
        kept = [axis for axis in range(a.value.ndim) if axis not in axes]

        def rows(x: Parts) -> Parts:
            return x.transpose(*kept, *axes).reshape([x.shape[axis] for axis in kept] + [-1])

        best = (sign * rows(a.real)).argmax(-1)[..., None]
        return residues.together(lambda x: np.take_along_axis(rows(x), best, -1)[..., 0], a)

    return operation


def _absolute(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    return _chosen(run, a.real < 0, a, residues.neg(a))


def _clamp(run: Interpreter, params: Params, low: Values, x: Numbers, high: Values) -> Numbers:
    return _larger(-1)(run, params, _larger(1)(run, params, x, low), high)


def _sort(run: Interpreter, params: Params, *operands: Values) -> list[Values]:
    axis, keys = params["dimension"], [_real(x) for x in operands[: params["num_keys"]]]
    order = np.lexsort(keys[::-1], axis=axis)

    def sorted_(x: Parts) -> Parts:
        return np.take_along_axis(x, order, axis)

    return [
        residues.together(sorted_, x) if isinstance(x, Numbers) else sorted_(x) for x in operands
    ]


def _top_k(run: Interpreter, params: Params, a: Numbers) -> list[Values]:
    order = np.argsort(-a.real, axis=-1, kind="stable")[..., : params["k"]]
    found = residues.together(lambda x: np.take_along_axis(x, order, -1), a)
    return [found, order.astype(np.int32)]


def _convert(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    if not jnp.issubdtype(params["new_dtype"], np.floating):
        raise NotInterpretedError(f"convert_element_type to {params['new_dtype']}")
    return a


def _product(run: Interpreter, params: Params, a: Values, b: Values) -> Numbers:
    """The product; the exponential of a constant times a logarithm is a power."""
    for constant, x in ((a, b), (b, a)):
        if isinstance(x, Numbers) and x.factor is not None and not isinstance(constant, Numbers):
            powers = np.unique(constant)
            if len(powers) == 1:
                power = residues.fraction_of(float(powers[0]))
                base = Numbers(x.factor, np.exp(x.real), exponent=x.factor_exponent)
                found = run.power(base, power)
                rest = dataclasses.replace(x, factor=None, factor_exponent=None)
                product = residues.mul(run.lift(constant), rest)
                return dataclasses.replace(
                    product, factor=found.value, factor_exponent=found.exponent
                )
    return residues.mul(run.lift(a), run.lift(b))


def _power(run: Interpreter, params: Params, a: Values, b: Values) -> Numbers:
    if isinstance(b, Numbers) or len(powers := np.unique(b)) > 1:
        raise NotInterpretedError("pow of a power that is no constant")
    return run.power(run.lift(a), residues.fraction_of(float(powers[0])))


def _of_power(power: Fraction) -> Callable[..., Numbers]:
    return lambda run, params, a: run.power(a, power)


def _one_more(run: Interpreter, a: Numbers, more: int) -> Numbers:
    return residues.add(a, run.lift(np.full(a.shape, float(more))))


def _of_exponentials(run: Interpreter, a: Numbers, sign: int) -> Numbers:
    """(exp(a) ± exp(-a)) / 2."""
    up, down = residues.exp(a), residues.exp(residues.neg(a))
    both = residues.add(up, down) if sign > 0 else residues.sub(up, down)
    return residues.mul(both, run.lift(np.full(a.shape, 0.5)))


def _logistic(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    """1 / (1 + exp(-a))."""
    return residues.reciprocal(_one_more(run, residues.exp(residues.neg(a)), 1))


def _tanh(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    """1 - 2 / (1 + exp(2a))."""
    part = _logistic(run, params, residues.neg(residues.add(a, a)))
    return _one_more(run, residues.neg(residues.add(part, part)), 1)


def _dot(run: Interpreter, params: Params, a: Values, b: Values) -> Numbers:
    (left, right), (batch_left, batch_right) = params["dimension_numbers"]

    def arranged(x: Numbers, batch: Sequence[int], summed: Sequence[int], last: bool) -> Numbers:
        kept = [n for n in range(x.value.ndim) if n not in (*batch, *summed)]
        order = (*batch, *summed, *kept) if last else (*batch, *kept, *summed)
        sizes = [math.prod(x.shape[n] for n in part) for part in (summed, kept)]
        both = sizes if last else sizes[::-1]
        head = [x.shape[n] for n in batch]
        return residues.together(lambda p: p.transpose(order).reshape(*head, *both), x)

    x, y = run.lift(a), run.lift(b)
    product = residues.matrix_product(
        arranged(x, batch_left, left, False), arranged(y, batch_right, right, True)
    )
    shape = [x.shape[n] for n in batch_left]
    for z, batch, summed in ((x, batch_left, left), (y, batch_right, right)):
        shape += [size for n, size in enumerate(z.shape) if n not in (*batch, *summed)]
    return residues.together(lambda p: p.reshape(shape), product)


def _convolution(run: Interpreter, params: Params, a: Values, b: Values) -> Numbers:
    """A convolution as a matrix product of its windows and its filters."""
    numbers = params["dimension_numbers"]
    groups, batch_groups = params["feature_group_count"], params["batch_group_count"]
    x = residues.together(lambda p: p.transpose(numbers.lhs_spec), run.lift(a).alone())
    w = residues.together(lambda p: p.transpose(numbers.rhs_spec), run.lift(b).alone())
    holes = [(0, 0, n - 1) for n in params["rhs_dilation"]]
    w = residues.together(lambda p: padded(p, [(0, 0, 0), (0, 0, 0), *holes]), w)
    pads = zip(params["padding"], params["lhs_dilation"], strict=True)
    config = [(0, 0, 0), (0, 0, 0), *((*pad, n - 1) for pad, n in pads)]
    size, strides = w.shape[2:], params["window_strides"]
    axes = tuple(range(2, 2 + len(size)))
    parts = groups * batch_groups  # One of the two is 1.

    def rows(p: Parts) -> Parts:
        """The windows [parts, images, places, inputs of a filter]."""
        windows = np.lib.stride_tricks.sliding_window_view(padded(p, config), size, axes)
        steps = tuple(slice(None, None, step) for step in strides)
        windows = windows[(slice(None), slice(None), *steps)]
        images, channels, *rest = windows.shape
        cut = windows.reshape(
            batch_groups, images // batch_groups, groups, channels // groups, *rest
        )
        cut = np.moveaxis(cut, 2, 1).reshape(
            parts, images // batch_groups, channels // groups, *rest
        )
        cut = np.moveaxis(cut, 2, 2 + len(size))
        return cut.reshape(parts, images // batch_groups * math.prod(rest[: len(size)]), -1)

    def filters(p: Parts) -> Parts:
        return p.reshape(parts, p.shape[0] // parts, -1).swapaxes(1, 2)

    product = residues.matrix_product(residues.together(rows, x), residues.together(filters, w))
    images = x.shape[0] // batch_groups
    wide = padded(np.empty(x.shape), config).shape[2:]
    places = [(n - k) // s + 1 for n, k, s in zip(wide, size, strides, strict=True)]

    def arranged(p: Parts) -> Parts:
        out = p.reshape(parts, images, *places, -1)
        out = np.moveaxis(np.moveaxis(out, 0, 1), -1, 2).reshape(images, -1, *places)
        return out.transpose(np.argsort(numbers.out_spec))

    return residues.together(arranged, product)


def _windows(params: Params, p: Parts, filling: float = 0) -> Parts:
    """The windows of a pool, their elements along the last axis."""
    if any(n != 1 for n in params["window_dilation"]):
        raise NotInterpretedError("reduce_window with a window_dilation")
    pads = zip(params["padding"], params["base_dilation"], strict=True)
    wide = padded(p, [(*pad, n - 1) for pad, n in pads], filling)
    size, strides = params["window_dimensions"], params["window_strides"]
    windows = np.lib.stride_tricks.sliding_window_view(wide, size)
    windows = windows[tuple(slice(None, None, step) for step in strides)]
    return windows.reshape(*windows.shape[: len(size)], -1)


def _window_largest(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    """The largest number of each window, the first of equal ones."""
    best = _windows(params, a.real, -np.inf).argmax(-1)[..., None]
    return residues.together(lambda p: np.take_along_axis(_windows(params, p), best, -1)[..., 0], a)


def _window_sum(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    """The sum of each window."""
    windows = residues.together(functools.partial(_windows, params), a.alone())
    return residues.sum_along(windows, (windows.value.ndim - 1,))


def _product_along(run: Interpreter, params: Params, a: Numbers) -> Numbers:
    for axis in sorted(params["axes"], reverse=True):
        rows = residues.together(lambda part, axis=axis: np.moveaxis(part, axis, 0), a)
        a = functools.reduce(residues.mul, (_item(rows, n) for n in range(rows.shape[0])))
    return a


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": _lifted(residues.add),
    "add_any": _lifted(residues.add),
    "sub": _lifted(residues.sub),
    "mul": _product,
    "div": _lifted(residues.div),
    "neg": _lifted(residues.neg),
    "exp": _lifted(residues.exp),
    "exp2": lambda run, params, a: residues.exp(
        residues.mul(a, run.lift(np.full(a.shape, math.log(2))))
    ),
    "expm1": lambda run, params, a: _one_more(run, residues.exp(a), -1),
    "log": _lifted(residues.log),
    "log1p": lambda run, params, a: residues.log(_one_more(run, a, 1)),
    "erf": _lifted(residues.erf),
    "erfc": lambda run, params, a: _one_more(run, residues.neg(residues.erf(a)), 1),
    "sin": _lifted(residues.sin),
    "cos": _lifted(residues.cos),
    "sinh": lambda run, params, a: _of_exponentials(run, a, -1),
    "cosh": lambda run, params, a: _of_exponentials(run, a, 1),
    "logistic": _logistic,
    "tanh": _tanh,
    "one_minus_square": lambda run, params, a: _one_more(run, residues.neg(residues.mul(a, a)), 1),
    "square": lambda run, params, a: residues.mul(a, a),
    "integer_pow": lambda run, params, a: residues.integer_pow(a, params["y"]),
    "pow": _power,
    "sqrt": _of_power(Fraction(1, 2)),
    "rsqrt": _of_power(Fraction(-1, 2)),
    "cbrt": _of_power(Fraction(1, 3)),
    "abs": _absolute,
    "max": _larger(1),
    "min": _larger(-1),
    "clamp": _clamp,
    "reduce_max": _largest(1),
    "reduce_min": _largest(-1),
    "reduce_sum": lambda run, params, a: residues.sum_along(a, params["axes"]),
    "reduce_prod": _product_along,
    "reduce_window_max": _window_largest,
    "reduce_window_sum": _window_sum,
    "select_n": lambda run, params, which, *cases: _chosen(run, which, *cases),
    "sort": _sort,
    "top_k": _top_k,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "stop_gradient": lambda run, params, a: a.without_slope(),
    "optimization_barrier": lambda run, params, *x: list(x),
}
WITH_EXP = frozenset(
    {"exp", "exp2", "expm1", "sinh", "cosh", "log", "log1p", "erf", "erfc", "logistic", "tanh"}
)
WITH_ROOTS = frozenset({"sqrt", "rsqrt", "pow"})
