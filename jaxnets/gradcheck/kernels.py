"""Each kernel beside the pair that it must equal.

In float64 the two agree. In float32 both are compared with the pair in float64: a kernel may round
more than the pair does, and the row says how much.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxnets.backprop.rule import Setting
from jaxnets.gradcheck.compare import Error, Inputs, Row, disagreement, precision, quick_options
from jaxnets.gradcheck.layer_check import problem_of
from jaxnets.kernels.kernel import Kernel

FLOAT64 = 1e-10


def check_kernel(kernel: Kernel) -> Row:
    """Compares a kernel with its pair in all its settings."""
    started = time.perf_counter()
    errors = {"float64": Error(), "float32": Error()}
    of_pair = Error()
    settings = kernel.rule.settings
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        programs = {
            dtype: [pool.submit(_lowered(kernel, setting, dtype).compile) for setting in settings]
            for dtype in errors
        }
    for setting, wide, narrow in zip(settings, *programs.values(), strict=True):
        given = _arrays(kernel, setting, "float32")
        with precision("float64"):
            ours, pair = wide.result()(*_arrays(kernel, setting, "float64"))
            errors["float64"] = max(errors["float64"], disagreement(ours, pair))
            _, exact = wide.result()(*jax.tree.map(_widened, given))
        with precision("float32"):
            ours, pair = narrow.result()(*given)
        errors["float32"] = max(errors["float32"], disagreement(ours, exact))
        of_pair = max(of_pair, disagreement(pair, exact))
    tried = [problem_of(kernel.rule, setting).label for setting in settings]
    tolerances = {"float64": FLOAT64, "float32": kernel.float32_error}
    note = f"the pair itself {of_pair.value:.1e} in float32"
    name, seconds = f"kernel: {kernel.name}", time.perf_counter() - started
    return Row(name, tried, errors, tolerances, 0, 0, seconds, note)


def _arrays(kernel: Kernel, setting: Setting, dtype: str) -> tuple[Inputs, Any]:
    """The (inputs, constants) of a setting."""
    with precision(dtype):
        passes = problem_of(kernel.rule, setting).at(dtype)
        return passes.inputs, passes.constants


def _widened(leaf: jax.Array) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _lowered(kernel: Kernel, setting: Setting, dtype: str) -> jax.stages.Lowered:
    """The program (inputs, constants) -> the kernel's output and gradients, the pair's."""
    with precision(dtype):
        ours, pair = (problem_of(rule, setting).at(dtype) for rule in (kernel.rule, kernel.pair))

        def both(inputs: Inputs, constants: object) -> tuple[dict[str, Any], dict[str, Any]]:
            return ours.manual(inputs, constants), pair.manual(inputs, constants)

        jitted = jax.jit(both, compiler_options=quick_options())
        return jitted.lower(ours.inputs, ours.constants)
