"""Each layer pair beside its plain formulation, which stock JAX differentiates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop import (
    activations,
    convolution,
    dense,
    dropout,
    losses,
    normalization,
    pooling,
    shape,
)
from jaxnets.backprop.network import LOSS_PAIRS
from jaxnets.gradcheck import settings
from jaxnets.gradcheck.compare import DIFFERENCES, Passes, Problem, Row, check
from jaxnets.gradcheck.kinks import max_pool_winners, relu_sides
from jaxnets.gradcheck.settings import Setting

# bfloat16 has 8 binary digits: it rounds by up to 2^-9 = 0.002. Autodiff adds a bias's gradient up
# in it, so that a convolution's is wrong by 0.02.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 4e-2, DIFFERENCES: 1e-6}


class Layer(NamedTuple):
    """A pair, what it must equal, and what it is tried on.

    Attributes:
      forward: (*inputs, *constants, **static) -> (out, cache).
      backward: (cache, d_out, **static) -> the inputs' gradients.
      plain: (*inputs, *constants, **static) -> out, with stock JAX or Flax.
      settings: Returns what to try.
      kinks: (x, **static) -> on which sides of its kinks it is computed.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    plain: Callable[..., Any]
    settings: Callable[[], list[Setting]]
    kinks: Callable[..., jax.Array] | None = None


def check_layer(name: str, layer: Layer) -> Row:
    """Compares a layer's pair with autodiff and central differences in all its settings."""
    return check(name, problems_of(layer), TOLERANCES)


def problems_of(layer: Layer) -> list[Problem]:
    """A layer's pair in each of its settings."""
    return [_problem(layer, setting) for setting in layer.settings()]


def _problem(layer: Layer, setting: Setting) -> Problem:
    static = setting.static

    def call(function, inputs, constants):
        return function(*(inputs[name] for name in setting.inputs), *constants, **static)

    def plain(inputs, constants):
        return call(layer.plain, inputs, constants)

    def manual(inputs, constants):
        constants, d_out = constants
        out, cache = call(layer.forward, inputs, constants)
        gradients = layer.backward(cache, d_out, **static)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return {"output": out, "gradient": dict(zip(setting.inputs, gradients, strict=True))}

    def automatic(inputs, constants):
        constants, d_out = constants
        out, pull_back = jax.vjp(lambda inputs: plain(inputs, constants), inputs)
        return {"output": out, "gradient": pull_back(d_out)[0]}

    def number(inputs, constants):
        constants, d_out = constants
        sides = [layer.kinks(inputs["x"], **static)] if layer.kinks else []
        return (plain(inputs, constants) * d_out).sum(), sides

    def at(precision: str) -> Passes:
        def cast(leaf: np.ndarray) -> jax.Array:
            return jnp.asarray(leaf, precision if leaf.dtype == np.float64 else leaf.dtype)

        inputs, constants = jax.tree.map(cast, (setting.inputs, tuple(setting.constants)))
        out = jax.eval_shape(plain, inputs, constants)
        d_out = cast(np.random.default_rng(3).standard_normal(out.shape))
        return Passes(inputs, (constants, d_out), manual, automatic, number)

    return Problem(setting.label, at, setting.step, setting.ties)


def _plain_convolution(params, x, *, strides, padding, groups):
    z = lax.conv_general_dilated(
        x,
        params["kernel"],
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return z + params["bias"] if "bias" in params else z


def _plain_dense(params, x):
    layer = nn.Dense(params["kernel"].shape[1], use_bias="bias" in params)
    return layer.apply({"params": params}, x)


def _plain_dense_with_ones(params, x):
    return jnp.pad(x, ((0, 0), (0, 1)), constant_values=1) @ params["kernel"]


def _plain_max_pool(x, *, window, strides, padding):
    return nn.max_pool(x, window, strides, padding)


def _plain_average_pool(x, *, window, strides, padding):
    return nn.avg_pool(x, window, strides, padding)


def _plain_adaptive_average_pool(x, *, output_size):
    def parts(size, places):
        return [slice(i * size // places, -(-(i + 1) * size // places)) for i in range(places)]

    rows, columns = map(parts, x.shape[1:3], output_size)
    cells = [x[:, row, column].mean((1, 2)) for row in rows for column in columns]
    return jnp.stack(cells, axis=1).reshape(len(x), *output_size, x.shape[-1])


def _plain_local_response_norm(x, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    ones = (1,) * (x.ndim - 1)
    pads = [(0, 0)] * (x.ndim - 1) + [(n // 2, (n - 1) // 2)]
    squares = lax.reduce_window(x**2, np.zeros((), x.dtype), lax.add, (*ones, n), (*ones, 1), pads)
    return x / (k + alpha * squares) ** beta


def _plain_batch_norm(params, x, *, epsilon):
    layer = nn.BatchNorm(use_running_average=False, epsilon=epsilon, use_fast_variance=False)
    unused = {"mean": jnp.zeros(x.shape[-1]), "var": jnp.zeros(x.shape[-1])}
    variables = {"params": params, "batch_stats": unused}
    return layer.apply(variables, x, mutable=["batch_stats"])[0]


def _dropout_forward(x, *, rate):
    return dropout.dropout_forward(jax.random.key(0), x, rate=rate)


def _plain_dropout(x, *, rate):
    return nn.Dropout(rate, deterministic=False).apply({}, x, rng=jax.random.key(0))


def _plain_cross_entropy(p, one_hot):
    return -jnp.sum(one_hot * jnp.log(p + 1e-12), axis=1)


def _chain_forward(x, one_hot):
    p, softmax_cache = activations.softmax_forward(x)
    loss, loss_cache = losses.cross_entropy_forward(p, one_hot)
    return loss, (softmax_cache, loss_cache)


def _chain_backward(cache, d_losses):
    softmax_cache, loss_cache = cache
    dp = losses.cross_entropy_backward(loss_cache, d_losses)
    return activations.softmax_backward(softmax_cache, dp)


def _plain_reduce(losses, mask, *, reduction):
    total = jnp.sum(losses * mask)
    return total / jnp.sum(mask) if reduction == "mean" else total


def _truth(labels, like):
    return labels if labels.ndim == 2 else jnp.eye(like.shape[1], dtype=like.dtype)[labels]


def _squares_of_softmax(logits, labels):
    return jnp.square(jax.nn.softmax(logits) - _truth(labels, logits))


LAYERS: dict[str, Layer] = {
    "dense": Layer(dense.dense_forward, dense.dense_backward, _plain_dense, settings.dense),
    "dense_with_ones": Layer(
        dense.dense_with_ones_forward,
        dense.dense_with_ones_backward,
        _plain_dense_with_ones,
        settings.dense_with_ones,
    ),
    "flatten": Layer(
        shape.flatten_forward,
        shape.flatten_backward,
        lambda x: lax.collapse(x, 1),
        settings.images,
    ),
    "sigmoid": Layer(
        activations.sigmoid_forward,
        activations.sigmoid_backward,
        jax.nn.sigmoid,
        settings.elementwise,
    ),
    "relu": Layer(
        activations.relu_forward,
        activations.relu_backward,
        jax.nn.relu,
        settings.elementwise,
        relu_sides,
    ),
    "softmax": Layer(
        activations.softmax_forward,
        activations.softmax_backward,
        jax.nn.softmax,
        settings.scores,
    ),
    "conv": Layer(
        convolution.conv_forward,
        convolution.conv_backward,
        _plain_convolution,
        settings.convolutions,
    ),
    "max_pool": Layer(
        pooling.max_pool_forward,
        pooling.max_pool_backward,
        _plain_max_pool,
        settings.pools_with_ties,
        max_pool_winners,
    ),
    "average_pool": Layer(
        pooling.average_pool_forward,
        pooling.average_pool_backward,
        _plain_average_pool,
        settings.pools,
    ),
    "adaptive_average_pool": Layer(
        pooling.adaptive_average_pool_forward,
        pooling.adaptive_average_pool_backward,
        _plain_adaptive_average_pool,
        settings.adaptive_pools,
    ),
    "local_response_norm": Layer(
        normalization.local_response_norm_forward,
        normalization.local_response_norm_backward,
        _plain_local_response_norm,
        settings.neighbourhoods,
    ),
    "batch_norm": Layer(
        normalization.batch_norm_forward,
        normalization.batch_norm_backward,
        _plain_batch_norm,
        settings.batches,
    ),
    "dropout": Layer(_dropout_forward, dropout.dropout_backward, _plain_dropout, settings.dropouts),
    "cross_entropy": Layer(
        losses.cross_entropy_forward,
        losses.cross_entropy_backward,
        _plain_cross_entropy,
        settings.small_probabilities,
    ),
    "softmax_then_cross_entropy": Layer(
        _chain_forward,
        _chain_backward,
        lambda x, one_hot: _plain_cross_entropy(jax.nn.softmax(x), one_hot),
        settings.scores_and_one_hot,
    ),
    "softmax_cross_entropy": Layer(
        losses.softmax_cross_entropy_forward,
        losses.softmax_cross_entropy_backward,
        lambda x, labels: -jnp.sum(_truth(labels, x) * jax.nn.log_softmax(x), axis=1),
        settings.scores_and_labels,
    ),
    "mean_squared_error": Layer(
        losses.mean_squared_error_forward,
        losses.mean_squared_error_backward,
        lambda p, y: jnp.square(p - y).mean(axis=1),
        settings.probabilities,
    ),
    "half_squared_error": Layer(
        losses.half_squared_error_forward,
        losses.half_squared_error_backward,
        lambda p, y: 0.5 * jnp.square(p - y).sum(axis=1),
        settings.probabilities,
    ),
    "softmax_then_mse": Layer(
        *LOSS_PAIRS["mse"],
        lambda x, labels: _squares_of_softmax(x, labels).mean(axis=1),
        settings.scores_and_labels,
    ),
    "softmax_then_half_mse": Layer(
        *LOSS_PAIRS["half_mse"],
        lambda x, labels: 0.5 * _squares_of_softmax(x, labels).sum(axis=1),
        settings.scores_and_labels,
    ),
    "reduce": Layer(
        losses.reduce_forward, losses.reduce_backward, _plain_reduce, settings.reductions
    ),
}
