"""Programs that run once or a few times: how they are compiled, and in which precision they run."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import jax

from jaxnets.machine.platform import (
    OLDER_EMITTER,
    compiler_options,
    compiler_options_for_init,
    default_platform,
)

# For hundreds of programs that run once: the compiler spends no time on making them fast.
QUICK_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
    **OLDER_EMITTER,
}


def quick_options(*, fast: bool = False) -> dict[str, Any]:
    """Options for jax.jit of a program that runs once.

    Args:
      fast: Whether LLVM optimizes a little. Without it a network's convolutions in float64 run ten
        times as long, which is more than the compilation saves.
    """
    platform = default_platform()
    options = (compiler_options(platform) or {}) | QUICK_COMPILATION
    return options | (compiler_options_for_init(platform) or {}) if fast else options


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function that runs a few times."""
    return jax.jit(function, compiler_options=quick_options())


@contextlib.contextmanager
def precision(dtype: str) -> Generator[None]:
    """Allows float64 only where it is wanted, and computes matrix products in full precision."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        jax.config.update("jax_enable_x64", before)
