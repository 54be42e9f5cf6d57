"""The residual block: a chain of layers learns what to add to its input.

    y = F(x) + S(x)       F: a chain of layers; S: the shortcut, by default S(x) = x

Its parameters are those of its chains: params["residual1"]["chain"]["conv1"]["kernel"]. Source:
He et al. 2015, "Deep Residual Learning for Image Recognition", section 3.2.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxnets.base.described import Described, size_text
from jaxnets.base.errors import UserError
from jaxnets.models.chain import Chain, Layer


class Residual(Described, nn.Module):
    """y = chain(x) + shortcut(x); without a shortcut y = chain(x) + x.

    >>> Residual([nn.Conv(16, (3, 3)), nn.relu, nn.Conv(16, (3, 3))])
    Residual(chain=Chain(layers=['conv1', 'relu', 'conv2']), shortcut=None)
    """

    chain: Chain | Sequence[Layer]  # A list of layers becomes a chain.
    shortcut: Chain | Sequence[Layer] | None = None

    def __post_init__(self) -> None:
        for field in ("chain", "shortcut"):
            layers = getattr(self, field)
            if layers is not None and not isinstance(layers, Chain):
                setattr(self, field, Chain(layers))
        super().__post_init__()

    def __call__(
        self,
        x: Float[Array, "B *sizes"],
        *,
        train: bool = False,
        mask: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B *outputs"]:
        """The sum of both branches, which take train and mask as the network's chain does.

        Raises:
          UserError: The branches' outputs differ in shape.
        """
        chain: Any = self.chain
        shortcut: Any = self.shortcut
        y = chain(x, train=train, mask=mask)
        return added(y, x if shortcut is None else shortcut(x, train=train, mask=mask))

    def _repr_fields(self) -> dict[str, Any]:
        return {"chain": self.chain, "shortcut": self.shortcut}


def added(ours: jax.Array, theirs: jax.Array) -> jax.Array:
    """The sum of two arrays of one shape."""
    if ours.shape != theirs.shape:
        sizes = [size_text(branch.shape[1:]) for branch in (ours, theirs)]
        raise UserError(
            "a residual block adds equal shapes: its chain gives {} and its shortcut {}; a "
            "shortcut such as a 1x1 convolution gives the chain's shape",
            sizes[0],
            sizes[1],
        )
    return ours + theirs
