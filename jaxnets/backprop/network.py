"""Back-propagation through a whole network: its chain of layers forward, then backward.

The network is stated once, in models/. Here every layer of it finds its pair in one table, and the
chain rule is the loop in `manual_loss_and_grad`. Nothing here differentiates.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets.backprop import losses as loss_pairs
from jaxnets.backprop.activations import (
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    softmax_backward,
    softmax_forward,
)
from jaxnets.backprop.convolution import conv_backward, conv_forward
from jaxnets.backprop.dense import (
    dense_backward,
    dense_forward,
    dense_with_ones_backward,
    dense_with_ones_forward,
)
from jaxnets.backprop.dropout import dropout_backward, dropout_forward
from jaxnets.backprop.nonzero_columns import with_nonzero_columns
from jaxnets.backprop.normalization import (
    local_response_norm_backward,
    local_response_norm_forward,
)
from jaxnets.backprop.pooling import (
    adaptive_average_pool_backward,
    adaptive_average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from jaxnets.backprop.shape import flatten_backward, flatten_forward
from jaxnets.data.batches import Batch
from jaxnets.losses import LOSSES, probabilities_of
from jaxnets.metrics import metric_of
from jaxnets.models.chain import Chain, Layer, first_dense
from jaxnets.models.layers import (
    AdaptiveAveragePool,
    DenseWithOnes,
    Enlarge,
    LocalResponseNorm,
    MaxPool,
    Normalize,
    flatten,
)

Params = dict[str, Any]


class Pair(NamedTuple):
    """A layer's two passes in one signature.

    Attributes:
      forward: (params, x, key) -> (out, cache); key is a dropout layer's.
      backward: (cache, d_out, input_gradient) -> (d_params, dx).
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def _plain(forward, backward, **static: Any) -> Pair:
    """The pair of a layer without parameters."""
    return Pair(
        lambda params, x, key: forward(x, **static),
        lambda cache, d_out, input_gradient: ({}, backward(cache, d_out, **static)),
    )


def _dense(layer: Any, widths: Sequence[int] = ()) -> Pair:
    forward, backward = DENSE[type(layer)]
    if widths:
        forward, backward = with_nonzero_columns(forward, backward, widths)
    return _with_params(layer, forward, backward)


def _conv(layer: nn.Conv) -> Pair:
    def both(value):
        return (value, value) if value is None or isinstance(value, int) else tuple(value)

    padding = layer.padding
    if not isinstance(padding, str):
        padding = tuple(both(side) for side in both(padding))
    strides = tuple(stride or 1 for stride in both(layer.strides))
    static = {"strides": strides, "padding": padding, "groups": layer.feature_group_count}
    return _with_params(layer, conv_forward, conv_backward, **static)


def _with_params(layer: Any, forward, backward, **static: Any) -> Pair:
    """The pair of a layer with parameters, which computes in the layer's dtype like Flax' own."""

    def layer_forward(params: Params, x: jax.Array, key):
        cast = {name: value.astype(layer.dtype or value.dtype) for name, value in params.items()}
        return forward(cast, x.astype(layer.dtype or x.dtype), **static)

    def layer_backward(cache, d_out, input_gradient):
        d_out = d_out.astype(layer.dtype or d_out.dtype)
        d_params, dx = backward(cache, d_out, input_gradient=input_gradient, **static)
        return {name: d.astype(layer.param_dtype) for name, d in d_params.items()}, dx

    return Pair(layer_forward, layer_backward)


def _dropout(layer: nn.Dropout) -> Pair:
    return Pair(
        lambda params, x, key: dropout_forward(key, x, rate=layer.rate),
        lambda cache, d_out, input_gradient: ({}, dropout_backward(cache, d_out, rate=layer.rate)),
    )


def _max_pool(layer: MaxPool) -> Pair:
    return _plain(max_pool_forward, max_pool_backward, **layer.sizes, padding="VALID")


def _local_response_norm(layer: LocalResponseNorm) -> Pair:
    static = dataclasses.asdict(layer)
    return _plain(local_response_norm_forward, local_response_norm_backward, **static)


def _adaptive_average_pool(layer: AdaptiveAveragePool) -> Pair:
    static = {"output_size": (layer.size, layer.size)}
    return _plain(adaptive_average_pool_forward, adaptive_average_pool_backward, **static)


def _input_layer(layer: Enlarge | Normalize) -> Pair:
    # It stands before every parameter, so nothing flows back through it.
    return Pair(lambda params, x, key: (layer(x), ()), lambda *_: ({}, None))


FUNCTIONS: dict[Layer, Pair] = {
    nn.relu: _plain(relu_forward, relu_backward),
    nn.sigmoid: _plain(sigmoid_forward, sigmoid_backward),
    nn.softmax: _plain(softmax_forward, softmax_backward),
    flatten: _plain(flatten_forward, flatten_backward),
}
DENSE: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {
    nn.Dense: (dense_forward, dense_backward),
    DenseWithOnes: (dense_with_ones_forward, dense_with_ones_backward),
}
TYPES: dict[type, Callable[..., Pair]] = {
    nn.Dense: _dense,
    DenseWithOnes: _dense,
    nn.Conv: _conv,
    nn.Dropout: _dropout,
    MaxPool: _max_pool,
    LocalResponseNorm: _local_response_norm,
    AdaptiveAveragePool: _adaptive_average_pool,
    Enlarge: _input_layer,
    Normalize: _input_layer,
}


def pair_of(layer: Layer) -> Pair:
    """The hand-derived pair of a layer of a chain."""
    return FUNCTIONS[layer] if layer in FUNCTIONS else TYPES[type(layer)](layer)


def _squared_error(forward, backward) -> Pair:
    """A squared error through the softmax: two links of the chain rule."""

    def from_logits(logits: jax.Array, labels: jax.Array):
        probabilities, softmax_cache = softmax_forward(logits)
        y = probabilities_of(labels, logits.shape[1], logits.dtype)
        losses, cache = forward(probabilities, y)
        return losses, (cache, softmax_cache)

    def to_logits(caches, d_losses: jax.Array):
        cache, softmax_cache = caches
        return softmax_backward(softmax_cache, backward(cache, d_losses))

    return Pair(from_logits, to_logits)


# forward(logits, labels) -> (losses, cache), backward(cache, d_losses) -> d_logits
LOSS_PAIRS: dict[str, Pair] = {
    "cross_entropy": Pair(
        loss_pairs.softmax_cross_entropy_forward, loss_pairs.softmax_cross_entropy_backward
    ),
    "mse": _squared_error(
        loss_pairs.mean_squared_error_forward, loss_pairs.mean_squared_error_backward
    ),
    "half_mse": _squared_error(
        loss_pairs.half_squared_error_forward, loss_pairs.half_squared_error_backward
    ),
    # Of regression: the outputs are the predictions, there is no softmax between.
    "squared_error": Pair(
        loss_pairs.mean_squared_error_forward, loss_pairs.mean_squared_error_backward
    ),
}


def manual_loss_and_grad(model: Chain, loss: str, *, widths: Sequence[int] = ()):
    """The way to the gradient by the derivations in this room.

    Args:
      model: A chain of layers.
      loss: One of losses.LOSSES; its metrics are those of `metric_of`.
      widths: Of the first dense layer's input, as in `with_nonzero_columns`.

    Returns:
      (params, batch, key) -> (Metrics, gradients), both summed over the batch's examples: the
      signature of `training.step.autodiff_loss_and_grad`.
    """
    lit = first_dense(model) if widths else None
    pairs = [_dense(layer, widths) if layer is lit else pair_of(layer) for layer in model.layers]
    names = [str(getattr(layer, "name", None)) for layer in model.layers]
    (loss_forward, loss_backward), metric = LOSS_PAIRS[loss], metric_of(LOSSES[loss])

    def loss_and_grad(params: Params, batch: Batch, key: jax.Array):
        keys: Any = model.apply({}, method=Chain.dropout_keys, rngs={"dropout": key})
        first = next(i for i, name in enumerate(names) if name in params)

        # Forward: each layer's output, and what it must remember.
        out, caches = jnp.asarray(batch.images), []
        for index, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            out, cache = pair.forward(params.get(name), out, keys.get(index))
            caches.append(cache)
        logits = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        losses, loss_cache = loss_forward(logits, batch.labels)
        metrics = metric(logits, batch.labels, losses, batch.mask)

        # Backward: L = sum of mask * losses, so dL/dlosses is the mask. Before the first layer
        # with parameters nobody needs a gradient.
        d_out = loss_backward(loss_cache, batch.mask.astype(losses.dtype)).astype(out.dtype)
        gradients = {}
        for index in range(len(pairs) - 1, first - 1, -1):
            d_params, d_out = pairs[index].backward(caches[index], d_out, index > first)
            if d_params:
                gradients[names[index]] = d_params
        return metrics, gradients

    return loss_and_grad
