"""A convolution of AlexNet, forward and its two gradients: XLA against Winograd's algorithm.

    python benchmarks/winograd.py                     `alexnet`'s and `alexnet_small`'s layers
    python benchmarks/winograd.py 128,13,384,256,3    one: batch, pixels, channels, features, window
    python benchmarks/winograd.py --pool              a convolution of 3x3 and its pool of 2x2
    python benchmarks/winograd.py --rounding          how far the two are apart

It prints the CPU time of each, median of five in turn, and the error relative to the largest
number. Layers with fewer channels than convolution.py's FEWEST_CHANNELS gain nothing; the last row
is such a layer.

A convolution and its pool are timed forward and back in two forms: one after the other, where the
convolution computes what the pool reaches, and in tiles of a pool's window (kernels/conv_pool.py).

The rounding is the largest of all draws, in units in the last place of the largest number. Images
are normal, rectified, uniform or mostly black with few bright pixels, and kernels normal, smooth,
with a mean, or without one.
"""

import itertools
import statistics
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop.windows import Pads
from jaxnets.kernels import conv_pool, winograd
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
# (batch, pixels, channels, features)
POOLED_LAYERS = (
    (128, 24, 16, 32),
    (512, 31, 24, 64),
    (256, 32, 32, 32),
    (512, 15, 32, 64),
    (256, 16, 64, 64),
    (512, 15, 64, 256),
    (512, 7, 128, 256),
    (512, 7, 256, 256),
)
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


def conv_pool_passes(are_apart: bool):
    """Both passes of a convolution and its pool, in one of the two forms."""

    def passes(x, kernel, dy):
        with mock.patch.object(conv_pool, "_are_apart", lambda kernel: are_apart):
            y, cache = conv_pool.conv_pool_forward({"kernel": kernel}, x, padding="SAME")
            return y, conv_pool.conv_pool_backward(cache, dy, padding="SAME")

    options = compiler_options_for_step(True, "cpu")
    return jax.jit(passes, compiler_options=options)


def measure_pooled(batch: int, pixels: int, channels: int, features: int) -> None:
    """Prints the line of a convolution and its pool."""
    rng = np.random.default_rng(0)
    shapes = (
        (batch, pixels, pixels, channels),
        (3, 3, channels, features),
        (batch, pixels // 2, pixels // 2, features),
    )
    arrays = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    apart, tiles = cpu_times([conv_pool_passes(True), conv_pool_passes(False)], arrays)
    line = f"{batch} x {pixels:2} x {pixels:2}, {channels:3} to {features:3}"
    times = f"{1e3 * apart:4.0f} -> {1e3 * tiles:4.0f} ms ({tiles / apart:.2f})"
    print(f"{line}   apart -> in tiles {times}", flush=True)


def cpu_times(functions, arrays, rounds: int = 5) -> list[float]:
    """The median CPU seconds of some calls of each compiled function, in turn."""
    for function in functions:
        jax.block_until_ready(function(*arrays))
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for times, function in zip(taken, functions, strict=True):
            started = time.process_time()
            jax.block_until_ready(function(*arrays))
            times.append(time.process_time() - started)
    return list(map(statistics.median, taken))


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
        xla, ours = (1e3 * seconds for seconds in cpu_times(compiled.values(), arrays))
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
    if sys.argv[1:] == ["--pool"]:
        for layer in POOLED_LAYERS:
            measure_pooled(*layer)
        sys.exit()
    if sys.argv[1:] == ["--rounding"]:
        for layer in ROUNDING_LAYERS:
            rounding(*layer)
        sys.exit()
    asked = [tuple(int(n) for n in layer.split(",")) for layer in sys.argv[1:]]
    for layer in asked or LAYERS:
        measure(*layer)
