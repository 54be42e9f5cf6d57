"""Back-propagation through a whole network: its chain of layers forward, then backward.

The network is stated once, in models/. Here every layer of it finds its pair (`rules.py`), and the
chain rule is the loop in `manual_loss_and_grad`. Nothing here differentiates.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.backprop.nonzero_columns import with_nonzero_columns
from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.rules import RULES, rule_of
from jaxnets.data.batches import Batch
from jaxnets.losses import LOSSES
from jaxnets.metrics import metric_of
from jaxnets.models.chain import Chain, Layer, first_dense
from jaxnets.models.layers import Enlarge, Normalize

Params = dict[str, Any]


class Pair(NamedTuple):
    """A layer's two passes in one signature.

    Attributes:
      forward: (params, x, key) -> (out, cache); key is a dropout layer's.
      backward: (cache, d_out, input_gradient) -> (d_params, dx).
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def pair_of(layer: Layer, widths: Sequence[int] = ()) -> Pair:
    """The hand-derived pair of a layer of a chain.

    Args:
      layer: The layer.
      widths: The numbers of nonzero columns of a dense layer's input, as in
        `with_nonzero_columns`.
    """
    if isinstance(layer, Enlarge | Normalize):
        # It stands before every parameter, so nothing flows back through it.
        return Pair(lambda params, x, key: (layer(x), ()), lambda *_: ({}, None))
    rule = rule_of(layer)
    if rule is None:
        raise ValueError(f"expected a layer with a hand-derived pair, got {layer}")
    if "params" in rule.inputs:
        return _with_params(layer, with_nonzero_columns(rule, widths) if widths else rule)
    static = rule.static(layer)

    def forward(params: None, x: jax.Array, key):
        return rule.forward(*([key] if "key" in rule.inputs else []), x, **static)

    def backward(cache, d_out, input_gradient):
        return {}, rule.backward(cache, d_out, **static)

    return Pair(forward, backward)


def _with_params(layer: Any, rule: LayerRule) -> Pair:
    """The pair of a layer with parameters, which computes in the layer's dtype like Flax' own."""
    static = rule.static(layer)

    def forward(params: Params, x: jax.Array, key):
        cast = {name: value.astype(layer.dtype or value.dtype) for name, value in params.items()}
        return rule.forward(cast, x.astype(layer.dtype or x.dtype), **static)

    def backward(cache, d_out, input_gradient):
        d_out = d_out.astype(layer.dtype or d_out.dtype)
        d_params, dx = rule.backward(cache, d_out, input_gradient=input_gradient, **static)
        return {name: d.astype(layer.param_dtype) for name, d in d_params.items()}, dx

    return Pair(forward, backward)


def manual_loss_and_grad(model: Chain, loss: str, *, widths: Sequence[int] = ()):
    """The loss_and_grad by the derivations in this room.

    Args:
      model: A chain of layers.
      loss: One of losses.LOSSES; its metrics are those of `metric_of`.
      widths: The numbers of nonzero columns of the first dense layer's input, as in
        `with_nonzero_columns`.

    Returns:
      (params, batch, key) -> (Metrics, gradients), both summed over the batch's examples: the
      signature of `training.step.autodiff_loss_and_grad`.
    """
    sparse = first_dense(model) if widths else None
    pairs = [pair_of(layer, widths if layer is sparse else ()) for layer in model.layers]
    names = [str(getattr(layer, "name", None)) for layer in model.layers]
    loss_rule, metric = RULES[LOSSES[loss]], metric_of(LOSSES[loss])

    def loss_and_grad(params: Params, batch: Batch, key: jax.Array):
        batch = jax.tree.map(jnp.asarray, batch)
        keys: Any = model.apply({}, method=Chain.dropout_keys, rngs={"dropout": key})
        first = next(i for i, name in enumerate(names) if name in params)

        # Forward: each layer's output, and what it must remember.
        out, caches = batch.images, []
        for index, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            out, cache = pair.forward(params.get(name), out, keys.get(index))
            caches.append(cache)
        logits = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        losses, loss_cache = loss_rule.forward(logits, batch.labels)
        metrics = metric(logits, batch.labels, losses, batch.mask)

        # Backward: L = sum of mask * losses, so dL/dlosses is the mask. Before the first layer
        # with parameters nobody needs a gradient.
        d_out = loss_rule.backward(loss_cache, batch.mask.astype(losses.dtype)).astype(out.dtype)
        gradients = {}
        for index in range(len(pairs) - 1, first - 1, -1):
            d_params, d_out = pairs[index].backward(caches[index], d_out, index > first)
            if d_params:
                gradients[names[index]] = d_params
        return metrics, gradients

    return loss_and_grad
