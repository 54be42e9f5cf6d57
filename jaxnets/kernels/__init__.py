"""Faster forms of layers in `backprop`, each for some platforms; `accelerate` applies them."""

from jaxnets.kernels import conv_pool, convolution, layers
from jaxnets.models.chain import Chain, map_chains

# In the order in which they look at a chain.
KERNELS = (
    conv_pool.KERNEL,
    convolution.KERNEL,
    layers.DENSE_KERNEL,
    layers.POOL_KERNEL,
)


def accelerate(model: Chain, platform: str, *, sharded: bool = False) -> Chain:
    """The same network with its layers replaced by kernels that are faster on this platform.

    Parameters, values and gradients are the same up to rounding. Where no kernel fits, jax.grad
    takes a layer's gradient from its pair (`layers.paired`). The chain is only for training: call
    `model` itself for an evaluation.

    Args:
      model: A chain of layers.
      platform: "cpu", "gpu" or "tpu": that of the devices, which need not be on this machine.
      sharded: Whether XLA splits the batch over devices by itself, as jit does on several.
    """
    kernels = [kernel for kernel in KERNELS if kernel.fits(platform, sharded)]

    def faster(chain: Chain) -> Chain:
        found = list(chain.layers)
        for kernel in kernels:
            for start in range(len(found) - kernel.run + 1):
                run = slice(start, start + kernel.run)
                found[run] = kernel.replace(*found[run]) or found[run]
        return Chain(list(map(layers.paired, found)))

    return map_chains(model, faster)
