"""The convolution: a dense layer that looks through a sliding window, that of `windows.py`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.linear import canonicalize_padding
from flax.typing import PaddingLike
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.rule import LayerRule, Params, Setting
from jaxnets.backprop.windows import Padding, Pads, Size, window_pads
from jaxnets.errors import UserError

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w K"]


def conv_forward(
    params: Params, x: Images, *, strides: Size = (1, 1), padding: Padding = "SAME", groups: int = 1
) -> tuple[Outputs, tuple[Images, Params]]:
    """Takes the inner product of every window with every filter, and adds the bias.

        z_bijk = sum_a,a',c X_b,(sh i + a - top),(sw j + a' - left),c W_aa'ck + b_k

    With groups, the input and output channels are cut into that many blocks, and output block g
    sees input block g only.

    Args:
      params: {"kernel": W [kh, kw, C / groups, K], "bias": b [K]}; "bias" may be missing.
      x: X.
      strides: (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).
      groups: How many blocks of channels work separately.

    Source: Krizhevsky et al. 2012, section 3.5, for the groups; the slides name the CNN only.
    """
    kernel = params["kernel"]
    pads = window_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    z = by_group(convolve, groups, x, kernel, strides, pads)
    if "bias" in params:
        z = z + params["bias"]
    return z, (x, params)


def conv_backward(
    cache: tuple[Images, Params],
    dz: Outputs,
    *,
    strides: Size,
    padding: Padding,
    groups: int,
    input_gradient: bool = True,
) -> tuple[Params, Images | None]:
    """Applies the chain rule to the convolution, which gives two more convolutions.

    In one dimension, for one block of channels, with X' the padded X:

        z_bik = sum_a,c X'_b,(s i + a),c W_ack + b_k

    W_ack meets X'_b,(s i + a),c in every example and at every place:

        dW_ack = sum_b,i X'_b,(s i + a),c dz_bik          [kh, C, K]

    which is a convolution of X with dz as its filter: its places are the offsets a, its window
    steps by s, and what it sums over, like channels, are the examples b.

    X'_buc meets W_ack wherever a window's element a stood on row u, that is s i + a = u. Let dz'
    be dz with s - 1 rows of zeros between its rows, so that dz'_b,(s i),k = dz_bik. Then

        dX'_buc = sum_a,k dz'_b,(u - a),k W_ack           [B, H', C]

    which is a convolution of dz' with the flipped W (a becomes kh - 1 - a), its input and output
    channels swapped. dX is dX' without the padding's rows.

        db_k = sum_b,i dz_bik                             [K]   every place shares the bias
    """
    x, params = cache
    kernel = params["kernel"]
    image, window = x.shape[1:3], kernel.shape[:2]
    pads = window_pads(image, window, strides, padding)
    d_params = {"kernel": by_group(kernel_gradient, groups, x, dz, window, strides, pads)}
    if "bias" in params:
        d_params = {**d_params, "bias": dz.sum((0, 1, 2))}
    if not input_gradient:
        return d_params, None
    return d_params, by_group(image_gradient, groups, dz, kernel, image, strides, pads)


def by_group(
    function: Callable[..., jax.Array],
    groups: int,
    a: jax.Array,
    b: jax.Array,
    *sizes: Size | Pads,
) -> jax.Array:
    """Joins what a function of two arrays and sizes gives for each group's channels."""
    blocks = zip(jnp.split(a, groups, axis=-1), jnp.split(b, groups, axis=-1), strict=True)
    return jnp.concatenate([function(*block, *sizes) for block in blocks], axis=-1)


def convolve(x: jax.Array, kernel: jax.Array, strides: Size, pads: Pads) -> jax.Array:
    """The convolution of one group: x [B, H, W, C], kernel [kh, kw, C, K] -> [B, h, w, K]."""
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def kernel_gradient(
    x: jax.Array, dz: jax.Array, window: Size, strides: Size, pads: Pads
) -> jax.Array:
    """The dW of one group: x [B, H, W, C], dz [B, h, w, K] -> [kh, kw, C, K]."""
    # X is padded so that the spread-out dz fits at just kh x kw places. A negative pad cuts off the
    # rows that no window reached.
    padding = [
        (low, k - 1 + reach - low - size)
        for k, reach, size, (low, _) in zip(
            window, _reaches(dz, strides), x.shape[1:3], pads, strict=True
        )
    ]
    return lax.conv_general_dilated(
        x,
        dz,
        window_strides=(1, 1),
        padding=padding,
        rhs_dilation=strides,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),  # C takes the batch's place, B the channels'
    )


def image_gradient(
    dz: jax.Array, kernel: jax.Array, image: Size, strides: Size, pads: Pads
) -> jax.Array:
    """The dX of one group: dz [B, h, w, K], kernel [kh, kw, C, K] -> [B, H, W, C]."""
    return lax.conv_general_dilated(
        dz,
        lax.rev(kernel, (0, 1)),
        window_strides=(1, 1),
        padding=image_gradient_pads(dz, kernel.shape[:2], image, strides, pads),
        lhs_dilation=strides,
        dimension_numbers=("NHWC", "HWOI", "NHWC"),  # OI: the kernel's channels are swapped
    )


def image_gradient_pads(
    dz: jax.Array, window: Size, image: Size, strides: Size, pads: Pads
) -> Pads:
    """The padding of the spread-out dz of which `image_gradient` is the convolution.

    The first row of X, which is row `top` of X', sees rows top - (kh - 1) to top of dz'. A negative
    pad cuts off what only the padding would see.
    """
    return [
        (k - 1 - low, size + low - reach)
        for k, reach, size, (low, _) in zip(window, _reaches(dz, strides), image, pads, strict=True)
    ]


def _reaches(dz: jax.Array, strides: Size) -> list[int]:
    """The rows and columns that dz spans when a stride lies between neighbours."""
    return [s * (places - 1) + 1 for s, places in zip(strides, dz.shape[1:3], strict=True)]


def _static(strides: Size | int | None, padding: PaddingLike, groups: int) -> dict[str, Any]:
    """`conv_forward`'s arguments from those of Flax, where a number stands for two, or of lax."""
    strides = strides or 1
    strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
    return {"strides": strides, "padding": canonicalize_padding(padding, 2), "groups": groups}


def _static_of(layer: nn.Conv) -> dict[str, Any]:
    dilated = any(
        np.any(np.asarray(d or 1) != 1) for d in (layer.input_dilation, layer.kernel_dilation)
    )
    if dilated or layer.mask is not None or np.size(layer.kernel_size) != 2:
        raise UserError(
            "expected a convolution without dilation or mask, in two dimensions, got "
            f"{layer.name or 'another'}"
        )
    return _static(layer.strides, layer.padding, layer.feature_group_count)


def _plain_convolution(
    params: Params, x: Images, *, strides: Size, padding: Padding, groups: int
) -> Outputs:
    filters, window = params["kernel"].shape[-1], params["kernel"].shape[:2]
    biased = "bias" in params
    layer = nn.Conv(filters, window, strides, padding, feature_group_count=groups, use_bias=biased)
    return layer.bind({"params": params})(x)


def setting_of(
    x: tuple[int, ...],
    window: tuple[int, int],
    filters: int,
    strides: Size = (1, 1),
    padding: PaddingLike = "SAME",
    groups: int = 1,
    biased: bool = True,
) -> Setting:
    """The setting of images of shape x, filtered by so many windows."""
    params = {"kernel": (*window, x[-1] // groups, filters)}
    params |= {"bias": (filters,)} if biased else {}
    return Setting(x, params, static=_static(strides, padding, groups))


CONV = LayerRule(
    forward=conv_forward,
    backward=conv_backward,
    plain=_plain_convolution,
    settings=[
        setting_of((2, 5, 5, 2), (3, 3), 3),
        setting_of((1, 1, 1, 1), (1, 1), 1),
        setting_of((2, 7, 6, 2), (3, 2), 4, strides=(2, 3), padding="VALID"),
        setting_of((2, 6, 6, 2), (4, 3), 3),
        setting_of((2, 8, 7, 9), (3, 4), 4, strides=(2, 2)),
        setting_of((1, 6, 5, 3), (2, 3), 2, padding=((2, 1), (0, 3)), biased=False),
        setting_of((2, 8, 8, 5), (3, 3), 2, strides=(3, 3), padding="VALID"),
        setting_of((40, 5, 5, 6), (3, 3), 6),
        setting_of((2, 5, 6, 4), (3, 2), 6, groups=2),
        setting_of((3, 6, 6, 20), (3, 3), 8, groups=4),
        setting_of((2, 7, 5, 18), (3, 3), 6, groups=2, strides=(2, 2)),
        setting_of((2, 5, 5, 3), (2, 2), 3, groups=3, padding="VALID", biased=False),
        setting_of((1, 19, 19, 3), (11, 11), 4, strides=(4, 4), padding=2),
    ],
    inputs=("params", "x"),
    static=_static_of,
)
