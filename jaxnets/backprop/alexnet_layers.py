"""AlexNet's layers: the adaptive average pool, and normalization across neighbouring channels."""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import BATCHES, PLACES, WIDTHS, Domain, LayerRule, Setting
from jaxnets.backprop.windows import Size
from jaxnets.models.alexnet_layers import (
    AdaptiveAveragePool,
    Enlarge,
    LocalResponseNorm,
    Normalize,
    averaging_matrices,
)

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w C"]
Shape = Float[Array, "0 H W C"]  # An empty array remembers it.
Numbers = Float[Array, "*sizes C"]
Cache = tuple[Numbers, Numbers]  # x and the sums of squares


def adaptive_average_pool_forward(x: Images, *, output_size: Size) -> tuple[Outputs, Shape]:
    """Averages over windows that are chosen so that h x w of them cover the image.

    Row i of the output averages the rows floor(i H / h) up to, not including, ceil((i + 1) H / h).
    As a matrix R [h, H] with 1/(number of rows) in those places, and likewise S [w, W] for columns:

        y_bijc = sum_u,v R_iu S_jv X_buvc

    Source: torch.nn.AdaptiveAvgPool2d, which torchvision's AlexNet puts before its dense layers.
    """
    rows, columns = averaging_matrices(output_size, x.shape[1:3], x.dtype)
    return jnp.einsum("iu,jv,buvc->bijc", rows, columns, x), x[:0]


def adaptive_average_pool_backward(cache: Shape, d_out: Outputs, *, output_size: Size) -> Images:
    """Applies the chain rule to y_bijc = sum_u,v R_iu S_jv X_buvc.

    dX_buvc = sum_i,j R_iu S_jv d_out_bijc       the same matrices, transposed
    """
    rows, columns = averaging_matrices(output_size, cache.shape[1:3], cache.dtype)
    return jnp.einsum("iu,jv,bijc->buvc", rows, columns, d_out)


def _plain_adaptive_average_pool(x: Images, output_size: Size) -> Outputs:
    def parts(size: int, places: int) -> list[slice]:
        return [slice(i * size // places, -(-(i + 1) * size // places)) for i in range(places)]

    rows, columns = map(parts, x.shape[1:3], output_size)
    cells = [x[:, row, column].mean((1, 2)) for row in rows for column in columns]
    return jnp.stack(cells, axis=1).reshape(len(x), *output_size, x.shape[-1])


def _adaptive(batch: int, image: Size, channels: int, output_size: Size) -> Setting:
    return Setting((batch, *image, channels), static={"output_size": output_size})


ADAPTIVE_AVERAGE_POOL = LayerRule(
    name="adaptive_average_pool",
    layer=AdaptiveAveragePool,
    fields=("size",),
    forward=adaptive_average_pool_forward,
    backward=adaptive_average_pool_backward,
    plain=_plain_adaptive_average_pool,
    settings=[_adaptive(2, (7, 5), 3, (3, 2)), _adaptive(2, (4, 4), 3, (4, 4))],
    static=lambda layer: {"output_size": (layer.size, layer.size)},
    domain=Domain(
        _adaptive,
        {
            "batch": BATCHES,
            "image": ((1, 1), (2, 2), (2, 3), (3, 2), (4, 4), (5, 9), (6, 6), (7, 5), (9, 4)),
            "channels": WIDTHS,
            "output_size": ((1, 1), (1, 2), (2, 2), (3, 3), (2, 5), (4, 4), (5, 2), (6, 6)),
        },
        draws=24,
    ),
)


def local_response_norm_forward(
    x: Numbers, *, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> tuple[Numbers, Cache]:
    """Dampens a channel where its neighbours are strong: y_i = x_i / s_i^β.

        s_i = k + α sum over j in N(i) of x_j²

    N(i) is the set of the n channels around i, cut off at the first and the last. (PyTorch and
    Caffe divide their α by n.)

    Args:
      x: The input.
      k: The offset, above 0 so that channels of zeros are not divided by 0.
      n: The number of neighbouring channels, the channel itself included.
      alpha: α, the weight of the squares.
      beta: β, the exponent.

    Source: Krizhevsky et al. 2012, section 3.3.
    """
    squares = sum_neighbours(x**2, below=n // 2, above=(n - 1) // 2)
    return x * (k + alpha * squares) ** -beta, (x, squares)


def local_response_norm_backward(
    cache: Cache,
    dy: Numbers,
    *,
    k: float = 2.0,
    n: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Numbers:
    """Applies the chain rule to y_i = x_i s_i^-β.

    x_j reaches y_j directly. Through s_i it reaches every y_i whose neighbourhood contains j:

        ∂s_i/∂x_j = 2 α x_j                            for j in N(i)
        ∂y_i/∂x_j = 1[i = j] s_i^-β - β x_i s_i^(-β - 1) 2 α x_j
        dx_j = dy_j s_j^-β - 2 α β x_j sum over i with j in N(i) of dy_i x_i s_i^(-β - 1)
    """
    x, squares = cache
    s = k + alpha * squares
    # N(i) reaches n // 2 channels down, so i is found up to n // 2 channels above j.
    shared = sum_neighbours(dy * x * s ** (-beta - 1), below=(n - 1) // 2, above=n // 2)
    return dy * s**-beta - 2 * alpha * beta * x * shared


def sum_neighbours(v: jax.Array, below: int, above: int) -> jax.Array:
    """Sums each channel with those `below` and `above` it."""
    channels = v.shape[-1]
    padded = jnp.pad(v, [(0, 0)] * (v.ndim - 1) + [(below, above)])
    shifted = [
        lax.slice_in_dim(padded, start, start + channels, axis=-1)
        for start in range(below + above + 1)
    ]
    return reduce(jnp.add, shifted)


STRONG = {"k": 1.0, "alpha": 0.1, "beta": 0.5}  # weighs more than the paper's constants


def _response(batch: int, places: tuple[int, ...], channels: int, **static: float) -> Setting:
    return Setting((batch, *places, channels), static=static)


LOCAL_RESPONSE_NORM = LayerRule(
    name="local_response_norm",
    layer=LocalResponseNorm,
    fields=("k", "n", "alpha", "beta"),
    forward=local_response_norm_forward,
    backward=local_response_norm_backward,
    plain=lambda x, **static: LocalResponseNorm(**static)(x),
    settings=[
        Setting((2, 3, 3, 7)),  # The paper's constants.
        Setting((2, 2, 2, 6), static={**STRONG, "n": 4}),
        Setting((3, 2), static=STRONG),  # More neighbours than channels.
    ],
    static=vars,
    domain=Domain(
        _response,
        {
            "batch": BATCHES,
            "places": PLACES,
            "channels": WIDTHS,
            "k": (0.5, 1.0, 2.0, 4.0),
            "n": range(1, 10),
            "alpha": (1e-4, 0.02, 0.1, 0.3, 1.0),
            "beta": (0.1, 0.5, 0.75, 1.0, 1.75, 2.5),
        },
    ),
)


def scaling_backward(cache: object, dy: Images, **static: object) -> None:
    """Returns no gradient: the layer comes before every parameter."""
    return None


def _scaling(name: str, layer: type[Enlarge] | type[Normalize], *fields: str) -> LayerRule:
    return LayerRule(
        name=name,
        layer=layer,
        fields=fields,
        forward=lambda x, **static: (layer(**static)(x), ()),
        backward=scaling_backward,
        plain=lambda x, **static: layer(**static)(x),
        static=vars,
    )


ENLARGE = _scaling("enlarge", Enlarge, "size")
NORMALIZE = _scaling("normalize", Normalize, "mean", "std")
