"""A layer's rule: one declaration, in the file of the layer's pair of passes.

A pair is `f_forward(x, ...) -> (out, cache)` and `f_backward(cache, d_out, ...) -> dx`. In every
pair, d_v or dv is the gradient of v and has v's shape; the cache is what the forward pass returned,
and the backward pass takes the same keyword arguments. A layer with parameters returns (d_params,
dx). With input_gradient=False, for a network's first layer, dx is not needed and may be None.

`rules.py` finds a layer's rule, `network.py` composes the pairs into a network's backward pass, and
`gradcheck/` compares each pair with the plain formulation: in the settings that the rule names, and
in others that are drawn from its domain. The faster forms of some layers in `kernels/` are declared
in the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxnets.base.errors import UserError
from jaxnets.models.chain import Chain, Layer, chains_of

Params = dict[str, Float[Array, "..."]]  # The parameters of one layer, by name.
LayerRow = dict[str, Any]  # A layer as data: its kind, and the settings that other programs need.
Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, Any]  # Shapes by name, or of the chains of a residual block by theirs.


class Pair(NamedTuple):
    """The two passes of a layer, or of a chain of layers, in one signature."""

    # (params, x, key, mask) -> (out, cache). The key is a dropout layer's; a chain has a dict of
    # keys by its layers' indices. The mask is the batch's.
    forward: Callable[..., Any]
    backward: Callable[..., Any]  # (cache, d_out, input_gradient) -> (d_params, dx)
    has_params: bool


class Setting(NamedTuple):
    """One call on which a pair is tried."""

    x: tuple[int, ...]  # The input's shape.
    params: Shapes = {}  # The parameters' shapes by name.
    labels: str = ""  # A loss's labels: "classes", "one_hot" rows or "probabilities".
    # Values of x: "normal"; "integers" or "equal", which tie, and then the parameters are also
    # whole numbers; "huge", whose exponential overflows; "shares", which are between 0 and 1.
    numbers: str = "normal"
    scale: float = 1.0  # A factor of x.
    static: Mapping[str, Any] = {}  # The layer's other arguments.
    padding: int = 0  # The number of last rows that the mask leaves out.
    origin: str = ""  # Which draw of a domain it is, so that it can be drawn again.
    taught: bool = True  # Whether a derivation as the lecture writes it must be right here.


class Domain(NamedTuple):
    """The calls for which a layer must be right, as ranges from which the gradient check draws.

    >>> rows = Domain(
    ...     lambda batch, width: Setting((batch, width)),
    ...     {"batch": (1, 2, 100), "width": range(1, 9)},
    ... )
    >>> [setting.x for setting in rows.draw(3, seed=0)]
    [(100, 2), (1, 5), (2, 7)]
    """

    setting: Callable[..., Setting]  # (a value of each range, by its name) -> the call.
    ranges: Mapping[str, Sequence[Any]]  # Numbers from small to large.
    draws: int = 12  # By default. More where only several values together reach a branch.

    def draw(self, count: int, seed: int) -> list[Setting]:
        """Draws calls, always the same ones for a count and a seed.

        Each range is cut into as many parts as there are draws, and each draw takes a value from
        a different part. So even a few draws reach both ends of a range, and each value of a short
        one.

        Args:
          count: The number of calls.
          seed: The seed of the draws.

        Source: McKay, Beckman and Conover 1979, Latin hypercube sampling.
        """
        random = np.random.default_rng(seed)

        def column(values: Sequence[Any]) -> list[Any]:
            places = (random.permutation(count) + random.uniform(size=count)) / count
            return [values[int(place * len(values))] for place in places]

        drawn = {name: column(values) for name, values in self.ranges.items()}
        rows = ({name: values[number] for name, values in drawn.items()} for number in range(count))
        return [
            self.setting(**row)._replace(origin=f"draw {number} of --draws={count} --seed={seed}")
            for number, row in enumerate(rows, start=1)
        ]


def _itself(*inputs: object, **static: object) -> jax.Array:
    raise UserError("expected a plain formulation in LayerRule(forward, backward, plain)")


class LayerRule(NamedTuple):
    """A layer: its two passes, what they must equal, and the calls on which they are tried."""

    forward: Callable[..., tuple[jax.Array, Any]]  # (*inputs, **static) -> (out, cache)
    # (cache, d_out, **static) -> dx; with parameters (d_params, dx), and it then takes
    # input_gradient too.
    backward: Callable[..., Any]
    # (*inputs, **static) -> out in stock JAX or Flax, which autodiff differentiates. A user's own
    # layer is its own plain formulation.
    plain: Callable[..., Any] = _itself
    # The named calls: a usual one, ties, numbers that overflow. For a user's own layer,
    # `gradcheck.check_layer` is given them.
    settings: Sequence[Setting] = ()
    # The arrays of `forward`: "params", "key", "x", "labels", "mask"; "keys" are those of its
    # chains.
    inputs: tuple[str, ...] = ("x",)
    # Reads the static arguments from a layer of a network. The pair gets a chain as its own Pair.
    static: Callable[[Any], dict[str, Any]] = lambda layer: {}
    # The chains of a layer that is made of some, by the names of their parameters, in the order of
    # the forward pass; a branch without layers is the identity.
    branches: Callable[[Any], Mapping[str, Chain]] = chains_of
    has_kinks: bool = False  # Whether it has no derivative somewhere, as ReLU at 0.
    bfloat16: bool = True  # Whether any network computes it in bfloat16.
    # For a kernel of several layers: (*inputs, **static) -> the output of the first one, which the
    # kernel itself may never write.
    first_output: Callable[..., jax.Array] | None = None
    domain: Domain | None = None  # Further calls to try; None: none.
    # Its row as data: a name, its class or function, or several of them, and the settings that
    # other programs need, as fields of the layer. If they depend on the shape of one input, a
    # function reads them.
    name: str = ""
    layer: type | Layer | tuple[type | Layer, ...] = ()
    fields: tuple[str, ...] | Callable[[Any, tuple[int, ...]], LayerRow] = ()
    # The arrays that such a layer may lack, with the number that each then holds.
    fills: Mapping[str, float] = {}
    # What an export has in its place: (row, arrays) -> those of a layer that computes the same, or
    # None if no layer is needed.
    exported: Callable[[LayerRow, Arrays], tuple[LayerRow, Arrays] | None] | None = None
    # For a user's own layer, what other programs compute: its ONNX nodes, (graph, x, the input's
    # shape, row, arrays) -> the name of the output (`predict/onnx_file.py`); and the text of its
    # JavaScript pair, "{ forward: ..., backward: ... }" (`page/assets/network.js`).
    onnx: Callable[..., str] | None = None
    javascript: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it belongs to a user's own layer, which is its own plain formulation."""
        return self.plain is _itself

    @property
    def is_loss(self) -> bool:
        """Whether it belongs to a loss, which is not a layer of a chain."""
        return "labels" in self.inputs

    @property
    def layers(self) -> tuple[type | Layer, ...]:
        """The classes and functions of this layer; a loss of probabilities has none."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    def row(self, layer: Layer, shape: tuple[int, ...]) -> LayerRow:
        """The kind and the fields of a layer, as data.

        Args:
          layer: A layer that has this rule.
          shape: The shape of one input, without the batch.
        """
        if callable(self.fields):
            return {"kind": self.name, **self.fields(layer, shape)}
        return {"kind": self.name, **{field: getattr(layer, field) for field in self.fields}}


FindRule = Callable[[Layer], LayerRule | None]  # `rules.rule_of`, or one that changes some rules.


# Ranges that several layers share. 64, 100 and 128 are where a program might cut a batch or a row
# into parts; 61 and 101 are odd. From MANY on, a layer that may lack parameters has them: what they
# sum then is long.
BATCHES = (1, 1, 2, 3, 4, 6, 8, 9, 16, 33, 61, 101, 130)
MANY = 61
WIDTHS = (1, 2, 3, 4, 5, 8, 9, 17, 33, 65, 100)
IMAGES = ((1, 1), (1, 4), (3, 3), (3, 2), (4, 4), (9, 8))  # Rows and columns.
PLACES = ((), (5,), *IMAGES)  # Also rows of numbers alone, and sequences of them.


# Settings and domains that several layers share.
def _array(batch: int, places: tuple[int, ...], width: int, scale: float) -> Setting:
    return Setting((batch, *places, width), scale=scale)


ELEMENTWISE = [
    Setting((4, 5)),
    Setting((4, 3, 3, 6)),
    Setting((6, 6), numbers="huge"),
    Setting((6, 6), numbers="integers"),
]
# With a scale of 4 some numbers are between 6 and 16, where an activation is nearly saturated; with
# the smallest a threshold beside 0 is seen.
ARRAYS = Domain(
    _array,
    {"batch": BATCHES, "places": PLACES, "width": WIDTHS, "scale": (1e-13, 1.0, 1.0, 1.0, 4.0)},
)
SCORES = [
    Setting((4, 5)),
    Setting((3, 4), numbers="equal"),
    Setting((5, 4), numbers="huge"),
    Setting((9, 9)),  # A sum over the wrong axis has the right shape.
]
