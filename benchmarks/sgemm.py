"""The machine's matrix-product rate, against which the other benchmarks measure.

python benchmarks/sgemm.py
"""

import statistics
import time

import jax
import numpy as np


def sgemm_rate(size: int = 2048, repeats: int = 9) -> float:
    """GFLOP/s of a float32 product of two square matrices, median."""
    rng = np.random.default_rng(0)
    a = jax.device_put(rng.random((size, size), dtype=np.float32))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds) / 1e9


if __name__ == "__main__":
    print(f"sgemm {sgemm_rate():.0f} GFLOP/s")
