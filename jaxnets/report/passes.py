"""One image's forward and backward pass, layer by layer, by the hand-derived pairs."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop.network import chain_pair
from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.trees import by_layer
from jaxnets.gradcheck.quick import quick_options
from jaxnets.losses import LOSSES
from jaxnets.models.batch_norm import fold, normalized
from jaxnets.models.chain import Chain, walk
from jaxnets.report.summary import describe_layer


class Array(NamedTuple):
    """Numbers, and the loss's gradient with respect to them, which has the same shape."""

    value: np.ndarray
    gradient: np.ndarray | None  # None before the first layer with parameters.


class LayerPass(NamedTuple):
    """A layer's forward and backward pass of one image."""

    layer: str
    params: dict[str, Array]
    output: Array  # Without the batch's axis.
    within: str = ""  # The branch of a residual block, such as "residual1.chain".

    @property
    def label(self) -> str:
        """The layer, and its place if it is in a residual block."""
        return f"{self.within}: {self.layer}" if self.within else self.layer


class ImagePasses(NamedTuple):
    """Both passes of one image."""

    image: np.ndarray  # The network's input, [H, W, C].
    steps: list[
        LayerPass
    ]  # In the order of the forward pass; a block's step follows those of its branches.
    label: int
    loss: float


def passes_of(model: Chain, params: Any, image: np.ndarray, label: int, loss: str) -> ImagePasses:
    """Runs an image forward and its loss backward, as in an evaluation: dropout is off.

    A batch norm is then an affine map, and part of the layer before or after it if possible.

    Args:
      model: The chain of layers.
      params: Its parameters.
      image: [H, W, C] float32.
      label: The class with which the loss compares.
      loss: One of losses.LOSSES.
    """
    model, params = fold(model, params)
    loss_rule: Any = rule_of(LOSSES[loss])
    layers = [(path, layer) for path, layer in walk(model) if not isinstance(layer, nn.Dropout)]

    def both(params: Any, x: jax.Array, labels: jax.Array):
        outputs, d_outputs = [], {}  # None flows back before the first layer with parameters.
        pair = chain_pair(model, functools.partial(_recording, outputs, d_outputs))
        x, caches = pair.forward(params, x, {}, None)
        logits = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        losses, cache = loss_rule.forward(logits, labels)
        d_out = loss_rule.backward(cache, jnp.ones_like(losses)).astype(x.dtype)
        gradients, _ = pair.backward(caches, d_out, False)
        return losses[0], outputs, d_outputs, gradients

    compiled = jax.jit(both, compiler_options=quick_options())
    ran = compiled(params, jnp.asarray(image)[None], jnp.asarray([label], jnp.int32))
    value, outputs, d_outputs, gradients = jax.device_get(ran)
    arrays, d_arrays = by_layer(params), by_layer(gradients)

    def beside(x: Any, gradient: Any) -> Array:
        return Array(_in_float32(x), None if gradient is None else _in_float32(gradient))

    steps = []
    for number, (path, layer) in enumerate(layers):
        own, d_own = (tree.get(".".join(path), {}) for tree in (arrays, d_arrays))
        named = {key: beside(own[key], d_own.get(key)) for key in own}
        dx = d_outputs.get(number)
        output = beside(outputs[number][0], None if dx is None else dx[0])
        steps.append(LayerPass(describe_layer(layer, own), named, output, ".".join(path[:-1])))
    return ImagePasses(np.asarray(image), steps, label, float(value))


def _in_float32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64 if x.dtype == np.float64 else np.float32)


def _rule_of_evaluation(layer: Any) -> LayerRule | None:
    """The rule of a layer in an evaluation, if the passes need a special one."""
    if isinstance(layer, nn.Dropout):
        return LayerRule(lambda x: (x, ()), lambda cache, dy: dy, layer, ())
    if not isinstance(layer, nn.BatchNorm):
        return rule_of(layer)

    # y = scale r (x - mean) + bias, r = 1 / sqrt(var + epsilon): the statistics are constants.
    def forward(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        y = normalized(params, x, params["mean"], params["var"], layer.epsilon)
        return y, (params, x)

    def backward(cache: Any, dy: jax.Array, input_gradient: bool) -> Any:
        params, x = cache
        r, axes = lax.rsqrt(params["var"] + layer.epsilon), tuple(range(x.ndim - 1))
        normal = (x - params["mean"]) * r
        d_params = {"scale": (dy * normal).sum(axes), "bias": dy.sum(axes)}
        return d_params, dy * params["scale"] * r

    return LayerRule(forward, backward, layer, (), ("params", "x"))


def _recording(outputs: list[Any], d_outputs: dict[int, Any], layer: Any) -> LayerRule | None:
    """The rule of a layer in an evaluation; it records the output and the output's gradient."""
    rule = _rule_of_evaluation(layer)
    if rule is None or isinstance(layer, nn.Dropout):
        return rule

    def forward(*inputs: Any, **static: Any) -> tuple[jax.Array, Any]:
        out, cache = rule.forward(*inputs, **static)
        outputs.append(out)
        return out, (len(outputs) - 1, cache)

    def backward(cache: Any, d_out: jax.Array, **static: Any) -> Any:
        number, cache = cache
        d_outputs[number] = d_out
        return rule.backward(cache, d_out, **static)

    return rule._replace(forward=forward, backward=backward)
