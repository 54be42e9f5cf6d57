"""Back-propagation through a whole network: its chain of layers forward, then backward.

The network is stated once, in models/. Here every layer of it finds its pair (`rule.py`), and the
chain rule is the loop in `manual_loss_and_grad`. Nothing here differentiates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.data.batches import Batch
from jaxnets.losses import LOSSES
from jaxnets.metrics import Sums, metric_of
from jaxnets.models.alexnet_layers import Enlarge, Normalize
from jaxnets.models.chain import Chain, Layer
from jaxnets.trees import LayerParams, Params, Tree


class Pair(NamedTuple):
    """A layer's two passes in one signature."""

    # (params, x, key, mask) -> (out, cache); key is a dropout layer's, mask the batch's.
    forward: Callable[..., Any]
    backward: Callable[..., Any]  # (cache, d_out, input_gradient) -> (d_params, dx)


def pair_of(layer: Layer, find_rule: FindRule = rule_of) -> Pair:
    """The hand-derived pair of a layer of a chain."""
    if isinstance(layer, Enlarge | Normalize):
        # It stands before every parameter, so nothing flows back through it.
        return Pair(lambda params, x, *_: (layer(x), ()), lambda *_: ({}, None))
    rule = find_rule(layer)
    if rule is None:
        raise ValueError(f"expected a layer with a hand-derived pair, got {layer}")
    has_params, static = "params" in rule.inputs, rule.static(layer)
    dtype, param_dtype = (getattr(layer, name, None) for name in ("dtype", "param_dtype"))

    def cast(arrays: Tree) -> Tree:  # Flax's layers with parameters compute in their own dtype.
        return jax.tree.map(lambda array: array.astype(dtype or array.dtype), arrays)

    def forward(
        params: LayerParams | None,
        x: jax.Array,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        arrays = {**cast({"params": params or {}, "x": x}), "key": key, "mask": mask}
        return rule.forward(*(arrays[name] for name in rule.inputs), **static)

    def backward(
        cache: object, d_out: jax.Array, input_gradient: bool
    ) -> tuple[LayerParams, jax.Array | None]:
        if not has_params:
            return {}, rule.backward(cache, d_out, **static)
        d_params, dx = rule.backward(cache, cast(d_out), input_gradient=input_gradient, **static)
        return {name: d.astype(param_dtype) for name, d in d_params.items()}, dx

    return Pair(forward, backward)


def manual_loss_and_grad(
    model: Chain, loss: str, find_rule: FindRule = rule_of
) -> Callable[[Params, Batch, jax.Array], tuple[Sums, Params]]:
    """The loss_and_grad by the derivations in `backprop/`.

    Args:
      model: A chain of layers.
      loss: One of losses.LOSSES; its metrics are those of `metric_of`.
      find_rule: Finds a layer's rule, by default its own.

    Returns:
      (params, batch, key) -> (Metrics, gradients), both summed over the batch's examples, which
      is the signature of `training.step.autodiff_loss_and_grad`.
    """
    pairs = [pair_of(layer, find_rule) for layer in model.layers]
    names = [getattr(layer, "name", None) or "" for layer in model.layers]  # "": no parameters
    loss_rule: Any = rule_of(LOSSES[loss])

    def loss_and_grad(params: Params, batch: Batch, key: jax.Array) -> tuple[Sums, Params]:
        batch = jax.tree.map(jnp.asarray, batch)
        keys: Any = model.apply({}, method=Chain.dropout_keys, rngs={"dropout": key})
        first = next(i for i, name in enumerate(names) if name in params)

        # Forward: each layer's output, and what it must remember.
        out, caches = batch.images, []
        for index, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            out, cache = pair.forward(params.get(name), out, keys.get(index), batch.mask)
            caches.append(cache)
        logits = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        losses, loss_cache = loss_rule.forward(logits, batch.labels)
        metrics = metric_of(LOSSES[loss])(logits, batch.labels, losses, batch.mask)

        # Backward: L = sum of mask * losses, so dL/dlosses is the mask. Before the first layer
        # with parameters no gradient is needed.
        d_out = loss_rule.backward(loss_cache, batch.mask.astype(losses.dtype)).astype(out.dtype)
        gradients = {}
        for index in range(len(pairs) - 1, first - 1, -1):
            d_params, d_out = pairs[index].backward(caches[index], d_out, index > first)
            if d_params:
                gradients[names[index]] = d_params
        return metrics, gradients

    return loss_and_grad
