"""From images to rows."""

from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule, Setting

Images = Float[Array, "B *sizes"]
Rows = Float[Array, "B D"]
Shape = Float[Array, "0 *sizes"]  # An empty array remembers it.


def flatten_forward(x: Images) -> tuple[Rows, Shape]:
    """Writes each example's numbers in one row, so that a dense layer can follow."""
    return x.reshape(x.shape[0], -1), x[:0]


def flatten_backward(cache: Shape, d_out: Rows) -> Images:
    """Puts the gradient back into the shape of x; no number has changed."""
    return d_out.reshape(-1, *cache.shape[1:])


FLATTEN = LayerRule(
    forward=flatten_forward,
    backward=flatten_backward,
    plain=lambda x: lax.collapse(x, 1),
    settings=[Setting((2, 3, 4, 5)), Setting((1, 2)), Setting((3, 2, 2, 1))],
)
