"""Faster forms of layers in `backprop` on a CPU; `accelerate` applies them."""

from jaxnets.kernels import by_rule, conv_pool, convolution, elementwise, pools, wide_dense
from jaxnets.models.chain import Chain, map_chains

# In the order in which they look at a chain.
KERNELS = (
    conv_pool.KERNEL,
    convolution.KERNEL,
    wide_dense.KERNEL,
    pools.OVERLAPPING_MAX_POOL_KERNEL,
    pools.MAX_POOL_KERNEL,
    elementwise.RELU_KERNEL,
    elementwise.RESPONSE_NORM_KERNEL,
)


def accelerate(model: Chain, platform: str, *, sharded: bool = False) -> Chain:
    """The same network with its layers replaced by kernels where they are faster.

    Parameters, values and gradients are the same up to rounding. Elsewhere jax.grad takes a layer's
    gradient from its pair (`by_rule.paired`). The chain is only for training: call `model` itself
    for an evaluation.

    Args:
      model: A chain of layers.
      platform: "cpu", "gpu" or "tpu": that of the devices, which need not be on this machine.
      sharded: Whether XLA splits the batch over devices by itself, as jit does on several.
    """
    here = [kernel for kernel in KERNELS if kernel.everywhere or platform == "cpu"]
    kernels = [kernel for kernel in here if kernel.sharded or not sharded]

    def faster(chain: Chain) -> Chain:
        found = list(chain.layers)
        for kernel in kernels:
            for start in range(len(found) - kernel.run + 1):
                run = slice(start, start + kernel.run)
                found[run] = kernel.replace(*found[run]) or found[run]
        return Chain(list(map(by_rule.paired, found)))

    return map_chains(model, faster)
