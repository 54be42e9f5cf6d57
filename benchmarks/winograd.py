"""A convolution of AlexNet, forward and its two gradients: XLA's beside Winograd's algorithm.

    python benchmarks/winograd.py                     `alexnet`'s and `alexnet_small`'s layers
    python benchmarks/winograd.py 128,13,384,256,3    one: batch, pixels, channels, features, window
    python benchmarks/winograd.py --rounding          how far the two are apart

CPU time of each, median of five in turn, and the error beside the largest number. Layers with fewer
channels than convolution.py's FEWEST_CHANNELS gain nothing; the last row is such a layer.

The rounding is the largest of all draws, in units in the last place of the largest number. Images
are normal, rectified, uniform or mostly black with few bright pixels, and kernels normal, smooth,
with a mean, or without one.
"""

import itertools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop.windows import Pads
from jaxnets.kernels import winograd
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
ROUNDING_LAYERS = (
    (256, 6, 256, 256, 3),
    (32, 8, 96, 256, 5),
    (32, 10, 256, 256, 3),
    (32, 12, 256, 256, 3),
    (128, 12, 256, 128, 3),
    (32, 13, 384, 256, 3),
)
IMAGES = (
    lambda rng, shape: rng.standard_normal(shape),
    lambda rng, shape: np.maximum(rng.standard_normal(shape), 0),
    lambda rng, shape: rng.random(shape),
    lambda rng, shape: np.where(rng.random(shape) < 0.1, np.exp(2 * rng.standard_normal(shape)), 0),
)
KERNELS = (
    lambda kernel: kernel,
    lambda kernel: kernel + 0.5,
    lambda kernel: 0.3 * kernel + kernel.mean((0, 1), keepdims=True),
    lambda kernel: kernel - kernel.mean((0, 1, 2), keepdims=True),
)


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
    options = compiler_options_for_step(True, "cpu")
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


def rounding(batch: int, pixels: int, channels: int, features: int, size: int) -> None:
    """Prints a layer's line of roundings."""
    rng = np.random.default_rng(0)
    ways = functions(size, ((size // 2, size // 2),) * 2)
    options = compiler_options_for_step(True, "cpu")
    compiled = {way: [jax.jit(f, compiler_options=options) for f in ways[way]] for way in ways}
    largest = [0.0] * len(PASSES)
    for image, kernel in itertools.product(IMAGES, KERNELS):
        x = image(rng, (batch, pixels, pixels, channels))
        w = kernel(rng.standard_normal((size, size, channels, features)))
        dz = np.maximum(rng.standard_normal((batch, pixels, pixels, features)), 0)
        arrays = [jnp.asarray(array, jnp.float32) for array in (x, dz, w)]
        for number in range(len(PASSES)):
            xla, ours = (np.asarray(compiled[way][number](*arrays)) for way in ways)
            units = abs(ours - xla).max() / abs(xla).max() / np.finfo(np.float32).eps
            largest[number] = max(largest[number], float(units))
    line = f"{batch} x {pixels:2} x {pixels:2}, {channels:3} to {features:3}, {size}x{size}"
    found = zip(PASSES, largest, strict=True)
    print(line + "".join(f"   {name} {units:3.0f} units" for name, units in found), flush=True)


if __name__ == "__main__":
    set_up_jax()
    if sys.argv[1:] == ["--rounding"]:
        for layer in ROUNDING_LAYERS:
            rounding(*layer)
        sys.exit()
    asked = [tuple(int(n) for n in layer.split(",")) for layer in sys.argv[1:]]
    for layer in asked or LAYERS:
        measure(*layer)
