"""Checks a gradient: `assert jaxnets.check(f, x)`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnets.base import display
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import N_, _
from jaxnets.gradcheck.causes import cause, looks
from jaxnets.gradcheck.differences import STEPS, Differences
from jaxnets.gradcheck.exact import EXACT, WRONG, Claim, Draw, Question, Verdict, check_exactly
from jaxnets.gradcheck.flat import (
    Flat,
    Values,
    eps,
    name_of,
    refuse_misuse,
    saying_what_to_write,
)
from jaxnets.gradcheck.quick import jit
from jaxnets.gradcheck.quick import precision as in_precision
from jaxnets.gradcheck.rounding import MARGIN, roundings_of

# For a slope by differences, relative to the largest of its output. If a function always computes
# in float32, its rounding is larger than a small mistake.
TOLERANCES = {"float64": 1e-8, "float32": 2e-3, "bfloat16": 0.1, "float16": 0.05}
# Two ways to compute one gradient, by the precision of the function's outputs; and a gradient in
# few digits against one in float64.
SAME = {"float64": 1e-10, "float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
MOST = 1_000  # Up to this many inputs or outputs all slopes are taken; of more, a sample.
MOST_EXACTLY = 100_000  # Inputs and outputs that the exact check takes.
NEAR = 1e-3  # Of a number's size: how far beside the point it looks for what is wrong there.
MOST_ALONE = 5  # Up to this many arguments each is batched by itself.
WIDTHS, ALIGN = (28, 18, 8, 8, 7, 0), "<>>><<"  # of the table
WORK = 4e8  # Numbers that all differences of one check may compute.


class CheckRow(NamedTuple):
    """One comparison."""

    name: str
    compared: int = 0
    sampled_from: int = 0  # 0: every element was compared.
    passed_over: int = 0  # Where differences tell nothing because their error is too large.
    error: float = 0.0  # The largest, relative to the largest slope of the same output.
    tolerance: float = 0.0
    worst: str = ""  # The element that is wrong, with both values.
    ok: bool = True
    note: str = ""

    def text(self) -> str:
        """The row of the table."""
        counted = f"{self.compared:,}" if self.compared else ""
        if self.sampled_from:
            counted += _(" of {}", f"{self.sampled_from:,}")
        numbers = [f"{self.error:.1e}", f"{self.tolerance:.0e}"] if self.compared else ["", ""]
        passed = _("{} passed over", f"{self.passed_over:,}") if self.passed_over else ""
        said = "; ".join(part for part in (self.worst, passed, self.note) if part)
        verdict = _("ok") if self.ok else _("FAILED")
        if self.ok and not self.compared:
            verdict = ""  # Nothing was tried; the note says why.
        return display.line([_(self.name), counted, *numbers, verdict, said], WIDTHS, ALIGN)


class FunctionCheck(NamedTuple):
    """The result of `check`: true if every gradient is right; as text, a table.

    A plain `assert` shows nothing of what it tests, so a false result prints itself on stderr when
    Python asks whether it is true.
    """

    function: str
    rows: tuple[CheckRow, ...]
    causes: tuple[str, ...] = ()  # What is wrong with each wrong argument's gradient.

    @property
    def ok(self) -> bool:
        """Whether every row is right."""
        return all(row.ok for row in self.rows)

    def __bool__(self) -> bool:
        if not self.ok:
            display.show(repr(self), sys.stderr)
        return self.ok

    def __repr__(self) -> str:
        heads = ["", _("compared"), _("error"), _("allowed")]
        head = display.line(heads, WIDTHS, ALIGN)
        lines = [f"check({self.function}): {_('ok') if self.ok else _('FAILED')}", *self.causes]
        return "\n".join([*lines, head, *(row.text() for row in self.rows)])


def check(
    function: Callable[..., Any],
    *args: object,
    plain: Callable[..., Any] | None = None,
    exact: bool = False,
    order: int = 1,
    seed: int = 0,
    **unknown: object,
) -> FunctionCheck:
    """Checks the gradients of a function, from its custom_vjp or custom_jvp or from autodiff.

        slope of output i along input j = lim (f_i(x + h e_j) - f_i(x - h e_j)) / 2h

    Reverse mode (a vjp for each output, and for a dense cotangent) and forward mode (a jvp for each
    input) are compared with differences in float64, each element by itself, at kinks with the
    slopes on both sides and at points nearby. The values that both modes return are compared with
    f(x). Further rows check a cotangent of zeros, small and large cotangents, a second call, a call
    without jit, vmap against a loop, and the gradient in float32 and bfloat16, and in float16 if an
    argument has it. What JAX refuses is "not tried". `jax.test_util.check_grads` takes one random
    direction, with a tolerance that grows with the number of outputs (jax-ml/jax#3130).

    Args:
      function: A function that returns a tree of arrays, with `jax.custom_vjp`, `jax.custom_jvp` or
        neither.
      args: Its arguments, trees of arrays. Floating numbers are differentiated; integers, keys,
        strings and other objects are passed on unchanged. Differences try steps of up to a
        hundredth of max(1, |x|).
      plain: The same function without its own rule: autodiff of it is also compared.
      exact: Whether to show the gradient, and that the function is `plain`, without a tolerance
        (`gradcheck/exact.py`). Where that cannot be decided, the row says why.
      order: 2 also checks the gradients of the gradient.
      seed: Which elements of a large function are compared, and which cotangents are drawn.
      unknown: Other keywords are refused, with what to write in their place.

    Returns:
      The table, which is true if all is right: `assert jaxnets.check(f, x)`. A false one prints
      itself on stderr. Of more than 1,000 inputs or outputs a sample is compared, and the row says
      so.

    Raises:
      UserError: JAX cannot trace the function, or it has no floating input or output; or an option
        is not one of these.

    Source: Ridders 1982 (`gradcheck/differences.py`).

    >>> check(jnp.sin, jnp.array([0.0, 1.0, 2.0])).ok
    True
    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, dy: (3 * x * dy,))
    >>> found = check(square, jnp.array([1.0, 2.0]))
    >>> found.ok, found.causes
    (False, ('args[0]: each number is 1.5 times the right one',))
    """
    if order not in (1, 2):
        raise UserError("order: expected 1 or 2, got {}", order)
    refuse_misuse([function] if plain is None else [function, plain], args, unknown)
    with in_precision("float64"):
        with saying_what_to_write(function, args):
            flat = Flat(function, args, "float64")
        sample = _sample(flat, seed)
        slopes = _Comparison(flat, sample)
        rows = list(slopes.rows())
        if not slopes.reverse_refused:
            rows += _reverse_rows(flat, sample, seed)
            other = None if plain is None else Flat(plain, args, "float64")
            if other is not None:
                rows.append(_against_plain(flat, other, sample))
            if exact:
                rows.append(_exact_row(flat, other, seed))
            if order == 2:
                gradient = _gradient_of(flat, sample)
                again = Flat(gradient, (flat.start,), "float64", flat.input_of)
                second = _Comparison(again, _sample(again, seed)).rows()
                rows += [row._replace(name=f"2nd: {row.name}") for row in second]
            # Also with float64 enabled: without it the random numbers would differ.
            rows += [_narrow(flat, args, dtype, seed) for dtype in _few_digits(flat)]
    return FunctionCheck(name_of(function), tuple(rows), tuple(slopes.causes()))


def _few_digits(flat: Flat) -> list[str]:
    """The precisions in which the gradient is also computed; float16 only if it is given."""
    given = {str(getattr(leaf, "dtype", "")) for leaf in flat.leaves}
    return ["float32", "bfloat16", *({"float16"} & given)]


class _Sample(NamedTuple):
    """The choice of slopes that are compared."""

    inputs: np.ndarray
    moves: np.ndarray  # [moves, inputs of the function]: those that cross several kinks at once.
    outputs: np.ndarray
    cotangent: np.ndarray  # A dense one.


def _sample(flat: Flat, seed: int) -> _Sample:
    random = np.random.default_rng(seed)
    inputs, outputs = flat.start.size, flat.size
    budget = WORK / (2 * len(STEPS) * (inputs + outputs))
    columns = min(inputs, int(np.clip(budget, 50, MOST)))
    rows = min(outputs, int(np.clip(budget, 8, MOST)))
    moves = [np.ones(inputs), *random.choice([-1.0, 1.0], (2, inputs))]
    for part in flat.parts if len(flat.parts) <= 20 else ():
        alone = np.zeros(inputs)
        alone[part] = 1
        moves.append(alone)
    return _Sample(
        np.sort(random.choice(inputs, columns, replace=False)),
        np.array(moves),
        np.sort(random.choice(outputs, rows, replace=False)),
        random.standard_normal(outputs),
    )


class _Comparison:
    """Reverse and forward mode, compared with differences: arrays [outputs + 1, inputs + moves].

    The last output is that of a dense cotangent. A function that JAX does not differentiate in one
    of the modes has None for its slopes, and JAX's reason.
    """

    def __init__(self, flat: Flat, sample: _Sample) -> None:
        self.flat, self.sample = flat, sample
        self.count = sample.inputs.size
        # For lax.while_loop, and for a custom_vjp.
        refusal = "Reverse-mode differentiation does not work"
        self.reverse, self.reverse_refused = _unless(refusal, lambda: _by_reverse(flat, sample))
        found, self.forward_refused = _unless("custom_vjp", lambda: _by_forward(flat, sample))
        self.forward, self.values = found or (None, None)
        self.differences = _differences(flat, sample)
        self.rounding = 0.0  # Of a gradient.
        self._take_differences()
        if self._wrong_columns().any() and self._measure_rounding():
            self._take_differences()

    def _take_differences(self) -> None:
        """Finds the bounds between which each slope may be."""
        differences, sample = self.differences, self.sample
        slopes = [differences.along_coordinate(place) for place in sample.inputs]
        slopes += [differences.along(move) for move in sample.moves]
        bounds = zip(*(one.bounds() for one in slopes), strict=True)
        self.low, self.high, self.error = (np.stack(part, axis=1) for part in bounds)
        self.kinks = np.stack([one.on_a_kink for one in slopes], axis=1)
        self._look_nearby()

    def _measure_rounding(self) -> bool:
        """Measures the rounding where terms cancel; whether it changes the differences."""
        flat, differences = self.flat, self.differences
        given = flat.start, self.sample.cotangent
        (floor,) = roundings_of(differences.function, "float64", given[:1])
        floor = np.maximum(floor, differences.noise())
        if self.reverse is not None:
            (change,) = roundings_of(flat.pulled_back, "float64", given)
            self.rounding = MARGIN * float(change.max())
        differences.floor = MARGIN * floor
        return bool((floor > 10 * differences.eps * np.abs(differences.here)).any())

    def _moves(self) -> Iterator[np.ndarray]:
        """Each direction."""
        for place in self.sample.inputs:
            move = np.zeros(self.flat.start.size)
            move[place] = 1.0
            yield move
        yield from self.sample.moves

    @property
    def size(self) -> np.ndarray:
        """The largest slope of each output, as a column: an error is relative to it."""
        both = np.where(np.isfinite(self.low + self.high), self.low + self.high, 0)
        return np.max(np.abs(both), axis=1)[:, None] / 2

    @property
    def reliable(self) -> np.ndarray:
        """Where the error of a difference is small enough to tell right from wrong."""
        reliable = self.differences.tells(self.error, self.size)
        # Several kinks at once may take slopes from different sides: their sum has no bounds.
        reliable[:, self.count :] &= ~self.kinks[:, self.count :]
        reliable[-1] &= ~self.kinks[-1]
        return reliable

    def _excess(self, ours: np.ndarray) -> np.ndarray:
        """How far slopes are beyond what is allowed; -inf where differences tell nothing."""
        part = slice(0, ours.shape[1])
        wrong = np.maximum(self.low[:, part] - ours, ours - self.high[:, part])
        allowed = TOLERANCES[self.flat.narrowest] * self.size + 10 * self.error[:, part]
        allowed = allowed + self.rounding
        excess = np.where(self.reliable[:, part], wrong - allowed, -np.inf)
        return np.where(np.isfinite(ours), excess, np.inf)

    def _look_nearby(self) -> None:
        """Adds the slopes of nearby points to the bounds where the function has a kink.

        At three equal numbers a sort's slopes along each number are 0 on both sides; its derivative
        is one of those nearby (Clarke 1975), where no two numbers are equal. A slope nearby that
        comes from the curvature is 16 times nearer at a distance 16 times smaller. Directions are
        tried until one has no such slope: then the gradient is wrong.
        """
        moves, wrong = list(self._moves()), self._wrong_columns()
        for column in np.argsort(-wrong)[: np.count_nonzero(wrong)]:
            far, near = (
                self.differences.nearby(moves[column], distance) for distance in (1.0, 1 / 16)
            )
            low, high = self.low[:, column], self.high[:, column]
            error = near[1] + far[1]
            away, less = (np.maximum(low - s, s - high) for s in (far[0], near[0]))
            kink = (less > away / 2) & (less > 100 * error + 1e-6 * np.abs(near[0]))
            if not kink.any():
                return
            self.low[:, column] = np.where(kink, near[0], low).min(axis=0)
            self.high[:, column] = np.where(kink, near[0], high).max(axis=0)
            self.kinks[:, column] |= kink.any(axis=0)

    def _wrong_columns(self) -> np.ndarray:
        """How many slopes along each move are wrong."""
        wrong = np.zeros(self.low.shape[1])
        for ours in (self.reverse, self.forward):
            if ours is not None:
                wrong[: ours.shape[1]] += (self._excess(ours) > 0).sum(axis=0)
        return wrong

    def rows(self) -> Iterator[CheckRow]:
        """The rows of the table on the slopes, and on the value that forward mode returns."""
        for mode, ours, refused in (
            (N_("reverse mode"), self.reverse, self.reverse_refused),
            (N_("forward mode"), self.forward, self.forward_refused),
        ):
            if ours is None:
                yield CheckRow(mode, note=_("not tried: {}", refused))
            else:
                yield self._row(mode, ours)
        if self.values:
            yield self._value_row(N_("value in forward mode"), *self.values)

    def _value_row(self, name: str, ours: np.ndarray, theirs: np.ndarray) -> CheckRow:
        allowed = SAME[self.flat.narrowest]
        row = _compared(name, ours, theirs, allowed, self.flat.output_of)
        if row.ok:
            return row
        (change,) = roundings_of(self.flat, "float64", [self.flat.start])
        floor = MARGIN * float(change.max()) / allowed
        return _compared(name, ours, theirs, allowed, self.flat.output_of, floor)

    def _row(self, name: str, ours: np.ndarray) -> CheckRow:
        part = slice(0, ours.shape[1])
        low, high, error = self.low[:, part], self.high[:, part], self.error[:, part]
        excess, size = self._excess(ours), self.size
        unknown = np.isneginf(excess)
        # A single output along a single input tells more than several at once.
        single = excess[:-1, : self.count]
        bad = single if np.any(single > 0) else excess
        i, j = map(int, np.unravel_index(np.argmax(bad), bad.shape))
        fails, worst = bool(bad[i, j] > 0), ""
        if fails:
            expected = f"{(low[i, j] + high[i, j]) / 2:.6g}"
            if self.kinks[i, j]:
                expected = _("{} to {}", f"{low[i, j]:.6g}", f"{high[i, j]:.6g}")
            worst = _("{}: {}, expected {}", self._place(i, j), f"{ours[i, j]:.6g}", expected)
        wrong = np.maximum(low - ours, ours - high) - 10 * error - self.rounding
        relative = np.where(unknown, 0, np.maximum(wrong, 0)) / np.where(size > 0, size, 1)
        nothing = bool(unknown.all())
        return CheckRow(
            name,
            int((~unknown).sum()),
            0 if self._is_whole() else self.flat.start.size * self.flat.size,
            int(unknown.sum()),
            float(np.max(relative, initial=0.0)),
            TOLERANCES[self.flat.narrowest],
            worst,
            not fails and not nothing,
            _("no difference could be taken") if nothing else "",
        )

    def _is_whole(self) -> bool:
        """Whether all inputs and outputs are compared."""
        return self.count == self.flat.start.size and self.sample.outputs.size == self.flat.size

    def _place(self, i: int, j: int) -> str:
        """The names of an output and an input."""
        output = _("a dense cotangent")
        if i < self.sample.outputs.size:
            output = self.flat.output_of(int(self.sample.outputs[i]))
        if j < self.count:
            return _("{} along {}", output, self.flat.input_of(int(self.sample.inputs[j])))
        return _("{} along several inputs at once", output)

    def causes(self) -> Iterator[str]:
        """A line for each argument whose gradient in reverse mode is wrong: how it is wrong."""
        if self.reverse is None or not self._is_whole():
            return
        flat, wrong = self.flat, self._excess(self.reverse)[:, : self.count] > 0
        gradient = self.reverse[-1, : self.count]
        right = np.clip(gradient, self.low[-1, : self.count], self.high[-1, : self.count])
        right = np.where(wrong[-1] | ~np.isfinite(gradient), right, gradient)
        known = {flat.names[n]: np.asarray(flat.leaves[n], np.float64) for n in flat.places}
        if len(flat.outputs) == 1:
            shape = flat.outputs[0][1].shape
            known["f(x)"] = self.differences.here[:-1].reshape(shape)
            known["dy"] = self.sample.cotangent.reshape(shape)
        for place, part, shape in zip(flat.places, flat.parts, flat.shapes, strict=True):
            label, pair = flat.names[place], (gradient[part], right[part])
            yours, expected = (vector.reshape(shape) for vector in pair)
            if wrong[:-1, part].any():
                yield (
                    cause(label, yours, expected, "dy", known)
                    if "dy" in known
                    else looks(label, yours, expected)
                )
            elif wrong[:, part].any():
                yield _(
                    "{}: right for each output, wrong for a dense cotangent; is it linear in it?",
                    label,
                )


def _unless(words: str, compute: Callable[[], Any]) -> tuple[Any, str]:
    """What is computed; or None and JAX's refusal, if it has these words."""
    try:
        return compute(), ""
    except (TypeError, ValueError) as refusal:
        if words not in str(refusal):
            raise
        return None, first_line(refusal)


def _differences(flat: Flat, sample: _Sample) -> Differences:
    """Of the chosen outputs and of a dense cotangent."""

    def chosen(vector: jax.Array) -> jax.Array:
        out = flat(vector)
        return jnp.append(out[sample.outputs], out @ sample.cotangent)

    return Differences(chosen, flat.start, eps(flat.narrowest))


def _by_reverse(flat: Flat, sample: _Sample) -> np.ndarray:
    """The slopes from one vjp for each output: [outputs + 1, inputs + moves]."""

    def seen(cotangent: jax.Array) -> jax.Array:
        gradient = flat.pulled_back(flat.start, cotangent)
        return jnp.append(gradient[sample.inputs], sample.moves @ gradient)

    @jit
    def slopes() -> jax.Array:
        def of(output: jax.Array) -> jax.Array:
            return seen(jnp.zeros(flat.size).at[output].set(1.0))

        each = jax.lax.map(of, sample.outputs)
        return jnp.concatenate([each, seen(jnp.asarray(sample.cotangent))[None]])

    return np.asarray(slopes())


def _by_forward(flat: Flat, sample: _Sample) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The slopes from one jvp for each input, [outputs + 1, inputs]; its value and f(x)."""

    def along(place: ArrayLike) -> tuple[jax.Array, jax.Array]:
        move = jnp.zeros(flat.start.size).at[place].set(1.0)
        return jax.jvp(flat, (jnp.asarray(flat.start),), (move,))

    @jit
    def slopes() -> tuple[jax.Array, jax.Array, jax.Array]:
        def of(place: jax.Array) -> jax.Array:
            out = along(place)[1]
            return jnp.append(out[sample.outputs], out @ sample.cotangent)

        return jax.lax.map(of, sample.inputs), along(0)[0], flat(jnp.asarray(flat.start))

    found, value, own = map(np.asarray, slopes())
    return found.T, (value, own)


def _compared(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    tolerance: float,
    name_of: Callable[[int], str],
    floor: float = 0.0,
) -> CheckRow:
    """A row that compares two vectors; an error is relative to the largest number of `theirs`."""
    finite = theirs[np.isfinite(theirs)]
    size = max(float(np.max(np.abs(finite), initial=0.0)), floor) or 1.0
    with np.errstate(invalid="ignore"):
        error = np.abs(ours - theirs) / size
    error = np.where(np.isfinite(ours) | np.isfinite(theirs), error, 0.0)
    error = np.where(np.isnan(error), np.inf, error)
    worst = int(np.argmax(error))
    ok = bool(error[worst] <= tolerance)
    said = _("{}: {}, expected {}", name_of(worst), f"{ours[worst]:.9g}", f"{theirs[worst]:.9g}")
    return CheckRow(name, error.size, 0, 0, float(error[worst]), tolerance, "" if ok else said, ok)


def _worst(rows: Sequence[CheckRow]) -> CheckRow:
    """The row with the largest error, which counts what all of them compared."""
    worst = max(rows, key=lambda row: row.error)
    return worst._replace(compared=sum(row.compared for row in rows))


def _reverse_rows(flat: Flat, sample: _Sample, seed: int) -> Iterator[CheckRow]:
    """The rows on the value and the gradient of a dense cotangent, from calls of several kinds."""
    given = flat.start, sample.cotangent
    first = _called(flat.compiled, *given)
    forward = first._replace(forward=first.output)
    yield _alike(N_("value in reverse mode"), flat, first, forward, given)
    none = _called(flat.compiled, flat.start, np.zeros(flat.size)).gradient
    yield _compared(N_("zero cotangent"), none, np.zeros_like(none), 0.0, flat.input_of)
    yield _scaled(flat, first, given)
    again = _called(jit(lambda *given: flat.by_reverse(*given)), *given)
    yield _alike(N_("second call"), flat, again, first, given, tolerance=0.0)
    yield _alike(N_("without jit"), flat, _called(flat.by_reverse, *given), first, given)
    yield _batched(flat, seed)


Given = tuple[np.ndarray, np.ndarray]  # The inputs and the cotangent.
Found = Values[np.ndarray]


def _called(
    reverse: Callable[..., Values[jax.Array]], vector: np.ndarray, cotangent: np.ndarray
) -> Found:
    return Values(*map(np.asarray, reverse(vector, cotangent)))


def _alike(
    name: str,
    flat: Flat,
    ours: Found,
    theirs: Found,
    given: Given,
    tolerance: float | None = None,
    dtype: str = "float64",
) -> CheckRow:
    """Compares the values and the gradients of two calls, relative to at least their rounding.

    Args:
      name: The row's.
      flat: The function.
      ours: The values to check.
      theirs: Those that they should be.
      given: The arguments of both calls.
      tolerance: The largest relative error; None: that of the outputs' precision.
      dtype: The precision of ours.
    """
    allowed = SAME[flat.narrowest] if tolerance is None else tolerance

    def compared(floors: Sequence[float]) -> CheckRow:
        names = flat.output_of, flat.output_of, flat.input_of
        four = zip(ours, theirs, names, floors, strict=True)
        return _worst([_compared(name, a, b, allowed, of, floor) for a, b, of, floor in four])

    row = compared([0.0] * 3)
    if row.ok or not allowed:
        return row
    changes = roundings_of(flat.by_reverse, dtype, given)
    return compared([MARGIN * float(change.max()) / allowed for change in changes])


def _scaled(flat: Flat, first: Found, given: Given) -> CheckRow:
    """Checks that small and large cotangents have gradients of the same factor.

    Powers of two: multiplying by them is exact.
    """
    vector, cotangent = given
    few = flat.narrowest == "float16"  # Its numbers end at 65,504.
    rows = []
    for scale in 2.0 ** (np.arange(-8, 9, 4) if few else np.arange(-20, 21, 4)):
        found = _called(flat.compiled, vector, scale * cotangent)
        found = found._replace(gradient=found.gradient / scale)
        row = _alike(N_("cotangents of 1e-6 to 1e6"), flat, found, first, given)
        note = "" if row.ok else _("for a cotangent times {}", f"{scale:.1g}")
        rows.append(row._replace(note=note))
    return _worst(rows)


def _against_plain(flat: Flat, plain: Flat, sample: _Sample) -> CheckRow:
    """The values and gradients, compared with autodiff of a plain formulation."""
    name = N_("reverse mode, by autodiff")
    if flat.size != plain.size:
        note = _("{} outputs, {} of the plain formulation", flat.size, plain.size)
        return CheckRow(name, ok=False, note=note)
    cotangents = np.zeros((sample.outputs.size + 1, flat.size))
    cotangents[np.arange(sample.outputs.size), sample.outputs] = 1.0
    cotangents[-1] = sample.cotangent
    rows = []
    for cotangent in cotangents:
        given = flat.start, cotangent
        ours, theirs = (_called(one.compiled, *given) for one in (flat, plain))
        theirs = theirs._replace(forward=theirs.output)
        rows.append(_alike(name, flat, ours, theirs, given, SAME["float64"]))
    return _worst(rows)


def _exact_row(flat: Flat, plain: Flat | None, seed: int) -> CheckRow:
    """Shows the gradient in a finite field, and that the function is its plain formulation.

    On a kink any number between the slopes of both sides is right, and the field knows only one of
    them: what is wrong must be wrong beside the point, too.
    """
    name, count = N_("without a tolerance"), flat.start.size + flat.size
    if count > MOST_EXACTLY:
        return CheckRow(name, note=_("not tried: {} numbers", f"{count:,}"))
    names, random = [flat.names[place] for place in flat.places], np.random.default_rng(seed)

    def claim(inputs: dict[str, jax.Array], cotangent: jax.Array) -> Claim:
        floating = [inputs[name] for name in names]
        found = flat.of_parts(*floating, cotangent)
        gradient = dict(zip(names, flat.split(found.gradient), strict=True))
        ours = {"jax.vjp": flat.named_outputs(found.forward)}
        theirs = {"jax.vjp": flat.named_outputs(found.output)}
        if plain is not None and plain.size == flat.size:
            ours["plain"] = flat.named_outputs(found.output)
            theirs["plain"] = flat.named_outputs(plain.of(floating))
        return Claim(found.output @ cotangent, gradient, (ours, theirs))

    def drawn(draw: Draw) -> Any:
        return draw.numbers(np.random.default_rng(0).standard_normal(flat.size))

    def verdict_at(point: np.ndarray) -> Verdict:
        start = dict(zip(names, flat.split(jnp.asarray(point)), strict=True))
        return check_exactly(Question(claim, drawn), start)

    verdict = verdict_at(flat.start)
    if verdict.kind == EXACT:
        return CheckRow(name, count)
    if verdict.kind == WRONG:
        size = NEAR * np.maximum(1.0, np.abs(flat.start))
        beside = verdict_at(flat.start + size * random.standard_normal(flat.start.size))
        if beside.kind == WRONG:
            return CheckRow(name, count, error=np.inf, worst=str(beside.why), ok=False)
        verdict = verdict._replace(why=_("a kink at this point"))
    return CheckRow(name, note=_("not shown: {}", verdict.why))


def _batched(flat: Flat, seed: int) -> CheckRow:
    """Checks that the values and gradients of three inputs by vmap are those of a loop.

    All arguments and the cotangent are batched, then each of them by itself.
    """
    name, random = N_("vmap equals a loop"), np.random.default_rng(seed)
    spread = flat.start * (1 + 0.01 * random.standard_normal((3, flat.start.size)))
    spread[0] = flat.start
    cotangents = random.standard_normal((3, flat.size))
    count = len(flat.parts)
    alone = [{n} for n in range(count + 1)] if count <= MOST_ALONE else [{count}]
    kinds = [set(range(count + 1)), *alone]  # The last number is that of the cotangent.

    def by_vmap(vectors: jax.Array, cotangents: jax.Array) -> list[Values[jax.Array]]:
        every, first = jax.vmap(flat.split)(vectors), flat.split(vectors[0])

        def of(kind: set[int]) -> Values[jax.Array]:
            given = [every[n] if n in kind else first[n] for n in range(count)]
            given.append(cotangents if count in kind else cotangents[0])
            axes = [0 if n in kind else None for n in range(count + 1)]
            return jax.vmap(flat.of_parts, axes)(*given)

        return [of(kind) for kind in kinds]

    try:
        jax.eval_shape(by_vmap, spread, cotangents)
    except Exception as refusal:  # Whatever the function raises when it is batched.
        return CheckRow(name, note=_("not tried: {}", first_line(refusal)))
    rows = []
    for kind, found in zip(kinds, jit(by_vmap)(spread, cotangents), strict=True):
        for n in range(3):
            vector = flat.start.copy()
            for place in kind - {count}:
                vector[flat.parts[place]] = spread[n, flat.parts[place]]
            given = vector, cotangents[n if count in kind else 0]
            loop = _called(flat.compiled, *given)
            one = Values(*(np.asarray(array)[n] for array in found))
            rows.append(_alike(name, flat, one, loop, given))
    return _worst(rows)


def _gradient_of(flat: Flat, sample: _Sample) -> Callable[[jax.Array], jax.Array]:
    """The gradient of the function, for one dense cotangent, as a function."""
    return lambda vector: flat.pulled_back(vector, sample.cotangent)


def _narrow(flat: Flat, args: Sequence[Any], dtype: str, seed: int) -> CheckRow:
    """Compares the gradient in few digits with that in float64 at the same numbers."""
    try:
        narrow = Flat(flat.function, args, dtype)
        cotangent = np.random.default_rng(seed).standard_normal(flat.size).astype(dtype)
        ours = _called(narrow.compiled, narrow.start.astype(dtype), cotangent)
    except Exception as refusal:  # Whatever an operation raises that has no such precision.
        return CheckRow(dtype, note=_("not supported here: {}", first_line(refusal)))
    given = narrow.start, cotangent.astype(np.float64)
    theirs = _called(flat.compiled, *given)
    if not (np.isfinite(ours.output) == np.isfinite(theirs.output)).all():
        return CheckRow(dtype, note=_("passed over: the output is not finite in these digits"))

    ours = theirs._replace(gradient=ours.gradient.astype(np.float64))
    return _alike(dtype, flat, ours, theirs, given, SAME[dtype], dtype)
