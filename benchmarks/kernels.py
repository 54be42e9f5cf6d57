"""A kernel of one layer without parameters, beside its pair and beside stock JAX.

    python benchmarks/kernels.py                       all of them
    python benchmarks/kernels.py fast_max_pool         one

The CPU time of a forward and a backward pass, the median of --rounds, in turn, as a step's options
compile it.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.winograd import cpu_times
from jaxnets.backprop.rule import LayerRule
from jaxnets.kernels import KERNELS
from jaxnets.machine.platform import compiler_options_for_step, set_up_jax

# The shape of the input, and the layer's settings: those of AlexNet at batch 128.
CALLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "overlapping_max_pool": (
        (128, 55, 55, 64),
        {"window": (3, 3), "strides": (2, 2), "padding": "VALID"},
    ),
    "fast_max_pool": (
        (128, 55, 55, 64),
        {"window": (3, 3), "strides": (2, 2), "padding": "VALID"},
    ),
    "fast_relu": ((128, 55, 55, 64), {}),
    "fast_local_response_norm": ((128, 27, 27, 96), {}),
}


def by_pair(rule: LayerRule, static: dict[str, Any]) -> Callable[..., Any]:
    """Both passes of a rule."""

    def passes(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, cache = rule.forward(x, **static)
        return y, rule.backward(cache, dy, **static)

    return passes


def by_autodiff(rule: LayerRule, static: dict[str, Any]) -> Callable[..., Any]:
    """Both passes of stock JAX."""

    def passes(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull_back = jax.vjp(lambda x: rule.plain(x, **static), x)
        return y, pull_back(dy)[0]

    return passes


def main() -> None:
    """Prints the times of each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("kernel", nargs="?", choices=CALLS)
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    set_up_jax()
    options = compiler_options_for_step(True, "cpu")
    rng = np.random.default_rng(0)
    for kernel in KERNELS:
        if kernel.name not in CALLS or flags.kernel not in (None, kernel.name):
            continue
        shape, static = CALLS[kernel.name]
        x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
        y = jax.eval_shape(partial(kernel.rule.plain, **static), x)
        dy = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)
        ways = {
            "jax.grad": by_autodiff(kernel.rule, static),
            "pair": by_pair(kernel.pair, static),
            "kernel": by_pair(kernel.rule, static),
        }
        compiled = {way: jax.jit(f, compiler_options=options) for way, f in ways.items()}
        medians = cpu_times(compiled.values(), (x, dy), flags.rounds)
        measured = zip(ways, medians, strict=True)
        times = ", ".join(f"{way} {1e3 * seconds:.1f} ms" for way, seconds in measured)
        print(f"{kernel.name} {'x'.join(map(str, shape))}: {times}", flush=True)


if __name__ == "__main__":
    main()
