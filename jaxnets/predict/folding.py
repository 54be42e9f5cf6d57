"""A trained network as plain data: its layers in order, and its arrays by name.

    images [B, H, W, C] float32 from 0 to 1  ->  logits [B, K] float32

The names and the layout of the arrays are Flax's: a kernel is [height, width, in, out] or
[in, out].
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.rules import rule_of
from jaxnets.backprop.windows import window_pads
from jaxnets.base.errors import UserError
from jaxnets.base.language import Text
from jaxnets.models.alexnet_layers import AdaptiveAveragePool, Enlarge, LocalResponseNorm, Normalize
from jaxnets.models.batch_norm import BatchNorm, fold
from jaxnets.models.chain import Chain, Layer, apply_layer, chains_of, kind_of, layer_name
from jaxnets.models.layers import AveragePool, LeakyReLU, MaxPool, flatten, global_average_pool
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.models.residual import Residual
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.crops import window_size

LayerRows = list[dict[str, Any]]
Shape = tuple[int, ...]  # Of one picture or row of numbers: (H, W, C) or (D,).

BRANCHES = ("chain", "shortcut")  # Of a residual layer.
# Each layer's kind, and its fields in a row.
KINDS: dict[object, tuple[str, ...]] = {
    nn.Conv: ("conv",),
    nn.Dense: ("dense",),
    DenseWithOnes: ("dense_with_ones",),
    nn.Dropout: ("dropout", "rate"),
    BatchNorm: ("batch_norm", "epsilon"),
    nn.LayerNorm: ("layer_norm", "epsilon"),
    Residual: ("residual",),
    MaxPool: ("max_pool", "window", "stride"),
    AveragePool: ("average_pool", "window", "stride"),
    AdaptiveAveragePool: ("adaptive_average_pool", "size"),
    LocalResponseNorm: ("local_response_norm", "k", "n", "alpha", "beta"),
    Enlarge: ("enlarge", "size"),
    Normalize: ("normalize", "mean", "std"),
    LeakyReLU: ("leaky_relu", "slope"),
    flatten: ("flatten",),
    global_average_pool: ("global_average_pool",),
    nn.relu: ("relu",),
    nn.sigmoid: ("sigmoid",),
    nn.softmax: ("softmax",),
    nn.tanh: ("tanh",),
    nn.gelu: ("gelu",),
}


class PlainNetwork(NamedTuple):
    """A network as a program without Flax can run it."""

    image_shape: Shape  # (H, W, C) of the pictures, or (D,) of the rows.
    # One row a layer: its kind, its numbers, and `shape`, its output's for one picture. A residual
    # layer has the rows of its `chain` and of its `shortcut`, of which the identity has none.
    layers: LayerRows
    arrays: dict[str, np.ndarray]  # By path, as "conv1.kernel"; float32.


def folded(trained: TrainedNetwork) -> TrainedNetwork:
    """The same network with each batch norm in the layer beside it, if that can take it."""
    model, params = fold(trained.model, trained.params)
    return dataclasses.replace(trained, model=model, params=params)


def plain(trained: TrainedNetwork, as_taught: bool = False) -> PlainNetwork:
    """The layers and arrays of a run's network.

    Args:
      trained: The network.
      as_taught: Keeps dropout layers, which do nothing, and a bias that is a column of ones.

    Raises:
      UserError: The network has a layer that no row describes, as one of the user's own.
    """
    trained, shape = folded(trained), trained.image_shape
    if trained.config.input_size is not None:
        shape = (*window_size(shape, trained.config.input_size), shape[2])
    rows, arrays = _rows(trained.model, trained.params, shape, as_taught)
    if shape != trained.image_shape:
        rows.insert(0, {"kind": "center_crop", "shape": list(shape)})
    return PlainNetwork(trained.image_shape, rows, arrays)


def _rows(
    chain: Chain, params: Any, shape: Shape, as_taught: bool, path: str = ""
) -> tuple[LayerRows, dict[str, np.ndarray]]:
    """The rows and the arrays of a chain; the path is that of the layer which holds it."""
    rows: LayerRows = []
    arrays: dict[str, np.ndarray] = {}
    for layer in chain.layers:
        row = describe(layer, shape)
        if row["kind"] == "dropout" and not as_taught:
            continue
        name = getattr(layer, "name", None)
        own: Any = params.get(name, {})
        if name:
            row["name"] = f"{path}{name}"
        found = dict(own)
        if row["kind"] == "residual":
            found, branches = {}, chains_of(layer)
            for part in BRANCHES:  # Without a shortcut it is the identity, which has no layers.
                inner, where = branches.get(part, Chain([])), f"{row['name']}.{part}."
                row[part], more = _rows(inner, own.get(part, {}), shape, as_taught, where)
                arrays |= more
        if row["kind"] == "layer_norm":  # Flax' may have neither.
            found = {"scale": np.ones(shape[-1]), "bias": np.zeros(shape[-1]), **own}
            row["fixed"] = sorted(found.keys() - own.keys())
        if row["kind"] == "dense_with_ones" and not as_taught:
            row["kind"] = "dense"  # Its last row is what others call a bias.
            found = {"kernel": found["kernel"][:-1], "bias": found["kernel"][-1]}
        for part, leaf in found.items():
            arrays[f"{row['name']}.{part}"] = np.ascontiguousarray(leaf, np.float32)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        shape = jax.eval_shape(functools.partial(apply_layer, layer), own, x).shape[1:]
        rows.append({**row, "shape": list(shape)})
    return rows, arrays


def describe(layer: Layer, shape: Shape) -> dict[str, Any]:
    """A layer's kind and numbers, for an input of this shape.

    Raises:
      UserError: No row describes this layer.
    """
    if layer is nn.leaky_relu:
        layer = LeakyReLU()
    # A subclass of a layer may compute something else.
    kind, *fields = KINDS.get(kind_of(layer), [""])
    if kind == "dense" and len(shape) > 1:
        raise _not_described(
            layer, Text("it works at each place of a picture, as nn.Conv(K, (1, 1))")
        )
    if not kind:
        raise _not_described(layer, Text("it is no layer of Flax or jaxnets that they know"))
    row = {"kind": kind, **{field: getattr(layer, field) for field in fields}}
    rule = rule_of(layer)
    try:
        static = rule.static(layer) if rule else {}  # It refuses settings that have no rule.
        if isinstance(layer, nn.Conv):
            window = np.ravel(layer.kernel_size).tolist()
            pads = window_pads(shape[:2], window, static["strides"], static["padding"])
            if np.min(pads) < 0:
                raise ValueError("its padding is negative")
            row |= {"window": window, "stride": static["strides"], "padding": pads}
            row["groups"] = static["groups"]
    except ValueError as error:
        raise _not_described(layer, error) from None
    return row


def _not_described(layer: Any, reason: object) -> UserError:
    return UserError(
        "safetensors, onnx and the page cannot hold {}: {}; a StableHLO file can: jaxnets "
        "export RUN --format=stablehlo",
        layer_name(layer),
        reason,
    )
