"""Backpropagation through a whole network: its chain of layers forward, then backward.

The network is stated once, in models/. Here each of its layers gets its pair (`rule.py`), and the
chain rule is the loop in `chain_pair`. Nothing here uses autodiff.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.backprop.rule import FindRule, Pair
from jaxnets.backprop.rules import rule_of
from jaxnets.base.errors import UserError
from jaxnets.base.trees import LayerParams, Params, Tree
from jaxnets.data.batches import Batch
from jaxnets.losses import LOSSES
from jaxnets.metrics import Sums, metric_of
from jaxnets.models.chain import Chain, Layer, layer_name


def pair_of(layer: Layer, find_rule: FindRule = rule_of) -> Pair:
    """The hand-derived pair of a layer of a chain.

    Raises:
      UserError: The layer has no rule.
    """
    rule = find_rule(layer)
    if rule is None:
        raise UserError(
            "gradients: {} has no rule and so no gradient by hand; give it one with "
            "register_rule, or use gradients=auto",
            layer_name(layer),
        )
    takes_params = "params" in rule.inputs
    static = with_pairs(rule.static(layer), find_rule)
    inner = [value for value in static.values() if isinstance(value, Pair)]
    has_params = any(pair.has_params for pair in inner) if inner else takes_params
    # Flax's layers with parameters compute in their own dtype.
    dtype, param_dtype = (
        getattr(layer, name, None) if takes_params else None for name in ("dtype", "param_dtype")
    )

    def cast(arrays: Tree) -> Tree:
        return jax.tree.map(lambda array: array.astype(dtype or array.dtype), arrays)

    def forward(
        params: LayerParams,
        x: jax.Array,
        key: object = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        # A dropout layer takes the key; a layer of chains takes those of its chains, by index.
        arrays = {**cast({"params": params or {}, "x": x}), "key": key, "keys": key, "mask": mask}
        return rule.forward(*(arrays[name] for name in rule.inputs), **static)

    def backward(
        cache: object, d_out: jax.Array, input_gradient: bool
    ) -> tuple[LayerParams, jax.Array | None]:
        if not takes_params:
            return {}, rule.backward(cache, d_out, **static)
        d_params, dx = rule.backward(cache, cast(d_out), input_gradient=input_gradient, **static)
        kept = param_dtype if dtype else None  # Others compute in their parameters' own.
        return jax.tree.map(lambda d: d.astype(kept or d.dtype), d_params), dx

    name = layer_name(layer)  # In profiles and compiled programs.
    named_backward = jax.named_scope(f"backward/{name}")(backward)
    return Pair(jax.named_scope(name)(forward), named_backward, has_params)


def chain_pair(chain: Chain, find_rule: FindRule = rule_of) -> Pair:
    """The pair of a chain: its layers' passes one after the other, and the chain rule backward.

    The parameters and the gradients go by the layers' names, the keys by their indices.
    """
    pairs = [pair_of(layer, find_rule) for layer in chain.layers]
    names = [getattr(layer, "name", None) or "" for layer in chain.layers]
    first = next((i for i, pair in enumerate(pairs) if pair.has_params), len(pairs))

    def forward(
        params: Params, out: jax.Array, keys: Mapping[int, Any], mask: jax.Array | None
    ) -> tuple[jax.Array, list[Any]]:
        caches = []  # What each layer must remember.
        for index, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            out, cache = pair.forward(params.get(name, {}), out, keys.get(index, {}), mask)
            caches.append(cache)
        return out, caches

    def backward(
        caches: Sequence[Any], d_out: jax.Array, input_gradient: bool
    ) -> tuple[Params, jax.Array | None]:
        gradients = {}
        # Before the first layer with parameters only a chain within a block needs gradients.
        end = 0 if input_gradient else first
        for index in range(len(pairs) - 1, end - 1, -1):
            needed = input_gradient or index > first
            d_params, d_out = pairs[index].backward(caches[index], d_out, needed)
            if d_params:
                gradients[names[index]] = d_params
        return gradients, d_out

    return Pair(forward, backward, has_params=first < len(pairs))


def with_pairs(static: Mapping[str, Any], find_rule: FindRule = rule_of) -> dict[str, Any]:
    """A layer's settings, with its chains replaced by their pairs."""
    return {
        name: chain_pair(value, find_rule) if isinstance(value, Chain) else value
        for name, value in static.items()
    }


def manual_loss_and_grad(
    model: Chain, loss: str, find_rule: FindRule = rule_of
) -> Callable[[Params, Batch, jax.Array], tuple[Sums, Params]]:
    """Returns a loss_and_grad that uses the derivations in `backprop/`.

    Args:
      model: A chain of layers.
      loss: One of losses.LOSSES; its metrics are those of `metric_of`.
      find_rule: Finds the rule of a layer and of the loss.

    Returns:
      (params, batch, key) -> (Metrics, gradients), both summed over the batch's examples, which
      is the signature of `training.step.autodiff_loss_and_grad`.
    """
    pair = chain_pair(model, find_rule)
    loss_rule: Any = find_rule(LOSSES[loss])

    def loss_and_grad(params: Params, batch: Batch, key: jax.Array) -> tuple[Sums, Params]:
        batch = jax.tree.map(jnp.asarray, batch)
        keys: Any = model.apply({}, method=Chain.dropout_keys, rngs={"dropout": key})
        out, caches = pair.forward(params, batch.images, keys, batch.mask)
        logits = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        losses, loss_cache = loss_rule.forward(logits, batch.labels)
        metrics = metric_of(LOSSES[loss])(logits, batch.labels, losses, batch.mask)
        # L = sum of mask * losses, so dL/dlosses is the mask.
        d_out = loss_rule.backward(loss_cache, batch.mask.astype(losses.dtype)).astype(out.dtype)
        gradients, _ = pair.backward(caches, d_out, False)
        return metrics, gradients

    return loss_and_grad
