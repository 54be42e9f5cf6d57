"""A network as a chain of layers, stated once: Flax runs it forward, `backprop` backward."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, ClassVar, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnets.base.described import Described
from jaxnets.base.errors import UserError
from jaxnets.base.trees import LayerParams, Params

SHORT = {"BatchNorm": "norm", "LayerNorm": "norm", "DenseWithOnes": "dense"}  # In made-up names.


@runtime_checkable
class Layer(Protocol):
    """A Flax layer, or a function without parameters."""

    def __call__(self, *inputs: Any, **settings: Any) -> jax.Array: ...


class Chain(Described, nn.Module):
    """Applies its layers one after the other.

    A layer is a Flax layer (nn.Dense, nn.Conv), nn.Dropout, a function without parameters (nn.relu,
    flatten, MaxPool(2)), or a layer of chains (Residual), which takes `train` and `mask` too. A
    Flax layer without a name gets one by its kind: conv1, conv2, dense1. The list says all that
    there is to know about the network: everything else that walks through it, such as the
    hand-derived gradients, reads `layers`.

    >>> from jaxnets.models.layers import MaxPool, flatten
    >>> Chain([nn.Conv(32, (3, 3)), nn.relu, MaxPool(2), flatten, nn.Dense(10)])
    Chain(layers=['conv1', 'relu', 'MaxPool', 'flatten', 'dense1'])

    Raises:
      UserError: Two layers have one name, or one layer is used in two places.
    """

    layers: Sequence[Layer]  # In the order of the forward pass; the last one gives the logits.

    # Flax would rename the layers layers_0, layers_3, ... by their place in the list.
    preserve_adopted_names: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.layers, Sequence):
            raise UserError("expected a list of layers, got {}", type(self.layers).__name__)
        self.layers = named(self.layers)
        super().__post_init__()

    def __call__(
        self,
        x: Float[Array | np.ndarray, "B *sizes"],
        *,
        train: bool = False,
        mask: Float[Array | np.ndarray, " B"] | None = None,
    ) -> Float[Array, "B *outputs"]:
        """The forward pass: logits [B, K] from images [B, H, W, C] or rows [B, D].

        With `train`, dropout draws from rngs={"dropout": key}, and batch norm counts mask's rows.
        """
        keys = self._own_keys() if train else {}
        x, mask = jnp.asarray(x), None if mask is None else jnp.asarray(mask)
        for index, layer in enumerate(self.layers):
            if isinstance(layer, nn.Dropout):
                x = layer(x, deterministic=not train, rng=keys.get(index))
            elif isinstance(layer, nn.BatchNorm):
                x = layer(x, use_running_average=not train, mask=mask)
            elif chains_of(layer):
                x = layer(x, train=train, mask=mask)
            else:
                x = layer(x)
        return x

    def _repr_fields(self) -> dict[str, Any]:
        return {"layers": [layer_name(layer) for layer in self.layers]}

    def dropout_keys(self) -> dict[int, Any]:
        """The key of each dropout layer by its index; for a layer of chains, keys by their names.

        The keys are those of a forward pass: each chain draws its own once.
        """
        within = {index: chains_of(layer) for index, layer in enumerate(self.layers)}
        inner = {
            index: {name: chain.dropout_keys() for name, chain in chains.items()}
            for index, chains in within.items()
            if chains
        }
        return self._own_keys() | inner

    def _own_keys(self) -> dict[int, jax.Array]:
        """The keys of this chain's own dropout layers: their index is folded into one key."""
        indices = [i for i, layer in enumerate(self.layers) if isinstance(layer, nn.Dropout)]
        if not indices:
            return {}
        key = self.make_rng("dropout")
        return {index: jax.random.fold_in(key, index) for index in indices}


def named(layers: Sequence[Any]) -> Sequence[Layer]:
    """The layers, each Flax layer with a name: its own, or its kind and a number."""
    names: dict[str, int] = {}  # With the place of their layer.
    for place, layer in enumerate(layers, start=1):
        if isinstance(layer, Chain):
            raise UserError(
                "layer {}: expected a layer, got a Chain; *[...] inserts a list's layers",
                place,
            )
        if isinstance(layer, nn.Dropout) and not (
            isinstance(layer.rate, Real) and 0 <= layer.rate <= 1
        ):
            raise UserError(
                "layer {}: expected a rate from 0 to 1, got {}", place, f"{layer.rate!r:.40}"
            )
        if not callable(layer):
            got = f"{type(layer).__name__} {layer!r:.40}"
            raise UserError("layer {}: expected a layer or a function, got {}", place, got)
        if isinstance(layer, type):
            kind = layer.__name__
            raise UserError(
                "layer {}: expected a layer, such as {}(...), got the class {}", place, kind, kind
            )
        if isinstance(layer, nn.Module) and layer.name is not None:
            if not (isinstance(layer.name, str) and layer.name.isidentifier()):
                raise UserError(
                    "layer {}: expected a name such as conv1, got {}", place, f"{layer.name!r:.40}"
                )
            if (other := names.setdefault(layer.name, place)) != place:
                raise UserError(
                    "layers {} and {} have the name {}; expected one for each",
                    other,
                    place,
                    layer.name,
                )
    modules = [layer for layer in layers if isinstance(layer, nn.Module)]
    for place, layer in enumerate(modules):
        if any(layer is other for other in modules[:place]):
            kind = type(layer).__name__
            raise UserError("a layer ({}) is used in two places; expected one for each place", kind)
    found, counts = [], dict[str, int]()
    for layer in layers:
        if isinstance(layer, nn.Module) and not isinstance(layer, nn.Dropout):
            kind = SHORT.get(type(layer).__name__) or type(layer).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            if layer.name is None:
                while f"{kind}{counts[kind]}" in names:
                    counts[kind] += 1
                layer = layer.clone(name=f"{kind}{counts[kind]}")
        found.append(layer)
    return found


def kind_of(layer: object) -> Callable[..., Any]:
    """A layer's class, or the function itself; its __name__ says what the layer is."""
    kind: Any = layer if hasattr(layer, "__name__") else type(layer)  # Functions have a name.
    return kind


def layer_name(layer: Layer) -> str:
    """A layer's name; for a layer without parameters, the name of its function or class."""
    return getattr(layer, "name", None) or kind_of(layer).__name__


def shapes_of(layer: Layer, shape: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, Params]:
    """The shapes of a layer's output, and of its parameters by its name; nothing is computed.

    It is called as in an evaluation: with only its parameters.

    Args:
      layer: A layer of a chain.
      shape: The shape of its input, batch first.
    """
    alone, x = Chain([layer]), jax.ShapeDtypeStruct(shape, jnp.float32)

    def call(x: jax.Array) -> tuple[Any, Params]:
        params: Any = alone.init(jax.random.key(0), x).get("params", {})
        return alone.apply({"params": params}, x), params

    return jax.eval_shape(call, x)


def chains_of(layer: Layer) -> dict[str, Chain]:
    """The chains that a layer is made of, by the names of its fields; most layers have none."""
    if not isinstance(layer, nn.Module):
        return {}
    names = [field.name for field in dataclasses.fields(layer) if field.name != "parent"]
    fields = {name: getattr(layer, name) for name in names}
    return {name: value for name, value in fields.items() if isinstance(value, Chain)}


def walk(chain: Chain) -> Iterator[tuple[tuple[str, ...], Layer]]:
    """Every layer with its path among the parameters, in the order of the forward pass.

    The layers of a residual block come before the block.
    """
    for layer in chain.layers:
        here = getattr(layer, "name", None) or ""
        for name, inner in chains_of(layer).items():
            yield from (((here, name, *path), one) for path, one in walk(inner))
        yield (here,), layer


def has_layer(chain: Chain, kind: type[nn.Module]) -> bool:
    """Whether any layer is of this kind, such as nn.Conv."""
    return any(isinstance(layer, kind) for _, layer in walk(chain))


def map_chains(chain: Chain, change: Callable[[Chain], Chain]) -> Chain:
    """Returns the chain with `change` applied: first to the chains in its layers, then to itself.

    The layers' names stay.
    """
    layers = []
    for layer in chain.layers:
        inner: Any = {name: map_chains(one, change) for name, one in chains_of(layer).items()}
        layers.append(layer.clone(**inner) if isinstance(layer, nn.Module) and inner else layer)
    return change(Chain(layers))


def map_layers(chain: Chain, change: Callable[[Layer], Layer]) -> Chain:
    """Returns the chain with every layer changed, also those of residual blocks.

    The layers' names, and so the parameters' names, stay. A block is changed after its layers.
    """
    return map_chains(chain, lambda one: Chain([change(layer) for layer in one.layers]))


def apply_layer(layer: Layer, params: LayerParams, x: jax.Array) -> jax.Array:
    """The output of a single layer, as in an evaluation: dropout drops nothing."""
    if isinstance(layer, nn.Dropout):
        return x
    if isinstance(layer, nn.Module):
        layer = layer.clone(parent=None).bind({"params": params})
    return layer(x)
