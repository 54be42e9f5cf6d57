"""The convolution: a dense layer that looks through the sliding window of `windows.py`."""

import math
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

from jaxnets.backprop.rule import BATCHES, Domain, LayerRule, Params, Setting
from jaxnets.backprop.windows import (
    BEYOND,
    STRIDES,
    WINDOWS,
    Padding,
    Pads,
    Size,
    window_pads,
)
from jaxnets.base.errors import UserError
from jaxnets.models.chain import Layer

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w K"]


def conv_forward(
    params: Params, x: Images, *, strides: Size = (1, 1), padding: Padding = "SAME", groups: int = 1
) -> tuple[Outputs, tuple[Images, Params]]:
    """Takes the inner product of every window with every filter, and adds the bias.

        z_bijk = sum_a,a',c X_b,(sh i + a - top),(sw j + a' - left),c W_aa'ck + b_k

    With groups, the input and output channels are cut into that many blocks, and output block g
    sees only input block g.

    Args:
      params: {"kernel": W [kh, kw, C / groups, K], "bias": b [K]}; "bias" may be missing.
      x: X.
      strides: (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).
      groups: The number of blocks of channels that work separately.

    Source: Krizhevsky et al. 2012, section 3.5, for the groups; the slides only name the CNN.
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

    X'_buc meets W_ack wherever a window's element a was on row u: s i + a = u. Let dz' be dz with
    s - 1 rows of zeros between its rows, so dz'_b,(s i),k = dz_bik. Then

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
    x, pads, _ = cut(x, pads)
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
    x, padding, _ = cut(x, padding)
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
    padding = image_gradient_pads(dz, kernel.shape[:2], image, strides, pads)
    dz, padding, spread = cut(dz, padding, strides)
    return lax.conv_general_dilated(
        dz,
        lax.rev(kernel, (0, 1)),
        window_strides=(1, 1),
        padding=padding,
        lhs_dilation=spread,
        dimension_numbers=("NHWC", "HWOI", "NHWC"),  # OI: the kernel's channels are swapped
    )


def image_gradient_pads(
    dz: jax.Array, window: Size, image: Size, strides: Size, pads: Pads
) -> Pads:
    """The padding of the spread-out dz that `image_gradient` convolves.

    The first row of X, which is row `top` of X', sees rows top - (kh - 1) to top of dz'. A negative
    pad cuts off what only the padding would see.
    """
    return [
        (k - 1 - low, size + low - reach)
        for k, reach, size, (low, _) in zip(window, _reaches(dz, strides), image, pads, strict=True)
    ]


def cut(x: jax.Array, pads: Pads, spread: Size = (1, 1)) -> tuple[jax.Array, Pads, Size]:
    """Cuts off what a negative pad at the top or the left would cut, before the convolution.

    XLA's own convolution in float32 on a CPU reads memory in front of x there, which is not x's
    (jaxlib 0.10.2): dX reached 1e37 where the padding was larger than the window.

    Args:
      x: Images, or dz [B, H, W, C].
      pads: ((top, bottom), (left, right)).
      spread: How many rows and columns apart the convolution takes x's to be.

    Returns:
      The images, pads and spread with which it computes the same.
    """
    if min(low for low, _ in pads) >= 0:
        return x, pads, spread
    return _padded(x, pads, spread), ((0, 0), (0, 0)), (1, 1)


def _padded(x: jax.Array, pads: Pads, spread: Size) -> jax.Array:
    """Spreads the rows and columns of images, then pads with zeros, or cuts, each side."""
    config = [(low, high, apart - 1) for (low, high), apart in zip(pads, spread, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def _reaches(dz: jax.Array, strides: Size) -> list[int]:
    """The rows and columns that dz spans when neighbours are a stride apart."""
    return [s * (places - 1) + 1 for s, places in zip(strides, dz.shape[1:3], strict=True)]


def _static(strides: Size | int | None, padding: PaddingLike, groups: int) -> dict[str, Any]:
    """`conv_forward`'s arguments from those of lax, or of Flax, where one number may mean two."""
    strides = strides or 1
    strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
    return {"strides": strides, "padding": canonicalize_padding(padding, 2), "groups": groups}


def _static_of(layer: nn.Conv) -> dict[str, Any]:
    dilated = any(
        np.any(np.asarray(d or 1) != 1) for d in (layer.input_dilation, layer.kernel_dilation)
    )
    if dilated or layer.mask is not None or np.size(layer.kernel_size) != 2:
        raise UserError(
            "expected a convolution without dilation or mask, in two dimensions, got {}",
            layer.name or "another",
        )
    return _static(layer.strides, layer.padding, layer.feature_group_count)


def _fields_of(layer: nn.Conv, shape: tuple[int, ...]) -> dict[str, Any]:
    """The layer's settings as numbers, with its padding for images of [H, W, C]."""
    static, window = _static_of(layer), np.ravel(layer.kernel_size).tolist()
    padding = window_pads(shape[:2], window, static["strides"], static["padding"])
    if np.min(padding) < 0:
        raise UserError("its padding is negative")
    settings = {"kernel_size": window, "strides": static["strides"], "padding": padding}
    return {**settings, "feature_group_count": static["groups"]}


def padded_first(
    x: jax.Array, kernel: jax.Array, strides: Size, padding: str | Pads, **others: object
) -> jax.Array:
    """The convolution of lax, of images that get their padding first: for a plain layer.

    Neither it nor its gradient by autodiff then has the negative pads that `cut` avoids.
    """
    if not isinstance(padding, str):
        x, padding = _padded(x, padding, (1,) * len(padding)), "VALID"
    given: Any = others
    return lax.conv_general_dilated(x, kernel, strides, padding, **given)


def with_padding_first(layer: Layer) -> Layer:
    """The same layer; a Flax convolution that XLA may get wrong becomes one by `padded_first`.

    XLA gets a negative pad if the layer has one, and in the image's gradient, whose low pad is
    k - 1 - top, if the layer's is larger than that.
    """
    if not isinstance(layer, nn.Conv) or isinstance(layer.padding, str):
        return layer
    window = np.ravel(layer.kernel_size)
    pads: Any = canonicalize_padding(layer.padding, len(window))
    if all(0 <= low < k for (low, _), k in zip(pads, window, strict=True)):
        return layer
    return layer.clone(conv_general_dilated=padded_first)


def _plain_convolution(
    params: Params, x: Images, *, strides: Size, padding: Padding, groups: int
) -> Outputs:
    layer = nn.Conv(
        features=params["kernel"].shape[-1],
        kernel_size=params["kernel"].shape[:2],
        strides=strides,
        padding=padding,
        feature_group_count=groups,
        use_bias="bias" in params,
        conv_general_dilated=padded_first,
    )
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
    """The setting of images of shape x and so many filters of this window."""
    params = {"kernel": (*window, x[-1] // groups, filters)}
    params |= {"bias": (filters,)} if biased else {}
    return Setting(x, params, static=_static(strides, padding, groups))


def _drawn_setting(
    batch: int,
    window: tuple[int, int],
    strides: Size,
    beyond: Size,
    padding: Padding,
    channels: int,
    filters: int,
    groups: int,
    biased: bool,
) -> Setting:
    """The setting of images that are larger than the window by so many rows and columns.

    Args:
      batch: The number of images.
      window: The window's rows and columns.
      strides: The strides along rows and columns.
      beyond: The rows and columns of the padded image beyond one window's; with SAME, of the image
        beyond one pixel, so a window may be larger than the image.
      padding: "SAME", "VALID" or pairs.
      channels: The channels of a group.
      filters: The filters of a group.
      groups: The number of groups; many filters stay in one group.
      biased: Whether there is a bias.
    """
    pads: Any = ((0, 0), (0, 0)) if padding == "VALID" else padding
    if padding == "SAME":
        image = [1 + more for more in beyond]
    else:
        sizes = zip(window, beyond, pads, strict=True)
        image = [max(1, k + more - low - high) for k, more, (low, high) in sizes]
    (top, bottom), (left, right) = window_pads(image, window, strides, padding)
    padded = (image[0] + top + bottom, image[1] + left + right)
    places = [(n - k) // s + 1 for n, k, s in zip(padded, window, strides, strict=True)]
    # XLA aborts the process at some strided convolutions whose gradient has no more places than a
    # window that is not square: 4 x 4 pixels, window (2, 3), stride 2 (stock JAX too, 0.10.2).
    if window[0] != window[1] and math.prod(places) <= math.prod(window):
        strides = (1, 1)
    groups = groups if filters <= 9 else 1
    x = (batch, *image, channels * groups)
    return setting_of(x, window, filters * groups, strides, padding, groups, biased)


RANGES = {
    "batch": BATCHES,
    "window": WINDOWS,
    "strides": STRIDES,
    "beyond": BEYOND,
    "padding": (
        *2 * ("SAME", "VALID"),
        ((1, 1), (1, 1)),
        ((2, 0), (0, 1)),
        ((0, 2), (3, 1)),
        ((-1, 0), (0, -1)),
    ),
    "channels": (1, 1, 2, 2, 3, 5, 9),
    "filters": (1, 2, 2, 3, 5, 9, 130),
    "groups": (1, 1, 2, 3),
    "biased": (True, True, False),
}
# Three ranges together make a border, so it has the most draws.
DOMAIN = Domain(_drawn_setting, RANGES, draws=64)
CONV = LayerRule(
    name="conv",
    layer=nn.Conv,
    fields=_fields_of,
    forward=conv_forward,
    backward=conv_backward,
    plain=_plain_convolution,
    settings=[
        setting_of((2, 5, 5, 2), (3, 3), 3),
        setting_of((2, 6, 6, 3), (4, 3), 3),  # SAME is lopsided for an even window.
        setting_of((3, 6, 6, 20), (3, 3), 8, groups=4),
        setting_of((1, 19, 19, 3), (11, 11), 4, strides=(4, 4), padding=2),  # AlexNet's first.
        # Only padding in some windows; and images that are cut (`cut`): not zeros around X.
        setting_of((8, 3, 1, 2), (3, 2), 2, padding=((3, 1), (3, 0)))._replace(taught=False),
        setting_of((8, 6, 5, 2), (3, 3), 2, padding=((-1, 1), (0, -2)))._replace(taught=False),
    ],
    inputs=("params", "x"),
    static=_static_of,
    domain=DOMAIN,
)
