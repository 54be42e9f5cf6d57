"""A network layer by layer, as Keras users expect it: output shape, parameters, arithmetic."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.display import table
from jaxnets.errors import UserError
from jaxnets.machine.platform import set_up_jax
from jaxnets.models.chain import Chain, apply_layer


class Row(NamedTuple):
    """A layer of the table."""

    layer: str  # Its name, if it has parameters, and what it is.
    shape: tuple[int, ...]  # The output's for one image.
    params: int
    flops: int  # The forward pass of one image: a multiplication and an addition are two.


def summary(model: Chain, image_shape: Sequence[int]) -> list[Row]:
    """Every layer of a network, for an image [H, W, C]; nothing is computed, only shapes."""
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    too_small = UserError(f"images of {tuple(image_shape)} are too small")
    set_up_jax()  # With a limit of memory, JAX started otherwise may abort.
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
    except ZeroDivisionError:
        raise too_small from None
    rows = []
    for layer in model.layers:
        params = variables["params"].get(getattr(layer, "name", None), {})
        x, flops = _forward(layer, params, x)
        if 0 in x.shape:
            raise too_small
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        rows.append(Row(describe_layer(layer, params), tuple(x.shape[1:]), size, flops))
    return rows


def _forward(layer: Any, params: Any, x: jax.ShapeDtypeStruct) -> tuple[Any, int]:
    """A layer's output shape and operations."""
    forward = functools.partial(apply_layer, layer)
    lowered = jax.jit(forward).lower(params, x)
    cost = lowered.cost_analysis() or {}
    return jax.eval_shape(forward, params, x), max(int(cost.get("flops", 0)), 0)


def describe_layer(layer: Any, params: Any) -> str:
    """As "conv1 (Conv 3x3)" or "max_pool 2x2, stride 2"."""
    kind = type(layer).__name__
    if isinstance(layer, nn.Conv):
        kind += f" {'x'.join(map(str, np.atleast_1d(layer.kernel_size)))}"
    if isinstance(layer, nn.Dropout):
        return f"{kind} {layer.rate:g}"
    if params:
        return f"{layer.name} ({kind})"
    if dataclasses.is_dataclass(layer):
        sizes = [str(value) for value in vars(layer).values() if isinstance(value, int)]
        return f"{kind} {', '.join(sizes)}".rstrip()
    return getattr(layer, "__name__", kind)


def to_text(title: str, rows: Sequence[Row], image_shape: Sequence[int]) -> str:
    """The table and its sums."""
    cells = [("layer", "output shape", "parameters", "FLOPs")]
    for row in [Row("image", tuple(image_shape), 0, 0), *rows]:
        shape = " x ".join(map(str, row.shape))
        cells.append((row.layer, shape, f"{row.params:,}", f"{row.flops:,}"))
    head, *lines = table(cells, "<<>>")
    rule = "-" * len(head)
    params, flops = totals(rows)
    sums = [
        f"parameters: {params:,} ({params * 4 / 1e6:.2f} MB in float32)",
        f"forward pass of one image: {flops:,} FLOPs",
    ]
    return "\n".join([title, rule, head, rule, *lines, rule, *sums])


def to_values(title: str, rows: Sequence[Row], image_shape: Sequence[int]) -> dict[str, Any]:
    """The same for machines."""
    params, flops = totals(rows)
    return {
        "model": title,
        "image_shape": list(image_shape),
        "layers": [row._asdict() for row in rows],
        "params": params,
        "flops": flops,
    }


def totals(rows: Sequence[Row]) -> tuple[int, int]:
    """Parameters and operations of the whole network."""
    return sum(row.params for row in rows), sum(row.flops for row in rows)
