"""What a layer is, in one declaration that stands beside its pair of passes.

A pair is `f_forward(x, ...) -> (out, cache)` and `f_backward(cache, d_out, ...) -> dx`. In every
pair, d_v or dv is the gradient of v and has v's shape; the cache is what the forward pass returned,
and the backward pass takes the same keyword arguments. A layer with parameters returns (d_params,
dx). With input_gradient=False, for a network's first layer, nobody needs dx and it is None.

`network.py` composes the pairs into a network's backward pass, `with_custom_vjp` lends them to
autodiff, and `gradcheck/` holds each against the plain formulation in its declared settings.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from jaxnets.models.chain import Chain, Layer, map_layers

Params = dict[str, Float[Array, "..."]]


class Setting(NamedTuple):
    """One call on which a pair is tried."""

    x: tuple[int, ...]  # The input's shape.
    params: Mapping[str, tuple[int, ...]] = {}  # The parameters' shapes by name.
    labels: str = ""  # What a loss compares with: "classes", "one_hot" rows or "probabilities".
    # What x holds: "normal"; "integers" or "equal", which tie, and the parameters are whole numbers
    # too; "huge", whose exponential overflows; "shares", which lie between 0 and 1; "dark": its
    # right half is 0.
    numbers: str = "normal"
    scale: float = 1.0  # A factor of x, and of the step of the central differences.
    static: Mapping[str, Any] = {}  # The layer's other arguments.
    padding: int = 0  # How many of the last rows the mask leaves out.


class LayerRule(NamedTuple):
    """A layer: its two passes, what they must equal, and what they are tried on."""

    forward: Callable[..., Any]  # (*inputs, **static) -> (out, cache)
    # (cache, d_out, **static) -> dx; with parameters (d_params, dx), and it then takes
    # input_gradient too.
    backward: Callable[..., Any]
    # (*inputs, **static) -> out in stock JAX or Flax, which autodiff differentiates.
    plain: Callable[..., Any]
    settings: Sequence[Setting]  # The calls on which the pair is tried.
    inputs: tuple[str, ...] = ("x",)  # Forward's arrays: "params", "key", "x", "labels", "mask".
    # Reads the static arguments from a layer of a network.
    static: Callable[[Any], dict[str, Any]] = lambda layer: {}
    # layer -> the same layer in a form with a faster gradient: most by the pair, by `by_rule`.
    faster: Callable[[Any], Callable[..., Any]] | None = None
    # For central differences: (*inputs, **static) -> on which side of its kink each unit is, as
    # x > 0, or which element has won. None: no kinks.
    sides: Callable[..., jax.Array] | None = None
    bfloat16: bool = True  # Whether any network computes it in bfloat16.


FindRule = Callable[[Any], LayerRule | None]  # `rule_of`, or one that changes some rules.


# Where the rule of a layer or a loss stands, by the package and the name of its class or function:
# a file of this folder and the rule's name there. Only the gradient check uses names with spaces.
RULES = {
    "flax.Dense": "dense.DENSE",
    "jaxnets.DenseWithOnes": "dense_with_ones.DENSE_WITH_ONES",
    "dense behind black pixels": "nonzero_columns.NONZERO_COLUMNS",
    "jaxnets.flatten": "dense.FLATTEN",
    "jax.sigmoid": "activations.SIGMOID",
    "jax.relu": "relu.RELU",
    "jax.softmax": "activations.SOFTMAX",
    "flax.Conv": "convolution.CONV",
    "jaxnets.MaxPool": "pooling.MAX_POOL",
    "jaxnets.ConvPool": "conv_pool.CONV_POOL",
    "jaxnets.AdaptiveAveragePool": "alexnet_layers.ADAPTIVE_AVERAGE_POOL",
    "jaxnets.LocalResponseNorm": "alexnet_layers.LOCAL_RESPONSE_NORM",
    "flax.Dropout": "dropout.DROPOUT",
    "jaxnets.BatchNorm": "batch_norm.BATCH_NORM",
    "cross-entropy of probabilities": "probability_losses.CROSS_ENTROPY",
    "cross-entropy in two steps": "probability_losses.SOFTMAX_THEN_CROSS_ENTROPY",
    "jaxnets.cross_entropy": "losses.SOFTMAX_CROSS_ENTROPY",
    "jaxnets.squared_error": "probability_losses.SQUARED_ERROR",
    "half squared error": "probability_losses.HALF_SQUARED_ERROR",
    "jaxnets.mse": "probability_losses.MSE",
    "jaxnets.half_mse": "probability_losses.HALF_MSE",
}


def rule_of(layer: Any) -> LayerRule | None:
    """The rule of a layer of a chain, or of a loss; None if there is none. Loads its file only."""
    place = RULES.get(key_of(layer))
    return _load(place) if place else None


def key_of(layer: Any) -> str:
    """The package and the name of a layer's class or function: another's MaxPool is not ours."""
    package = layer.__module__.partition(".")[0]
    return f"{package}.{getattr(layer, '__name__', type(layer).__name__)}"


def all_rules() -> dict[str, LayerRule]:
    """Every rule by its name in small letters, for the gradient check."""
    return {place.split(".")[1].lower(): _load(place) for place in RULES.values()}


def _load(place: str) -> LayerRule:
    file, name = place.split(".")
    return getattr(importlib.import_module(f"jaxnets.backprop.{file}"), name)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def by_rule(rule: LayerRule, static: Mapping[str, Any], *inputs: Any) -> Float[Array, "..."]:
    """A layer's output for x, or params and x, which autodiff differentiates by the rule."""
    return rule.forward(*inputs, **static)[0]


def _by_rule_forward(rule: LayerRule, static: Mapping[str, Any], *inputs: Any):
    return rule.forward(*inputs, **static)


def _by_rule_backward(rule: LayerRule, static: Mapping[str, Any], cache: Any, d_out: jax.Array):
    gradients = rule.backward(cache, d_out, **static)
    return gradients if "params" in rule.inputs else (gradients,)


by_rule.defvjp(_by_rule_forward, _by_rule_backward)


def with_bias_in_kernel(x: Any, kernel: Any, bias: Any, *, dtype: Any):
    """Flax's promote_dtype for a layer whose product takes its params as the kernel.

    Flax then adds a bias of 0: autodiff would add the gradient of its own up in the layer's
    precision, and in bfloat16 a sum of ones stays at 256.
    """
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=dtype)
    params = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return x, params, None if bias is None else jnp.zeros((), x.dtype)


def with_custom_vjp(model: Chain, find_rule: FindRule = rule_of) -> Chain:
    """Returns the same network for autodiff, its layers in the faster form if their rule has one.

    On the CPU, XLA's gradient of a max pool (select-and-scatter) takes 6 to 9 times as long, that
    of a wide dense layer's input 7 times. Its convolutions of few channels are slow, too
    (benchmarks/step.py). Parameters and values are the same.
    """

    def faster(layer: Layer) -> Layer:
        rule = find_rule(layer)
        return rule.faster(layer) if rule and rule.faster else layer

    return map_layers(model, faster)


# Settings that several layers have in common.
ELEMENTWISE = [
    *map(Setting, [(4, 5), (1, 1), (40, 3, 3, 6)]),
    Setting((6, 6), numbers="huge"),
    Setting((6, 6), numbers="integers"),
]
SCORES = [
    *map(Setting, [(4, 5), (1, 3), (3, 1), (40, 12)]),
    Setting((3, 4), numbers="equal"),
    Setting((5, 4), numbers="huge"),
    Setting((9, 9)),  # A sum over the wrong axis has the right shape.
]
