"""One image by each engine: `load_predictor(RUN, engine=...)`, in turn, in one thread that waits.

    python benchmarks/latency.py runs/cnn
    python benchmarks/latency.py runs/cnn --pause=0.01    seconds between two images

"jax, constants" is the network compiled with its parameters as constants. "onnxruntime, alone" is
its session without ours around it, as many threads as it takes by default, and one.
"""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnets.export.export import content_of
from jaxnets.machine.platform import compiler_options, default_platform
from jaxnets.predict.predict import compile_network, load_predictor
from jaxnets.predict.trained import load_network

CALLS, ROUNDS = 500, 9


def measure(calls: dict[str, Callable[[], np.ndarray]], pause: float) -> None:
    """Prints the medians: of the rounds' CPU time for a call, and of the calls' time."""
    cpu, wall = ({name: [] for name in calls} for _ in range(2))
    count = 50 if pause else CALLS
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            time.sleep(0.1)  # ONNX Runtime's second thread spins on, up to 40 ms after a call.
            started = time.process_time()
            for _ in range(count):
                begin = time.perf_counter()
                call()
                wall[name].append(1e6 * (time.perf_counter() - begin))
                time.sleep(pause)
            cpu[name].append(1e6 * (time.process_time() - started) / count)
    for name, rounds in cpu.items():
        spread = f"{np.median(rounds):8.1f} us of CPU time ({min(rounds):.1f} to {max(rounds):.1f})"
        print(f"{name:30} {spread}, {np.median(wall[name]):6.1f} us")


def session(content: bytes, threads: int, image: np.ndarray) -> Callable[[], np.ndarray]:
    """ONNX Runtime's call on the image; 0 threads are its default."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    found: Any = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    name = found.get_inputs()[0].name
    return lambda: found.run(None, {name: image})[0]


def main() -> None:
    """Measures the ways that are installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS")
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
        content = content_of(network, "onnx")
        for threads, name in ((0, "default"), (1, "1 thread")):
            calls[f"onnxruntime, alone, {name}"] = session(content, threads, image)
    measure(calls, request.pause)


if __name__ == "__main__":
    main()
