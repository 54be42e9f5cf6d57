"""One image by each engine: `load_predictor(RUN, engine=...)`, in turn, in one thread that waits.

    python benchmarks/latency.py runs/cnn

"jax, constants" is the network compiled with its parameters as constants.
"""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnets.machine.platform import compiler_options, default_platform
from jaxnets.predict.predict import compile_network, load_predictor
from jaxnets.predict.trained import load_network

CALLS, ROUNDS = 500, 9


def measure(calls: dict[str, Callable[[], np.ndarray]]) -> None:
    """Prints the medians: of the rounds' CPU time for a call, and of the calls' time."""
    cpu, wall = ({name: [] for name in calls} for _ in range(2))
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.process_time()
            for _ in range(CALLS):
                begin = time.perf_counter()
                call()
                wall[name].append(1e6 * (time.perf_counter() - begin))
            cpu[name].append(1e6 * (time.process_time() - started) / CALLS)
    for name, rounds in cpu.items():
        spread = f"{np.median(rounds):6.1f} us of CPU time ({min(rounds):.1f} to {max(rounds):.1f})"
        print(f"{name:16} {spread}, {np.median(wall[name]):6.1f} us")


def main() -> None:
    """Measures the ways that are installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    request = parser.parse_args()
    by_jax, network = load_predictor(request.run), load_network(request.run)
    image = np.random.default_rng(0).random((1, *network.image_shape), np.float32)
    program: Any = compile_network(network.config, network.model)
    in_program = functools.partial(program.__wrapped__, jax.device_put(network.params))
    fixed = jax.jit(in_program, compiler_options=compiler_options(default_platform()))
    calls = {
        "jax": lambda: by_jax(image),
        "jax, program": lambda: np.asarray(by_jax.forward(image)),
        "jax, constants": lambda: np.asarray(fixed(image)),
    }
    if importlib.util.find_spec("onnxruntime"):
        by_onnx = load_predictor(request.run, engine="onnxruntime")
        calls["onnxruntime"] = lambda: by_onnx(image)
    measure(calls)


if __name__ == "__main__":
    main()
