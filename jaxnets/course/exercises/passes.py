"""Runs a student's function on the judge's numbers; this module knows no answers.

This runs in the student's process, in a notebook, or in the confined process of `grade`.
"""

import contextlib
import copy
import inspect
import io
import itertools
import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.base.language import N_, _
from jaxnets.course.exercises.autodiff import refuse_derivatives
from jaxnets.course.exercises.error_messages import ResultError, error_message, kind_in_words
from jaxnets.gradcheck import residues
from jaxnets.gradcheck.interpret import Interpreter, Traced
from jaxnets.gradcheck.quick import QUICK_COMPILATION, precision

NOTHING = N_("it returns nothing; its last line must be a return")
NO_PAIR = N_("expected (d_params, dx) with d_params a dict, got {}")


@dataclass(frozen=True)
class Call:
    """One call of a backward pass."""

    dtype: str  # One of compare.PRECISIONS.
    cache: Any
    d_out: Any
    static: Mapping[str, Any]
    params: tuple[str, ...]  # The parameters whose gradients it returns; () if the layer has none.
    dx: str = "dx"  # The exercise's name for the gradient of its input.

    @property
    def leaves(self) -> set[str]:
        """The names of the arrays of an answer, as in `named_result`."""
        return {*(f"params.{name}" for name in self.params), "x"}

    def gradient_name(self, leaf: str) -> str:
        """The name of a gradient in the code: d_params["kernel"] or dx."""
        name = leaf.partition(".")[2]
        return f'd_params["{name}"]' if name else self.dx


@dataclass(frozen=True, kw_only=True)
class ExactCall(Call):
    """One call of a backward pass on residues (gradcheck/exact.py).

    Its cache is a pair: `residues_of` computes the gradients twice.
    """

    interpreter: Interpreter  # As for the forward pass.


class PlainCall(NamedTuple):
    """One call of a function that is not a backward pass."""

    arguments: Mapping[str, Any]  # By position; the names are those of the exercise.
    settings: Mapping[str, Any]  # By name.
    returns: Sequence[str]  # The names of its results.
    functions: str = ""  # The source of functions that come before the other arguments.

    @property
    def leaves(self) -> set[str]:
        """The names of the arrays of an answer."""
        return set(self.returns)

    def gradient_name(self, leaf: str) -> str:
        """The name of a result in the code."""
        return leaf


class Printed(io.TextIOBase):
    """A stream that only notes whether anything was written to it."""

    anything = False

    def write(self, text: str) -> int:
        self.anything = True
        return len(text)


def answers_of(function: Callable[..., Any], calls: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    """The arrays that a student's function returns for each Call or PlainCall, by their names."""
    plain = isinstance(calls[0], PlainCall)
    return list(results_of(function, calls) if plain else gradients_of(function, calls))


def results_of(
    function: Callable[..., Any], calls: Sequence[PlainCall]
) -> Iterator[dict[str, np.ndarray]]:
    """Each call's results as NumPy arrays, by the names of `PlainCall.returns`."""
    for call in calls:
        functions: dict[str, Any] = {}
        exec(call.functions, {"np": np}, functions)
        # Deep: a function that changes an array in place must not change the judge's.
        arguments = copy.deepcopy(call.arguments)
        _expect_these(function, [*functions, *arguments], call.settings)
        # The verdict reports numbers that are not finite.
        with precision("float64"), np.errstate(all="ignore"):
            try:
                result = function(*functions.values(), *arguments.values(), **call.settings)
            except Exception as error:
                raise ResultError(error_message(error, file_of(function))) from error
            if result is None:
                raise ResultError(_(NOTHING))
            values = [result] if len(call.returns) == 1 else result
            if not isinstance(values, tuple | list) or len(values) != len(call.returns):
                wanted = ", ".join(call.returns)
                raise ResultError(_("expected ({}), got {}", wanted, _kind(result)))
            named = zip(call.returns, values, strict=True)
            yield {name: _real(name, _array(name, value)) for name, value in named}


def gradients_of(
    backward: Callable[..., Any], calls: Sequence[Call]
) -> Iterator[dict[str, np.ndarray]]:
    """Each call's gradients as NumPy arrays, by their names: "params.kernel", "x".

    All calls in one precision are compiled as one program, which takes a third of the time.
    """
    for dtype, group in itertools.groupby(calls, key=lambda call: call.dtype):
        same = list(group)
        if exact := [call for call in same if isinstance(call, ExactCall)]:
            yield from map(partial(residues_of, backward), exact)
            continue
        _expect_these(backward, ["cache", "d_out"], same[0].static)
        with precision(dtype):
            arrays = jax.tree.map(jnp.asarray, [(call.cache, call.d_out) for call in same])
            try:
                found = _run(partial(_named, backward, same), arrays)
            except ResultError:
                raise
            except Exception as error:
                raise ResultError(error_message(error, file_of(backward))) from error
            for call, row in zip(same, found, strict=True):
                yield {name: _real(call.gradient_name(name), array) for name, array in row.items()}


def residues_of(backward: Callable[..., Any], call: ExactCall) -> dict[str, np.ndarray]:
    """A call's gradients as residues, [2, ...] each; none if the field cannot compute them.

    In the second computation, other functions stand for those that the field does not know.
    """

    def named(cache: Any, d_out: Any) -> dict[str, Any]:
        return named_result(call, backward(cache, d_out, **call.static))

    first, second = call.cache
    run = call.interpreter
    try:
        with precision("float64"), contextlib.redirect_stdout(Printed()):
            traced = Traced(named, first, call.d_out)
            if traced.takes_exp and not run.with_exponent:
                return {}
            found = [traced(run, first, call.d_out)]
            with residues.other_functions():
                found.append(traced(run, second, call.d_out))
            return {
                name: np.stack([run.lift(one[name]).value for one in found]) for name in found[0]
            }
    except Exception:  # JAX cannot trace it, as NumPy's functions, or the field has no such number.
        return {}


def file_of(function: Callable[..., Any]) -> str:
    """The name of the file that a function comes from; "" if Python does not know it."""
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")


def _expect_these(
    function: Callable[..., Any], names: Sequence[str], settings: Mapping[str, Any]
) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*names, **settings)
    except TypeError:
        wanted = ", ".join([*names, *settings])
        raise ResultError(_("expected the arguments ({}), got {}", wanted, signature)) from None


def _run(function: Callable[..., list[dict[str, Any]]], arrays: Any) -> list[dict[str, Any]]:
    """Compiles a function, which must not differentiate; if it needs concrete numbers, runs it."""
    printed = Printed()
    try:
        with contextlib.redirect_stdout(printed):
            lowered = jax.jit(function, compiler_options=QUICK_COMPILATION).lower(arrays)
    except Exception:  # It uses NumPy, needs a number's value, or is wrong: the call shows which.
        return function(arrays)
    refuse_derivatives(lowered.as_text(debug_info=True))
    if printed.anything:  # It prints what it computes, which had no numbers while JAX traced it.
        return function(arrays)
    return lowered.compile()(arrays)


def _named(
    backward: Callable[..., Any], calls: Sequence[Call], arrays: Sequence[tuple[Any, Any]]
) -> list[dict[str, Any]]:
    return [
        named_result(call, backward(*array, **call.static))
        for call, array in zip(calls, arrays, strict=True)
    ]


def named_result(call: Call, result: Any) -> dict[str, Any]:
    """The result of a backward pass, as arrays by the names of `gradients_of`.

    Raises:
      ResultError: The result is something else.
    """
    if result is None:
        raise ResultError(_(NOTHING))
    if not call.params:
        return {"x": _array(call.dx, result)}
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ResultError(_(NO_PAIR, _kind(result)))
    d_params, dx = result
    if not isinstance(d_params, Mapping):
        raise ResultError(_(NO_PAIR, _("{} as d_params", _kind(d_params))))
    if set(d_params) != set(call.params):
        wanted, got = ", ".join(call.params), ", ".join(map(str, d_params)) or _("nothing")
        raise ResultError(_("d_params: expected {}, got {}", wanted, got))
    named = {f"params.{name}": d_params[name] for name in call.params}
    return {
        name: _array(call.gradient_name(name), value) for name, value in (named | {"x": dx}).items()
    }


def _array(name: str, value: Any) -> jax.Array:
    """An array, a number or nested lists of numbers, as an array."""
    parts = value if isinstance(value, list) else [value]
    if any(part is ... for part in parts):
        raise ResultError(_("{} is still ..., the blank to fill in", name))
    if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float | list):
        raise ResultError(_("{}: expected an array, got {}", name, _kind(value)))
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ResultError(_("{}: expected numbers, in rows of equal length", name)) from None


def _real(name: str, array: Any) -> np.ndarray:
    """Real numbers as float64, which holds every precision's exactly."""
    found = np.asarray(array)
    if jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise ResultError(_("{}: expected real numbers, got {}", name, found.dtype))
    return found.astype(np.float64)


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return _("a {} of {}", type(value).__name__, len(value))
    if value is None:
        return _("None")
    return _("..., the blank to fill in") if value is ... else kind_in_words(value)


def defined_by(source: str, path: str) -> dict[str, Any]:
    """Runs the text of a file; returns what it defines."""
    linecache.cache[path] = len(source), None, source.splitlines(keepends=True), path
    namespace: dict[str, Any] = {"__name__": "exercise"}
    exec(compile(source, path, "exec"), namespace)
    return namespace


def run_source(
    source: str, path: str, name: str, calls: Sequence[Any]
) -> list[dict[str, np.ndarray]] | str:
    """Runs a file and its function on each call; an error is returned as one line."""
    try:
        return answers_of(defined_by(source, path)[name], calls)
    except ResultError as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # The user's file may raise anything.
        return error_message(error, path)
