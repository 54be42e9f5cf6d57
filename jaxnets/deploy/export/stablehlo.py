"""A run's network as StableHLO, which JAX calls without its Python code and without Flax."""

from typing import Any

import jax
import jax.export
import jax.numpy as jnp

PLATFORMS = ("cpu", "cuda", "tpu")


def to_bytes(forward: Any, params: Any, image_shape: tuple[int, int, int]) -> bytes:
    """The content of the file, which `jax.export.deserialize` reads; the parameters are in it.

    Args:
      forward: (params, images [B, H, W, C] float32) -> logits [B, K].
      params: The network's.
      image_shape: (H, W, C). The batch's size B stays free.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    params = jax.tree.map(jnp.asarray, params)
    network = jax.jit(lambda images: forward(params, images))
    return bytes(jax.export.export(network, platforms=PLATFORMS)(images).serialize())
