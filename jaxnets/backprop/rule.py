"""A layer's rule: one declaration that stands beside the layer's pair of passes.

A pair is `f_forward(x, ...) -> (out, cache)` and `f_backward(cache, d_out, ...) -> dx`. In every
pair, d_v or dv is the gradient of v and has v's shape; the cache is what the forward pass returned,
and the backward pass takes the same keyword arguments. A layer with parameters returns (d_params,
dx). With input_gradient=False, for a network's first layer, dx is not needed and may be None.

`rules.py` finds a layer's rule, `network.py` composes the pairs into a network's backward pass, and
`gradcheck/` holds each against the plain formulation in its declared settings. The faster forms of
some layers in `kernels/` are declared in the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from jaxnets.errors import UserError
from jaxnets.models.chain import Layer

Params = dict[str, Float[Array, "..."]]  # A layer's own, by name.
Shapes = Mapping[str, Any]  # Shapes by name, or of the chains of a residual block by theirs.


class Pair(NamedTuple):
    """The two passes of a layer, or of a chain of layers, in one signature."""

    # (params, x, key, mask) -> (out, cache). The key is a dropout layer's, a chain's are a dict by
    # its layers' indices; the mask is the batch's.
    forward: Callable[..., Any]
    backward: Callable[..., Any]  # (cache, d_out, input_gradient) -> (d_params, dx)
    has_params: bool


class Setting(NamedTuple):
    """One call on which a pair is tried."""

    x: tuple[int, ...]  # The input's shape.
    params: Shapes = {}  # The parameters' shapes by name.
    labels: str = ""  # A loss's labels: "classes", "one_hot" rows or "probabilities".
    # Values of x: "normal"; "integers" or "equal", which tie, and the parameters are whole numbers
    # too; "huge", whose exponential overflows; "shares", which lie between 0 and 1.
    numbers: str = "normal"
    scale: float = 1.0  # A factor of x, and of the step of the central differences.
    static: Mapping[str, Any] = {}  # The layer's other arguments.
    padding: int = 0  # The number of last rows that the mask leaves out.


def _itself(*inputs: object, **static: object) -> jax.Array:
    raise UserError("expected a plain formulation in LayerRule(forward, backward, plain)")


class LayerRule(NamedTuple):
    """A layer: its two passes, what they must equal, and what they are tried on."""

    forward: Callable[..., tuple[jax.Array, Any]]  # (*inputs, **static) -> (out, cache)
    # (cache, d_out, **static) -> dx; with parameters (d_params, dx), and it then takes
    # input_gradient too.
    backward: Callable[..., Any]
    # (*inputs, **static) -> out in stock JAX or Flax, which autodiff differentiates. A layer of the
    # user's own is itself its plain formulation.
    plain: Callable[..., Any] = _itself
    # The calls on which the pair is tried; `gradcheck.check_layer` is given those of a user's own.
    settings: Sequence[Setting] = ()
    # Forward's arrays: "params", "key", "x", "labels", "mask"; "keys" are those of its chains.
    inputs: tuple[str, ...] = ("x",)
    # Reads the static arguments from a layer of a network. The pair gets a chain as its own Pair.
    static: Callable[[Any], dict[str, Any]] = lambda layer: {}
    # For central differences: (*inputs, **static) -> on which side of its kink each unit is, as
    # x > 0, or which element has won. None: no kinks.
    sides: Callable[..., jax.Array] | None = None
    bfloat16: bool = True  # Whether any network computes it in bfloat16.
    # Of a kernel for several layers: (*inputs, **static) -> the first of them's output, which the
    # kernel itself may never write.
    first_output: Callable[..., jax.Array] | None = None


FindRule = Callable[[Layer], LayerRule | None]  # `rules.rule_of`, or one that changes some rules.


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
