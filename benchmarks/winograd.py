"""A convolution of AlexNet, forward and its two gradients: XLA's beside Winograd's algorithm.

    python benchmarks/winograd.py                     `alexnet`'s and `alexnet_small`'s layers
    python benchmarks/winograd.py 128,13,384,256,3    one: batch, pixels, channels, features, window

CPU time of each, median of five in turn, and the error beside the largest number. Layers with fewer
channels than convolution.py's FEWEST_CHANNELS gain nothing; the last row is such a layer.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop import winograd
from jaxnets.backprop.windows import Pads
from jaxnets.machine.platform import compiler_options_for_step, set_up_jax

LAYERS = (
    (128, 27, 64, 192, 5),
    (128, 13, 192, 384, 3),
    (128, 13, 384, 256, 3),
    (128, 13, 256, 256, 3),
    (128, 6, 256, 256, 3),
    (128, 13, 64, 128, 3),
)
PASSES = ("forward", "dW", "dX")


def functions(size: int, pads: Pads):
    """The three passes by XLA and ours, each a function of x, dz and the kernel."""

    def flipped(kernel):
        return kernel[::-1, ::-1].swapaxes(2, 3)

    def xla(x, kernel):
        letters = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=letters)

    return {
        "XLA": [
            lambda x, dz, kernel: xla(x, kernel),
            lambda x, dz, kernel: jax.vjp(lambda kernel: xla(x, kernel), kernel)[1](dz)[0],
            lambda x, dz, kernel: xla(dz, flipped(kernel)),
        ],
        "ours": [
            lambda x, dz, kernel: winograd.convolve(x, kernel, pads),
            lambda x, dz, kernel: winograd.kernel_gradient(x, dz, (size, size), pads),
            lambda x, dz, kernel: winograd.convolve(dz, flipped(kernel), pads),
        ],
    }


def measure(batch: int, pixels: int, channels: int, features: int, size: int) -> None:
    """Prints a layer's line."""
    rng = np.random.default_rng(0)
    shapes = [(batch, pixels, pixels, n) for n in (channels, features)]
    arrays = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    arrays.append(jnp.asarray(rng.standard_normal((size, size, channels, features)), jnp.float32))
    options = compiler_options_for_step(convolutions=True)
    ways = functions(size, ((size // 2, size // 2),) * 2)
    line = f"{batch} x {pixels:2} x {pixels:2}, {channels:3} to {features:3}, {size}x{size}"
    for number, name in enumerate(PASSES):
        compiled = {way: jax.jit(ways[way][number], compiler_options=options) for way in ways}
        results = {way: np.asarray(compiled[way](*arrays)) for way in ways}
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(5):
            for way, function in compiled.items():
                started = time.process_time()
                jax.block_until_ready(function(*arrays))
                taken[way].append(time.process_time() - started)
        xla, ours = (1e3 * statistics.median(taken[way]) for way in ways)
        error = abs(results["ours"] - results["XLA"]).max() / abs(results["XLA"]).max()
        line += f"   {name} {xla:4.0f} -> {ours:4.0f} ms ({ours / xla:.2f}; {error:.0e})"
    print(line, flush=True)


if __name__ == "__main__":
    set_up_jax()
    asked = [tuple(int(n) for n in layer.split(",")) for layer in sys.argv[1:]]
    for layer in asked or LAYERS:
        measure(*layer)
