"""How much rounding changes the numbers that a function computes.

A network's gradients are compared with T, the size of what their layers sum (`errors.py`). A
function of which nothing is known has no layers: here its rounding is measured. Its operations are
computed in float64, and each result is rounded to fewer digits: to the nearest number, mostly away
from 0, and mostly towards 0. Sums are added up in float32, because their partial sums are rounded
too. The largest change stands for what rounding does. It has the terms that cancel, as in the
gradient of a sum of a softmax, and it has what multiplies the rounding of the arguments, as 1000
does in sin(1000 x).

A gradient that is wrong in one precision only is not excused: the operations are those that are
traced in float64.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, Var

from jaxnets.gradcheck.quick import jit

# A result is multiplied by 1 + t eps before it is rounded. It stays if it needs no rounding.
TILTS = (0.0, 0.249, -0.249)
MARGIN = 10  # By how many times its measured rounding a gradient in few digits may be wrong.
# Operations that add up many numbers. Each partial sum is rounded, to float32 at least.
SUMS = ("reduce_sum", "dot_general", "conv_general_dilated")
# Operations that have others within, which are rounded too.
CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")
CALLS += ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
LOOPS = ("scan", "while", "cond")


def roundings_of(function: Callable[..., Any], dtype: str, args: Sequence[Any]) -> list[np.ndarray]:
    """The change of each number in each result by rounding; 0 for one that does not stay finite.

    Args:
      function: Takes arrays in float64, and returns a tree of them.
      dtype: The precision to which each operation's result is rounded. In float64 nothing would be
        rounded: the changes in float32 are taken, in the ratio of the two precisions.
      args: The arguments, arrays or trees of them.
    """
    if dtype == "float64":
        ratio = float(jnp.finfo("float64").eps / jnp.finfo("float32").eps)
        return [ratio * change for change in roundings_of(function, "float32", args)]
    traced = jax.make_jaxpr(function)(*args)

    @jit
    def results(*args: jax.Array) -> list[list[jax.Array]]:
        exact = _evaluated(traced, "float64", 0.0, *args)
        return [exact, *(_evaluated(traced, dtype, tilt, *args) for tilt in TILTS)]

    found = results(*jax.tree.leaves(args))
    exact, *others = [[np.asarray(one) for one in numbers] for numbers in found]
    with np.errstate(invalid="ignore"):
        changes = [[np.abs(a - b) for a in found] for b, *found in zip(exact, *others, strict=True)]
    return [np.max(np.where(np.isfinite(change), change, 0), axis=0) for change in changes]


def _evaluated(traced: ClosedJaxpr, dtype: str, tilt: float, *args: jax.Array) -> list[jax.Array]:
    """The results of traced operations, each of them rounded."""
    known: dict[Var, jax.Array] = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
    known |= dict(zip(traced.jaxpr.invars, args, strict=True))
    rounded = partial(_rounded, dtype, tilt)

    def value(variable: Literal | Var) -> jax.Array:
        return rounded(variable.val if isinstance(variable, Literal) else known[variable])

    for equation in traced.jaxpr.eqns:
        values, params = [value(variable) for variable in equation.invars], dict(equation.params)
        name = equation.primitive.name
        if name in CALLS:
            inner = next(one for one in params.values() if isinstance(one, ClosedJaxpr | Jaxpr))
            results = _evaluated(_closed(inner), dtype, tilt, *values)
        else:
            if name in LOOPS:
                params = {key: _inner(one, dtype, tilt) for key, one in params.items()}
            is_wide = all(value.dtype == jnp.float64 for value in values)
            if name in SUMS and is_wide and dtype != "float64":
                results = _added_up(equation.primitive, values, params)
            else:
                results = equation.primitive.bind(*values, **params)
            results = results if equation.primitive.multiple_results else [results]
        known |= dict(zip(equation.outvars, map(rounded, results), strict=True))
    return [value(variable) for variable in traced.jaxpr.outvars]


def _added_up(operation: Primitive, values: Sequence[jax.Array], params: dict[str, Any]) -> Any:
    """The result of an operation that adds up in float32, which holds what its numbers have."""
    if "preferred_element_type" in params:
        params = {**params, "preferred_element_type": jnp.float32}
    added = operation.bind(*[value.astype(jnp.float32) for value in values], **params)
    return added.astype(jnp.float64)


def _rounded(dtype: str, tilt: float, value: jax.Array) -> jax.Array:
    """A number of float64 with the digits and the range of another precision."""
    if jnp.result_type(value) != jnp.float64:
        return value
    digits = jnp.finfo(dtype)
    tilted = value * (1 + tilt * float(digits.eps))
    return jax.lax.reduce_precision(tilted, digits.nexp, digits.nmant)


def _closed(traced: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    return traced if isinstance(traced, ClosedJaxpr) else ClosedJaxpr(traced, ())


def _inner(param: object, dtype: str, tilt: float) -> object:
    """A loop's body, or the branches of a condition, with each result rounded."""
    if isinstance(param, tuple) and param and isinstance(param[0], ClosedJaxpr):
        return tuple(_inner(branch, dtype, tilt) for branch in param)
    if not isinstance(param, ClosedJaxpr):
        return param
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in param.in_avals]
    return jax.make_jaxpr(partial(_evaluated, param, dtype, tilt))(*shapes)
