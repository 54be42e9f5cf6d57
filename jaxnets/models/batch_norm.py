"""Batch normalization (Ioffe and Szegedy 2015).

Training normalizes each channel over the batch, an evaluation with running statistics. These are
among the parameters, `mean` and `var` next to `scale` and `bias`, because they are trained as
parameters are. A running mean μ follows the mean m of each batch:

    μ ← 0.9 μ + 0.1 m = μ - 0.1 (μ - m)

That is gradient descent at the rate 0.1, whose gradient is μ - m: the derivative of (μ - m)² / 2.
The layer returns this gradient, summed over the examples like every other one. So whatever handles
parameters handles the statistics: sums over devices, checkpoints, resumed runs, exports. Flax keeps
them in a separate collection, and then every function must pass on two trees instead of one.
`training/optimizer.py` takes their step.

In the shapes: B examples, C channels.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnets.base.errors import UserError
from jaxnets.base.trees import LayerParams, Params
from jaxnets.models.chain import Chain, Layer, chains_of, has_layer, map_layers
from jaxnets.models.layers import flatten

LINEAR = nn.Conv, nn.Dense
STATISTICS = ("mean", "var")  # The parameters that no loss depends on while it trains.

# Of the fields of Flax's layer: all but epsilon are set by what walks through a network.
SETTABLE = ("epsilon", "axis_name", "dtype", "param_dtype", "parent", "name")

Numbers = Float[Array, "B *sizes C"]
Mask = Float[Array, " B"]
Channels = Float[Array | np.ndarray, " C"]


class BatchNorm(nn.BatchNorm):
    """y = scale (x - mean) / sqrt(var + epsilon) + bias, channel by channel.

    This is Flax's layer, except that its statistics are parameters, and that a mean over several
    devices counts each example once, however much padding there is.
    """

    # (params, x, mask, *, epsilon, axis_name) -> y of training; None: `over_batch`.
    training_pass: Callable[..., jax.Array] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(nn.BatchNorm):
            if field.name not in SETTABLE and getattr(self, field.name) != field.default:
                raise UserError(
                    "BatchNorm: expected no {}; epsilon is its only setting", field.name
                )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Numbers, use_running_average: bool | None = True, *, mask: Mask | None = None
    ) -> Numbers:
        """Normalizes with the running statistics, or with those of the batch's rows with mask 1."""
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        first = {"scale": ones, "bias": zeros, "mean": zeros, "var": ones}
        params = {
            name: self.param(name, init, x.shape[-1:], self.param_dtype)
            for name, init in first.items()
        }
        if use_running_average:
            return normalized(params, x, params["mean"], params["var"], self.epsilon)
        mask = jnp.ones(len(x), self.param_dtype) if mask is None else mask
        forward = self.training_pass or over_batch
        return forward(params, x, mask, epsilon=self.epsilon, axis_name=self.axis_name)


def normalized(
    params: LayerParams, x: Numbers, mean: Channels, var: Channels, epsilon: float
) -> Numbers:
    """Returns scale (x - mean) / sqrt(var + epsilon) + bias, computed in float32 at least."""
    y = (widened(x, params["scale"].dtype) - mean) * (
        params["scale"] * lax.rsqrt(var + epsilon)
    ) + params["bias"]
    return _rounded(y, x.dtype).astype(x.dtype)


def widened(x: Numbers, dtype: DTypeLike) -> Numbers:
    """Returns x in a dtype with more digits, without those that x lost."""
    return _rounded(x.astype(dtype), x.dtype)


def _rounded(x: Numbers, dtype: DTypeLike) -> Numbers:
    """Returns x with a dtype's digits: XLA may keep more, and not the same in each program."""
    if x.dtype == dtype:
        return x
    digits = jnp.finfo(dtype)
    return lax.reduce_precision(x, digits.nexp, digits.nmant)


def over_batch(
    params: LayerParams, x: Numbers, mask: Mask, *, epsilon: float, axis_name: str | None
) -> Numbers:
    """The training pass in plain form, for autodiff; `backprop/batch_norm.py` derives its pair."""
    wide = widened(x, params["scale"].dtype)
    weight = mask.astype(wide.dtype).reshape(-1, *[1] * (x.ndim - 1))

    def mean_of(values: jax.Array) -> jax.Array:
        sums = [
            jnp.broadcast_to(v, x.shape).sum(tuple(range(x.ndim - 1))) for v in (values, weight)
        ]
        total, count = sums if axis_name is None else lax.psum(sums, axis_name)
        return total / jnp.maximum(count, 1)

    mean = mean_of(weight * wide)
    var = mean_of(weight * (wide - mean) ** 2)
    batch, y = {"mean": mean, "var": var}, normalized(params, x, mean, var, epsilon)
    return follow(y, {name: params[name] for name in batch}, batch, mask.sum())


Followed = tuple[LayerParams, LayerParams, jax.Array]


@jax.custom_vjp
def follow(y: Numbers, running: LayerParams, batch: LayerParams, count: jax.Array) -> Numbers:
    """Returns y; autodiff takes count (running - batch) for the gradient of the statistics."""
    return y


def _follow_forward(
    y: Numbers, running: LayerParams, batch: LayerParams, count: jax.Array
) -> tuple[Numbers, Followed]:
    return y, (running, batch, count)


def _follow_backward(
    cache: Followed, dy: Numbers
) -> tuple[Numbers, LayerParams, LayerParams | None, jax.Array | None]:
    running, batch, count = cache
    return (
        dy,
        jax.tree.map(lambda r, b: count.astype(r.dtype) * (r - b), running, batch),
        None,
        None,
    )


follow.defvjp(_follow_forward, _follow_backward)


def statistics_of(model: Chain) -> tuple[str, ...]:
    """The names of a network's parameters that are running statistics; none without batch norm."""
    return STATISTICS if has_layer(model, nn.BatchNorm) else ()


def over_devices(model: Chain, axis_name: str | None) -> Chain:
    """Returns the network whose batch norms add their sums over a mapped axis, if one is given."""

    def convert(layer: Layer) -> Layer:
        return layer.clone(axis_name=axis_name) if isinstance(layer, nn.BatchNorm) else layer

    return map_layers(model, convert)


def fold(model: Chain, params: Params) -> tuple[Chain, Params]:
    """Returns a chain that evaluates the same, with batch norms merged into layers, and parameters.

    With running statistics a batch norm is an affine map of each channel: s x + t with
    s = scale / sqrt(var + epsilon) and t = bias - s mean. After a layer W x + b, and before one
    without padding, it is one more factor of that layer, up to rounding:

        after:   W' = s W,   b' = s b + t
        before:  W' = W s,   b' = b + W t      t is the same at every place, and so sums over them

    A batch norm between other layers stays. If all of them stay, the network is returned unchanged.
    """
    given: list[Any] = list(model.layers)
    layers: list[Any] = []
    folded: dict[Any, Any] = dict(params)
    waiting = None
    for index, layer in enumerate(given):
        if isinstance(layer, nn.BatchNorm):
            before = layers[-1] if layers else None
            behind = next(filter(_mixes_channels, given[index + 1 :]), None)
            if type(before) in LINEAR or _takes_before(behind):
                norm = folded.pop(layer.name)
                s = norm["scale"] / (norm["var"] + layer.epsilon) ** 0.5
                t = norm["bias"] - s * norm["mean"]
                if before is None or type(before) not in LINEAR:
                    waiting = s[:, None], t[:, None]
                    continue
                linear = folded[before.name]
                bias = s * linear.get("bias", 0) + t
                folded[before.name] = {"kernel": s * linear["kernel"], "bias": bias}
                layers[-1] = before.clone(use_bias=True)
                continue
        elif waiting is not None and _mixes_channels(layer):
            (s, t), waiting, linear = waiting, None, folded[layer.name]
            shape = linear["kernel"].shape
            # A dense layer sees the channels of every place: [places, C, K], like a window's.
            kernel = linear["kernel"].reshape(-1, len(s), shape[-1])
            bias = linear.get("bias", 0) + (t * kernel).sum((0, 1))
            folded[layer.name] = {"kernel": (s * kernel).reshape(shape), "bias": bias}
            layer = layer.clone(use_bias=True)
        for name, inner in chains_of(layer).items():
            own = folded.get(layer.name, {})
            chain, arrays = fold(inner, own.get(name, {}))
            if chain is not inner:
                folded[layer.name] = {**own, name: arrays}
                change: Any = {name: chain}
                layer = layer.clone(**change)
        layers.append(layer)
    same = len(layers) == len(given) and all(map(operator.is_, layers, given))
    return (model, params) if same else (Chain(layers), folded)


def _mixes_channels(layer: Layer) -> bool:
    """Whether an affine map of each channel cannot simply move past this layer."""
    return layer is not flatten and not isinstance(layer, nn.Dropout)


def _takes_before(layer: Layer | None) -> bool:
    """Whether a batch norm before this layer can be part of it: it is linear, without padding."""
    if type(layer) is nn.Conv:
        return layer.padding == "VALID" and layer.feature_group_count == 1
    return type(layer) is nn.Dense


def split_statistics(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cuts a tree of parameters, or one like it, into all but the statistics, and the statistics.

    >>> split_statistics({"norm1": {"scale": 1.0, "mean": 0.5}, "logits": {"bias": 2.0}})
    ({'norm1': {'scale': 1.0}, 'logits': {'bias': 2.0}}, {'norm1': {'mean': 0.5}})
    """
    parts: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
    for path, leaf in flatten_dict(tree).items():
        parts[path[-1] in STATISTICS][path] = leaf
    return unflatten_dict(parts[0]), unflatten_dict(parts[1])


def join_statistics(weights: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `split_statistics`."""
    return unflatten_dict(flatten_dict(weights) | flatten_dict(statistics))
