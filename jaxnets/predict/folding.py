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

from jaxnets.models.alexnet_layers import AdaptiveAveragePool, Enlarge, LocalResponseNorm, Normalize
from jaxnets.models.batch_norm import fold
from jaxnets.models.chain import apply_layer, has_layer
from jaxnets.models.layers import MaxPool, flatten
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.crops import window_size

FUNCTIONS = {flatten: "flatten", nn.relu: "relu", nn.sigmoid: "sigmoid", nn.softmax: "softmax"}


class PlainNetwork(NamedTuple):
    """A network as a program without Flax can run it."""

    image_shape: tuple[int, int, int]  # (H, W, C) of the pictures.
    # One row a layer: its kind, its numbers, and `shape`, its output's for one picture.
    layers: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]  # By name, as "conv1.kernel"; float32.


def folded(trained: TrainedNetwork) -> TrainedNetwork:
    """The same network with each batch norm in the layer beside it."""
    if not has_layer(trained.model, nn.BatchNorm):
        return trained
    model, params = fold(trained.model, trained.params)
    return dataclasses.replace(trained, model=model, params=params)


def plain(trained: TrainedNetwork) -> PlainNetwork:
    """The layers and arrays of a run's network, without what only trains: dropout, batch norm."""
    trained = folded(trained)
    layers: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    height, width = window_size(trained.image_shape, trained.config.input_size)
    shape = (height, width, trained.image_shape[2])
    if shape != trained.image_shape:
        layers.append({"kind": "center_crop", "shape": list(shape)})
    for layer in trained.model.layers:
        if (row := describe(layer))["kind"] == "dropout":
            continue
        name = getattr(layer, "name", None)
        params = trained.params.get(name, {})
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        shape = jax.eval_shape(functools.partial(apply_layer, layer), params, x).shape[1:]
        if params:
            row["name"] = name
            found = {name: np.asarray(leaf, np.float32) for name, leaf in params.items()}
            if row["kind"] == "dense_with_ones":  # Its last row is what others call a bias.
                row["kind"] = "dense"
                found = {"kernel": found["kernel"][:-1], "bias": found["kernel"][-1]}
            for part, leaf in found.items():
                arrays[f"{name}.{part}"] = np.ascontiguousarray(leaf)
        layers.append({**row, "shape": list(shape)})
    return PlainNetwork(trained.image_shape, layers, arrays)


def describe(layer: Any) -> dict[str, Any]:
    """A layer's kind and numbers."""
    match layer:
        case nn.Conv():
            padding = 0 if layer.padding == "VALID" else layer.padding  # Or pixels on each side.
            stride, groups = int(np.max(layer.strides or 1)), layer.feature_group_count
            sizes = {"window": layer.kernel_size, "stride": stride, "padding": padding}
            return {"kind": "conv", **sizes, "groups": groups}
        case DenseWithOnes():
            return {"kind": "dense_with_ones"}
        case nn.Dense():
            return {"kind": "dense"}
        case nn.Dropout():
            return {"kind": "dropout", "rate": layer.rate}
        case MaxPool():
            return {"kind": "max_pool", "window": layer.window, "stride": layer.stride}
        case AdaptiveAveragePool():
            return {"kind": "adaptive_average_pool", "size": layer.size}
        case LocalResponseNorm():
            sizes = {"k": layer.k, "n": layer.n, "alpha": layer.alpha, "beta": layer.beta}
            return {"kind": "local_response_norm", **sizes}
        case Enlarge():
            return {"kind": "enlarge", "size": layer.size}
        case Normalize():
            return {"kind": "normalize", "mean": list(layer.mean), "std": list(layer.std)}
    return {"kind": FUNCTIONS[layer]}
