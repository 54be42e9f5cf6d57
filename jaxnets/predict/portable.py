"""A trained network as plain data: its layers in order, and its arrays by name.

    images [B, H, W, C] float32 from 0 to 1  ->  logits [B, K] float32

The names and the layout of the arrays are Flax's: a kernel is [height, width, in, out] or
[in, out].
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxnets.backprop.rule import Arrays, LayerRow, LayerRule
from jaxnets.backprop.rules import branches_of, rule_of
from jaxnets.base.errors import UserError
from jaxnets.base.language import Text
from jaxnets.models.batch_norm import fold
from jaxnets.models.chain import Chain, Layer, apply_layer, layer_name
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.crops import window_size

LayerRows = list[LayerRow]
Shape = tuple[int, ...]  # Of one picture or row of numbers: (H, W, C) or (D,).

ALL = Text("safetensors, onnx and the page")


class PortableNetwork(NamedTuple):
    """A network that a program without Flax can run."""

    image_shape: Shape  # (H, W, C) of the pictures, or (D,) of the rows.
    # One row for each layer, in the format of `networks/rows.py`: its kind, its name, the fields
    # that its rule names, and `shape`, that of its output for one picture. A layer of chains has
    # the rows of each branch, a residual layer those of its `chain` and of its `shortcut`; an
    # identity has none.
    layers: LayerRows
    arrays: Arrays  # By path, such as "conv1.kernel"; float32.


def folded(trained: TrainedNetwork) -> TrainedNetwork:
    """The same network with each batch norm merged into the layer next to it, where possible."""
    model, params = fold(trained.model, trained.params)
    return dataclasses.replace(trained, model=model, params=params)


def portable_network(trained: TrainedNetwork, as_taught: bool = False) -> PortableNetwork:
    """The layers and arrays of a run's network.

    Args:
      trained: The network.
      as_taught: Keeps layers that other programs omit or write in another form: dropout, which does
        nothing, and a bias as a column of ones.

    Raises:
      UserError: The network has a layer that no row describes, such as one of the user's own.
    """
    trained, shape = folded(trained), trained.image_shape
    if trained.config.input_size is not None:
        shape = (*window_size(shape, trained.config.input_size), shape[2])
    rows, arrays = _rows(trained.model, trained.params, shape, as_taught)
    if shape != trained.image_shape:
        rows.insert(0, {"kind": "center_crop", "shape": list(shape)})
    return PortableNetwork(trained.image_shape, rows, arrays)


def _rows(
    chain: Chain, params: Any, shape: Shape, as_taught: bool, path: str = ""
) -> tuple[LayerRows, Arrays]:
    """The rows and the arrays of a chain; the path is that of the layer that holds it."""
    rows: LayerRows = []
    arrays: Arrays = {}
    for layer in chain.layers:
        row, rule = describe(layer, shape), _rule_of(layer)
        name = getattr(layer, "name", None)
        own: Any = params.get(name, {})
        if name:
            row["name"] = f"{path}{name}"
        found: Any = {part: np.full(shape[-1], number) for part, number in rule.fills.items()}
        if rule.fills:
            row["fixed"] = sorted(found.keys() - own.keys())
        branches = branches_of(layer)
        for part, inner in branches.items():
            where = f"{row['name']}.{part}."
            row[part], more = _rows(inner, own.get(part, {}), shape, as_taught, where)
            arrays |= more
        alone = {part: leaf for part, leaf in own.items() if part not in branches}
        found |= flatten_dict(alone, sep=".")
        if rule.exported and not as_taught:
            if (exported := rule.exported(row, found)) is None:
                continue
            row, found = exported
        for part, leaf in found.items():
            arrays[f"{row['name']}.{part}"] = np.ascontiguousarray(leaf, np.float32)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        shape = jax.eval_shape(functools.partial(apply_layer, layer), own, x).shape[1:]
        rows.append({**row, "shape": list(shape)})
    return rows, arrays


def describe(layer: Layer, shape: Shape) -> LayerRow:
    """A layer's row: its kind, and the fields that its rule names, for an input of this shape.

    Raises:
      UserError: No row describes this layer.
    """
    rule = _rule_of(layer)
    try:
        rule.static(layer)  # Refuses settings that have no derivation.
        return rule.row(layer, shape)
    except ValueError as error:
        raise _not_held(ALL, layer_name(layer), error) from None


def _rule_of(layer: Layer) -> LayerRule:
    """A layer's rule, if it names its rows; a subclass does not inherit its parent's."""
    rule = rule_of(layer)
    if rule is None or not rule.name:
        reason = Text("it has no rule") if rule is None else Text("its rule has no name")
        raise _not_held(ALL, layer_name(layer), reason)
    return rule


def check_kinds(rows: LayerRows, tool: object, takes: Callable[[str], object]) -> None:
    """Raises UserError for a layer that a tool does not support.

    Args:
      rows: The rows of `portable_network`.
      tool: The tool's name in the message.
      takes: Whether the tool has a layer of this kind.
    """
    for row in rows:
        if not takes(row["kind"]):
            name = row.get("name", row["kind"])
            raise _not_held(tool, name, Text("it has no layer {}", row["kind"]))
        for inner in branch_rows(row).values():
            check_kinds(inner, tool, takes)


def branch_rows(row: LayerRow) -> dict[str, LayerRows]:
    """The rows of a layer's branches, by name; a branch without layers may be missing."""
    return {
        part: value
        for part, value in row.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    }


def _not_held(tool: object, name: str, reason: object) -> UserError:
    return UserError(
        "{} cannot hold {}: {}; a StableHLO file can: jaxnets export RUN --format=stablehlo",
        tool,
        name,
        reason,
    )
