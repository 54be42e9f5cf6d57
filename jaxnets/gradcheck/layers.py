"""Each layer pair beside its plain formulation, which stock JAX differentiates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.gradcheck.compare import DIFFERENCES, Passes, Problem, Row, check
from jaxnets.gradcheck.settings import describe, draw

# bfloat16 has 8 binary digits: it rounds by up to 2^-9 = 0.002. Autodiff adds a bias's gradient up
# in it, so that a convolution's is wrong by 0.02.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 4e-2, DIFFERENCES: 1e-6}


def check_layer(name: str, rule: LayerRule) -> Row:
    """Compares a layer's pair with autodiff and central differences in all its settings."""
    return check(name, [problem_of(rule, setting) for setting in rule.settings], TOLERANCES)


def problem_of(rule: LayerRule, setting: Setting) -> Problem:
    """A layer's pair in one of its settings."""
    static = dict(setting.static)

    def call(function, inputs, labels):
        arrays = {**inputs, "labels": labels}
        if "key" in rule.inputs:
            arrays["key"] = jax.random.key(0)
        return function(*(arrays[name] for name in rule.inputs), **static)

    def manual(inputs, constants):
        labels, d_out = constants
        out, cache = call(rule.forward, inputs, labels)
        gradients = rule.backward(cache, d_out, **static)
        gradients = gradients if "params" in inputs else (gradients,)
        return {"output": out, "gradient": dict(zip(inputs, gradients, strict=True))}

    def automatic(inputs, constants):
        labels, d_out = constants
        out, pull_back = jax.vjp(lambda inputs: call(rule.plain, inputs, labels), inputs)
        return {"output": out, "gradient": pull_back(d_out)[0]}

    def number(inputs, constants):
        labels, d_out = constants
        sides = [rule.sides(inputs["x"], **static)] if rule.sides else []
        return (call(rule.plain, inputs, labels) * d_out).sum(), sides

    def at(precision: str) -> Passes:
        def cast(leaf: np.ndarray) -> jax.Array:
            return jnp.asarray(leaf, precision if leaf.dtype == np.float64 else leaf.dtype)

        inputs, labels = jax.tree.map(cast, draw(setting))
        out: Any = jax.eval_shape(lambda *arrays: call(rule.plain, *arrays), inputs, labels)
        d_out = cast(np.random.default_rng(3).standard_normal(out.shape))
        return Passes(inputs, (labels, d_out), manual, automatic, number)

    ties = setting.numbers in ("integers", "equal", "huge")
    return Problem(describe(setting), at, 1e-5 * setting.scale, ties)
