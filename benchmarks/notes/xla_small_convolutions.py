"""For XLA's tracker: a CPU's convolutions of few channels, and PyTorch's (which are oneDNN's).

    pip install jax torch && python xla_small_convolutions.py

A 3x3 convolution of a ResNet-20 at batch 128 in float32, NHWC: the output, and the gradients of
images (dX) and filters (dW). It prints GFLOP a second of a core: the products as they are defined,
by the CPU time of the process, median of seven. With few channels XLA's dW runs at a third of its
own forward pass. The last columns have XLA with its flag for oneDNN, and PyTorch.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHAPES = ((32, 16), (16, 32), (8, 64))  # Pixels of a side, channels.
BATCH, ROUNDS, CALLS = 128, 7, 3
ONEDNN = {"xla_cpu_experimental_onednn_custom_call": True}


def passes(x, w, dz):
    """The three functions, without arguments that would be constants."""

    def convolve(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return {
        "forward": (convolve, (x, w)),
        "dX": (lambda dz, w: jax.linear_transpose(lambda x: convolve(x, w), x)(dz)[0], (dz, w)),
        "dW": (lambda x, dz: jax.linear_transpose(lambda w: convolve(x, w), w)(dz)[0], (x, dz)),
    }


def seconds(call) -> float:
    """The median CPU time of a call."""
    call()
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            call()
        found.append((time.process_time() - started) / CALLS)
    return statistics.median(found)


def by_torch(x, w, dz):
    """The three calls of PyTorch, in its faster layout."""
    import torch

    def images(array):
        whole = torch.from_numpy(np.array(array)).permute(0, 3, 1, 2)
        return whole.contiguous(memory_format=torch.channels_last)

    x, dz = images(x), images(dz)
    w = torch.from_numpy(np.array(w)).permute(3, 2, 0, 1)
    w = w.contiguous(memory_format=torch.channels_last)

    def backward(*wanted):
        settings = (None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (*wanted, False))
        return lambda: torch.ops.aten.convolution_backward(dz, x, w, *settings)

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, padding=1),
        "dX": backward(True, False),
        "dW": backward(False, True),
    }


def main() -> None:
    """Prints a line for each pass of each shape."""
    print("jax", jax.__version__)
    print(f"{'':24}{'XLA':>8}{'oneDNN':>8}{'PyTorch':>8}")
    for side, channels in SHAPES:
        rng = np.random.default_rng(0)
        x, dz = (
            jnp.asarray(rng.standard_normal((BATCH, side, side, channels)), jnp.float32)
            for _ in range(2)
        )
        w = jnp.asarray(rng.standard_normal((3, 3, channels, channels)), jnp.float32)
        flop = 2 * BATCH * side**2 * 9 * channels**2
        peer = by_torch(x, w, dz)
        for name, (function, arrays) in passes(x, w, dz).items():
            line = f"{side} x {side}, {channels:2} channels, {name:8}"
            for options in (None, ONEDNN):
                compiled = jax.jit(function, compiler_options=options)
                taken = seconds(lambda f=compiled, a=arrays: jax.block_until_ready(f(*a)))
                line += f"{flop / taken / 1e9:8.0f}"
            print(line + f"{flop / seconds(peer[name]) / 1e9:8.0f}", flush=True)


if __name__ == "__main__":
    main()
