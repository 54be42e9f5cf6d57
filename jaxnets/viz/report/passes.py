"""One image's forward and backward pass, layer by layer, by the hand-derived pairs."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.network import pair_of
from jaxnets.backprop.rules import rule_of
from jaxnets.gradcheck.compare import quick_options
from jaxnets.losses import LOSSES
from jaxnets.models.batch_norm import fold
from jaxnets.models.chain import Chain
from jaxnets.viz.summary import describe_layer


class Array(NamedTuple):
    """Numbers, and the loss' gradient with respect to them, which has the same shape."""

    value: np.ndarray
    gradient: np.ndarray | None  # None before the first layer with parameters.


class Step(NamedTuple):
    """A layer at work on one image."""

    layer: str
    params: dict[str, Array]
    output: Array  # Without the batch's axis.


class Passes(NamedTuple):
    """Both passes of one image."""

    image: np.ndarray  # The network's input, [H, W, C].
    steps: list[Step]
    label: int
    loss: float


def passes_of(model: Chain, params: Any, image: np.ndarray, label: int, loss: str) -> Passes:
    """Runs an image forward and its loss backward, as in an evaluation: dropout drops nothing.

    A batch norm, then an affine map, is part of the layer before or behind it.

    Args:
      model: The chain of layers.
      params: Its parameters.
      image: [H, W, C] float32.
      label: The class with which the loss compares.
      loss: One of losses.LOSSES.
    """
    model, params = fold(model, params)
    layers = [layer for layer in model.layers if not isinstance(layer, nn.Dropout)]
    pairs = [pair_of(layer) for layer in layers]
    names = [getattr(layer, "name", None) or "" for layer in layers]
    first = next(i for i, name in enumerate(names) if name in params)
    loss_rule: Any = rule_of(LOSSES[loss])

    def both(params: Any, x: jax.Array, labels: jax.Array):
        outputs, caches, d_outputs, gradients = [], [], {}, {}
        for pair, name in zip(pairs, names, strict=True):
            x, cache = pair.forward(params.get(name), x, None)
            outputs.append(x)
            caches.append(cache)
        logits = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        losses, cache = loss_rule.forward(logits, labels)
        d_out = loss_rule.backward(cache, jnp.ones_like(losses)).astype(x.dtype)
        for index in range(len(pairs) - 1, first - 1, -1):
            d_outputs[index] = d_out
            d_params, d_out = pairs[index].backward(caches[index], d_out, index > first)
            if d_params:
                gradients[names[index]] = d_params
        return losses[0], outputs, d_outputs, gradients

    compiled = jax.jit(both, compiler_options=quick_options())
    ran = compiled(params, jnp.asarray(image)[None], jnp.asarray([label], jnp.int32))
    value, outputs, d_outputs, gradients = jax.device_get(ran)

    def in_float32(x: Any) -> np.ndarray:
        return np.asarray(x, np.float64 if x.dtype == np.float64 else np.float32)

    steps = []
    for index, (layer, name) in enumerate(zip(layers, names, strict=True)):
        own = params.get(name, {})
        arrays = {key: Array(in_float32(own[key]), in_float32(gradients[name][key])) for key in own}
        d_out = d_outputs.get(index)
        output = Array(
            in_float32(outputs[index])[0], None if d_out is None else in_float32(d_out)[0]
        )
        steps.append(Step(describe_layer(layer, own), arrays, output))
    return Passes(np.asarray(image), steps, label, float(value))
