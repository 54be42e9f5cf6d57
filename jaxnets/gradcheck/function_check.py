"""Checks any gradient: `assert jaxnets.check(f, x)`."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnets.base import display
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import N_, _
from jaxnets.gradcheck.compare import precision as in_precision
from jaxnets.gradcheck.compare import quick_options
from jaxnets.gradcheck.differences import STEPS, Slopes, slopes_of

# For a slope by differences, relative to the largest of its output. If a function always computes
# in float32, its rounding is larger than a small mistake.
TOLERANCES = {"float64": 1e-8, "float32": 2e-3, "bfloat16": 0.1, "float16": 0.05}
AGAINST_PLAIN = 1e-10  # Two right formulas in float64.
NARROW = {"float32": 1e-3, "bfloat16": 0.2}  # A gradient in few digits against one in float64.
MOST = 1_000  # Up to this many inputs or outputs all slopes are taken; of more, a sample.
WIDTHS, ALIGN = (26, 18, 8, 8, 7, 0), "<>>><<"  # of the table
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
        return display.line([_(self.name), counted, *numbers, verdict, said], WIDTHS, ALIGN)


class FunctionCheck(NamedTuple):
    """The result of `check`: true if every gradient is right; as text, a table."""

    function: str
    rows: tuple[CheckRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is right."""
        return all(row.ok for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        heads = ["", _("compared"), _("error"), _("allowed")]
        head = display.line(heads, WIDTHS, ALIGN)
        lines = [f"check({self.function}): {_('ok') if self.ok else _('FAILED')}", head]
        return "\n".join([*lines, *(row.text() for row in self.rows)])


def check(
    function: Callable[..., Any],
    *args: object,
    plain: Callable[..., Any] | None = None,
    order: int = 1,
    seed: int = 0,
) -> FunctionCheck:
    """Checks the gradients of a function, from its custom_vjp or custom_jvp or from autodiff.

        slope of output i along input j = lim (f_i(x + h e_j) - f_i(x - h e_j)) / 2h

    Reverse mode (a vjp for each output, and for a dense cotangent) and forward mode (a jvp for each
    input) are compared with differences in float64, each element by itself, at kinks with the
    slopes on both sides. Further rows check a cotangent of zeros, a second call, vmap against a
    loop, and the gradient in float32 and bfloat16. `jax.test_util.check_grads` takes one random
    direction, with a tolerance that grows with the number of outputs (jax-ml/jax#3130).

    Args:
      function: A function that returns a tree of arrays, with `jax.custom_vjp`, `jax.custom_jvp` or
        neither.
      args: Its arguments, trees of arrays. Floating numbers are differentiated; integers, keys,
        strings and other objects are passed on unchanged. Differences try steps of up to a
        hundredth of max(1, |x|).
      plain: The same function without its own rule: autodiff of it is also compared.
      order: 2 also checks the gradients of the gradient.
      seed: Which elements of a large function are compared, and which cotangents are drawn.

    Returns:
      The table, which is true if all is right: `assert jaxnets.check(f, x)`. Of more than 1,000
      inputs or outputs a sample is compared, and the row says so.

    Raises:
      UserError: The function has no floating input or output, or order is neither 1 nor 2.

    Source: Ridders 1982 (`gradcheck/differences.py`).

    >>> check(jnp.sin, jnp.array([0.0, 1.0, 2.0])).ok
    True
    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, dy: (3 * x * dy,))
    >>> found = check(square, jnp.array([1.0, 2.0]))
    >>> bool(found), found.rows[0].worst
    (False, 'output[1] along args[0][1]: 6, expected 4')
    """
    if order not in (1, 2):
        raise UserError("order: expected 1 or 2, got {}", order)
    with in_precision("float64"):
        flat = _Flat(function, args, "float64")
        sample = _sample(flat, seed)
        rows = list(_slopes(flat, sample))
        if plain:
            rows.append(_against_plain(flat, _Flat(plain, args, "float64"), sample))
        rows += [_zeros(flat), _second_call(flat, sample), _batched(flat, seed)]
        if order == 2:
            gradient = _gradient_of(flat, sample)
            again = _Flat(gradient, (flat.start,), "float64", flat.name_of)
            second = _slopes(again, _sample(again, seed))
            rows += [row._replace(name=f"2nd: {row.name}") for row in second]
        # Also with float64 enabled: without it the random numbers would differ.
        rows += [_narrow(function, args, dtype, seed) for dtype in NARROW]
    return FunctionCheck(getattr(function, "__name__", type(function).__name__), tuple(rows))


class _Flat:
    """A function of trees as a function of a vector [inputs] that returns a vector [outputs]."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        dtype: str,
        named: Callable[[int], str] | None = None,
    ) -> None:
        paths, self.tree = jax.tree_util.tree_flatten_with_path(tuple(args))
        self.function, self.dtype = function, dtype
        self.leaves = [leaf for _path, leaf in paths]
        self.names = [f"args{jax.tree_util.keystr(path)}" for path, _leaf in paths]
        self.places = [n for n, leaf in enumerate(self.leaves) if _is_floating(leaf)]
        if not self.places:
            raise UserError("check: expected an argument of floating numbers, got none")
        floating = [np.asarray(self.leaves[n]) for n in self.places]
        self.shapes = [array.shape for array in floating]
        narrow = [array.astype(dtype).astype(np.float64).ravel() for array in floating]
        self.start = np.concatenate(narrow)
        outputs = jax.eval_shape(self._tree, self.start)
        found = jax.tree_util.tree_leaves_with_path(outputs)
        self.outputs = [(p, leaf) for p, leaf in found if jnp.issubdtype(leaf.dtype, jnp.floating)]
        self.size = sum(math.prod(leaf.shape) for _path, leaf in self.outputs)
        if not self.size:
            raise UserError("check: expected an output of floating numbers, got none")
        self.narrowest = max((str(leaf.dtype) for _p, leaf in self.outputs), key=_eps)
        self._named = named

    def _tree(self, vector: jax.Array) -> object:
        return self.function(*self.args_of(vector.astype(self.dtype)))

    def args_of(self, vector: jax.Array | np.ndarray) -> tuple[Any, ...]:
        """The arguments with the floating numbers of a vector."""
        leaves = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in self.leaves]
        start = 0
        for place, shape in zip(self.places, self.shapes, strict=True):
            end = start + math.prod(shape)
            leaves[place] = vector[start:end].reshape(shape)
            start = end
        return jax.tree.unflatten(self.tree, leaves)

    def __call__(self, vector: jax.Array) -> jax.Array:
        leaves = [
            leaf
            for leaf in jax.tree.leaves(self._tree(vector))
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        ]
        return jnp.concatenate([jnp.ravel(leaf).astype(vector.dtype) for leaf in leaves])

    def pulled_back(self, vector: ArrayLike, cotangent: ArrayLike) -> jax.Array:
        """The gradient of cotangent · outputs."""
        return jax.vjp(self, vector)[1](cotangent)[0]

    def name_of(self, index: int) -> str:
        """The input with a number, as "args[0]['kernel'][2, 3]"."""
        if self._named:
            return self._named(index)
        names = [self.names[place] for place in self.places]
        return _element(names, self.shapes, index)

    def output_of(self, index: int) -> str:
        """The output with a number, as "output[7]"."""
        names = [f"output{jax.tree_util.keystr(path)}" for path, _leaf in self.outputs]
        return _element(names, [leaf.shape for _path, leaf in self.outputs], index)


def _element(names: Sequence[str], shapes: Sequence[tuple[int, ...]], index: int) -> str:
    for name, shape in zip(names, shapes, strict=True):
        if index < math.prod(shape):
            place = ", ".join(map(str, np.unravel_index(index, shape))) if shape else ""
            return f"{name}[{place}]" if place else name
        index -= math.prod(shape)
    raise IndexError(index)


def _is_floating(leaf: object) -> bool:
    is_number = isinstance(leaf, float | np.ndarray | np.generic | jax.Array)
    return is_number and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _eps(dtype: str) -> float:
    return float(jnp.finfo(dtype).eps)


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, compiler_options=quick_options())


class _Sample(NamedTuple):
    """The choice of slopes that are compared."""

    inputs: np.ndarray
    moves: np.ndarray  # [moves, inputs of the function]: those that cross several kinks at once.
    outputs: np.ndarray
    cotangent: np.ndarray  # A dense one.


def _sample(flat: _Flat, seed: int) -> _Sample:
    random = np.random.default_rng(seed)
    inputs, outputs = flat.start.size, flat.size
    budget = WORK / (2 * len(STEPS) * (inputs + outputs))
    columns = min(inputs, int(np.clip(budget, 50, MOST)))
    rows = min(outputs, int(np.clip(budget, 8, MOST)))
    signs = random.choice([-1.0, 1.0], (2, inputs))
    moves, start = [np.ones(inputs), *signs], 0
    for shape in flat.shapes if len(flat.shapes) <= 20 else ():
        alone = np.zeros(inputs)
        alone[start : start + math.prod(shape)] = 1
        moves.append(alone)
        start += math.prod(shape)
    return _Sample(
        np.sort(random.choice(inputs, columns, replace=False)),
        np.array(moves),
        np.sort(random.choice(outputs, rows, replace=False)),
        random.standard_normal(outputs),
    )


def _slopes(flat: _Flat, sample: _Sample) -> Iterator[CheckRow]:
    """Reverse and forward mode, compared with differences."""
    low, high, error, kinks, values = _by_differences(flat, sample)
    count = sample.inputs.size
    # A slope's error is relative to the largest of its output: each output is a row.
    size = np.max(np.abs(np.where(np.isfinite(low + high), low + high, 0)), axis=1)[:, None] / 2
    tolerance = TOLERANCES[flat.narrowest]
    allowed = tolerance * size + 10 * error
    reliable = error <= 1e-3 * size + 1e5 * _eps(flat.narrowest) * np.abs(values)[:, None]
    # Several kinks at once may take slopes from different sides: their sum has no bounds.
    reliable[:, count:] &= ~kinks[:, count:]
    reliable[-1] &= ~kinks[-1]
    whole = sample.inputs.size == flat.start.size and sample.outputs.size == flat.size
    total = 0 if whole else flat.start.size * flat.size

    def row(name: str, ours: np.ndarray, columns: slice) -> CheckRow:
        part = (slice(None), columns)
        wrong = np.maximum(low[part] - ours, ours - high[part])
        unknown = ~reliable[part] & np.isfinite(ours)
        excess = np.where(unknown, -np.inf, wrong - allowed[part])
        excess = np.where(np.isfinite(ours), excess, np.inf)
        bad = int(np.argmax(excess))
        i, j = np.unravel_index(bad, excess.shape)
        relative = np.where(unknown, 0, np.maximum(wrong, 0) / np.maximum(size, 1e-300))
        fails = bool(excess[i, j] > 0)
        worst = ""
        if fails:
            expected = (low[part][i, j] + high[part][i, j]) / 2
            between = f"{low[part][i, j]:.6g} to {high[part][i, j]:.6g}"
            expected = between if kinks[part][i, j] else f"{expected:.6g}"
            place = _place(flat, sample, int(i), int(j) + (columns.start or 0))
            worst = _("{}: {}, expected {}", place, f"{ours[i, j]:.6g}", expected)
        nothing = bool(unknown.all())
        note = _("no difference could be taken") if nothing else ""
        return CheckRow(
            name,
            int((~unknown).sum()),
            total,
            int(unknown.sum()),
            float(np.max(relative, initial=0.0)),
            tolerance,
            worst,
            not fails and not nothing,
            note,
        )

    yield row(N_("reverse mode"), _by_reverse(flat, sample), slice(None))
    try:
        forward = _by_forward(flat, sample)
    except TypeError as refusal:
        if "custom_vjp" not in str(refusal):
            raise
        yield CheckRow(N_("forward mode"), note=_("refused: {}", first_line(refusal)))
        return
    yield row(N_("forward mode"), forward, slice(0, count))


def _place(flat: _Flat, sample: _Sample, i: int, j: int) -> str:
    """The names of an output and an input."""
    output = _("a dense cotangent")
    if i < sample.outputs.size:
        output = flat.output_of(int(sample.outputs[i]))
    if j < sample.inputs.size:
        return _("{} along {}", output, flat.name_of(int(sample.inputs[j])))
    return _("{} along several inputs at once", output)


def _by_differences(
    flat: _Flat, sample: _Sample
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bounds of the slopes, their errors, the kinks [outputs + 1, inputs + moves]; the outputs."""

    def chosen(vector: jax.Array) -> jax.Array:
        out = flat(vector)
        return jnp.append(out[sample.outputs], out @ sample.cotangent)

    eps = _eps(flat.narrowest)
    steps = STEPS * (1.0 if eps < 1e-12 else 16.0)

    @_jit
    def values(move: jax.Array, ends: jax.Array) -> jax.Array:
        return jax.lax.map(lambda h: chosen(flat.start + h * move), ends)

    found: list[Slopes] = []
    here = np.asarray(_jit(chosen)(flat.start))
    for number in range(sample.inputs.size + len(sample.moves)):
        scale = 1.0
        if number < sample.inputs.size:
            place = sample.inputs[number]
            move = np.zeros(flat.start.size)
            move[place] = 1.0
            scale = 2.0 ** np.round(np.log2(max(1.0, abs(flat.start[place]))))
        else:
            move = sample.moves[number - sample.inputs.size]
        ends = np.concatenate([-scale * steps, scale * steps])
        below, above = np.split(np.asarray(values(move, ends)), 2)
        found.append(slopes_of(below, here, above, scale * steps, eps))
    bounds = [slopes.bounds() for slopes in found]
    low, high, error = (np.stack(part, axis=1) for part in zip(*bounds, strict=True))
    return low, high, error, np.stack([slopes.on_a_kink for slopes in found], axis=1), here


def _by_reverse(flat: _Flat, sample: _Sample) -> np.ndarray:
    """The slopes from one vjp for each output: [outputs + 1, inputs + moves]."""

    def seen(cotangent: jax.Array) -> jax.Array:
        gradient = flat.pulled_back(flat.start, cotangent)
        return jnp.append(gradient[sample.inputs], sample.moves @ gradient)

    @_jit
    def slopes() -> jax.Array:
        def of(output: jax.Array) -> jax.Array:
            return seen(jnp.zeros(flat.size).at[output].set(1.0))

        each = jax.lax.map(of, sample.outputs)
        return jnp.concatenate([each, seen(jnp.asarray(sample.cotangent))[None]])

    return np.asarray(slopes())


def _by_forward(flat: _Flat, sample: _Sample) -> np.ndarray:
    """The slopes from one jvp for each input: [outputs + 1, inputs]."""

    @_jit
    def slopes() -> jax.Array:
        def of(place: jax.Array) -> jax.Array:
            move = jnp.zeros(flat.start.size).at[place].set(1.0)
            out = jax.jvp(flat, (jnp.asarray(flat.start),), (move,))[1]
            return jnp.append(out[sample.outputs], out @ sample.cotangent)

        return jax.lax.map(of, sample.inputs)

    return np.asarray(slopes()).T


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


def _against_plain(flat: _Flat, plain: _Flat, sample: _Sample) -> CheckRow:
    """The outputs and gradients, compared with autodiff of a plain formulation."""
    name = N_("reverse mode, by autodiff")
    if flat.size != plain.size:
        note = _("{} outputs, {} of the plain formulation", flat.size, plain.size)
        return CheckRow(name, ok=False, note=note)
    cotangents = np.zeros((sample.outputs.size + 1, flat.size))
    cotangents[np.arange(sample.outputs.size), sample.outputs] = 1.0
    cotangents[-1] = sample.cotangent

    def gradients(one: _Flat) -> np.ndarray:
        each = _jit(lambda rows: jax.lax.map(lambda row: one.pulled_back(one.start, row), rows))
        return np.asarray(each(cotangents))

    rows = [
        _compared(name, a, b, AGAINST_PLAIN, flat.name_of, _eps("float64"))
        for a, b in zip(gradients(flat), gradients(plain), strict=True)
    ]
    out, expected = (np.asarray(_jit(one)(one.start)) for one in (flat, plain))
    rows.append(_compared(N_("output"), out, expected, AGAINST_PLAIN, flat.output_of))
    worst = max(rows, key=lambda row: row.error)
    return worst._replace(compared=sum(row.compared for row in rows))


def _zeros(flat: _Flat) -> CheckRow:
    """Checks that a cotangent of zeros has a gradient of zeros."""
    ours = np.asarray(_jit(flat.pulled_back)(flat.start, np.zeros(flat.size)))
    return _compared(N_("zero cotangent"), ours, np.zeros_like(ours), 0.0, flat.name_of)


def _second_call(flat: _Flat, sample: _Sample) -> CheckRow:
    """Checks that a second call, traced again, equals the first to the bit."""

    def once() -> np.ndarray:
        def both(vector: jax.Array, cotangent: jax.Array) -> jax.Array:
            return jnp.append(flat(vector), flat.pulled_back(vector, cotangent))

        return np.asarray(_jit(both)(flat.start, sample.cotangent))

    def name_of(index: int) -> str:
        return flat.output_of(index) if index < flat.size else flat.name_of(index - flat.size)

    return _compared(N_("second call"), once(), once(), 0.0, name_of)


def _batched(flat: _Flat, seed: int) -> CheckRow:
    """Checks that the gradients of three inputs by vmap are those of a loop."""
    name, random = N_("vmap equals a loop"), np.random.default_rng(seed)
    spread = 1 + 0.01 * random.standard_normal((3, flat.start.size))
    spread[0] = 1.0
    vectors, cotangents = flat.start * spread, random.standard_normal((3, flat.size))
    try:
        jax.eval_shape(jax.vmap(flat), vectors)
    except Exception as refusal:  # Whatever the function raises when it is batched.
        return CheckRow(name, note=_("refused: {}", first_line(refusal)))
    batched = np.asarray(_jit(jax.vmap(flat.pulled_back))(vectors, cotangents))
    pull_back = _jit(flat.pulled_back)
    loop = [np.asarray(pull_back(*pair)) for pair in zip(vectors, cotangents, strict=True)]
    rows = [
        _compared(name, a, b, AGAINST_PLAIN if flat.narrowest == "float64" else 1e-3, flat.name_of)
        for a, b in zip(batched, loop, strict=True)
    ]
    return max(rows, key=lambda row: row.error)._replace(compared=batched.size)


def _gradient_of(flat: _Flat, sample: _Sample) -> Callable[[jax.Array], jax.Array]:
    """The gradient of the function, for one dense cotangent, as a function."""
    return lambda vector: flat.pulled_back(vector, jnp.asarray(sample.cotangent))


def _narrow(function: Callable[..., Any], args: Sequence[Any], dtype: str, seed: int) -> CheckRow:
    """Compares the gradient in few digits with that in float64 at the same numbers."""
    try:
        return _in_few_digits(function, args, dtype, seed)
    except (NotImplementedError, TypeError) as refusal:  # LAPACK refuses bfloat16.
        if isinstance(refusal, TypeError) and "does not accept dtype" not in str(refusal):
            raise
        return CheckRow(dtype, note=_("refused: {}", first_line(refusal)))


def _in_few_digits(
    function: Callable[..., Any], args: Sequence[Any], dtype: str, seed: int
) -> CheckRow:
    flat = _Flat(function, args, dtype)
    cotangent = np.random.default_rng(seed).standard_normal(flat.size).astype(dtype)
    wide = _Flat(function, flat.args_of(flat.start), "float64")  # Rounded to these digits.
    theirs = np.asarray(_jit(wide.pulled_back)(wide.start, cotangent.astype(np.float64)))
    expected = np.asarray(_jit(wide)(wide.start))
    given = flat.start.astype(dtype), cotangent
    ours = np.asarray(_jit(flat.pulled_back)(*given)).astype(np.float64)
    output = np.asarray(_jit(flat)(given[0])).astype(np.float64)
    if not (np.isfinite(output) == np.isfinite(expected)).all():
        return CheckRow(dtype, note=_("passed over: the output is not finite in these digits"))
    floor = 100 * _eps(dtype) * float(np.max(np.abs(cotangent.astype(np.float64)), initial=0.0))
    return _compared(dtype, ours, theirs, NARROW[dtype], flat.name_of, floor)
