"""From images to rows."""

from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.models.layers import flatten


def flatten_forward(
    x: Float[Array, "B *sizes"],
) -> tuple[Float[Array, "B D"], Float[Array, "0 *sizes"]]:
    """Writes each example's numbers in one row, so that a dense layer can follow.

    Args:
      x: Usually images.

    Returns:
      The rows, and the cache for `flatten_backward`: an empty array that remembers the shape.
    """
    return x.reshape(x.shape[0], -1), x[:0]


def flatten_backward(
    cache: Float[Array, "0 *sizes"], d_out: Float[Array, "B D"]
) -> Float[Array, "B *sizes"]:
    """Puts the gradient back into the shape of x; no number has changed.

    Args:
      cache: From `flatten_forward`.
      d_out: The rows' gradient.

    Returns:
      dx.
    """
    return d_out.reshape(-1, *cache.shape[1:])


FLATTEN = LayerRule(
    name="flatten",
    layer=flatten,
    forward=flatten_forward,
    backward=flatten_backward,
    plain=lambda x: lax.collapse(x, 1),
    settings=[Setting((2, 3, 4, 5)), Setting((1, 2)), Setting((3, 2, 2, 1))],
)
