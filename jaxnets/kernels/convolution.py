"""Convolutions on a CPU: few channels by one matrix product, many by Winograd's algorithm."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.backprop import convolution as pair
from jaxnets.backprop.convolution import CONV, Images, Outputs, by_group
from jaxnets.backprop.rule import Domain, Params, Setting
from jaxnets.backprop.rules import register_rule
from jaxnets.backprop.windows import Padding, Pads, Size, window_pads, window_slices
from jaxnets.kernels import winograd
from jaxnets.kernels.by_rule import ConvByRule, is_plain_conv, with_kind
from jaxnets.kernels.kernel import Kernel, product_of_rows, stored
from jaxnets.kernels.winograd import LIMITS, SMALL, Limits
from jaxnets.models.chain import Layer

SMALL_WINDOW = 32  # numbers in a window; a first layer on grey images has 9
# By window: the number of channels from which Winograd's algorithm is faster
# (benchmarks/winograd.py).
FEWEST_CHANNELS: dict[Size, int] = {(3, 3): 128, (5, 5): 64}


class FastConv(ConvByRule):
    """A Flax convolution on a CPU."""

    limits: Limits = LIMITS  # Those of Winograd's algorithm.


def fast_conv_forward(
    params: Params,
    x: Images,
    *,
    strides: Size,
    padding: Padding,
    groups: int,
    limits: Limits = LIMITS,
) -> tuple[Outputs, tuple[Images, Params]]:
    """Returns what `conv_forward` returns; each group is computed in its fastest form."""
    kernel = params["kernel"]
    pads = window_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    convolve = partial(_convolve, limits=limits)
    z = by_group(convolve, groups, x, kernel, strides, pads)
    if "bias" in params:
        z = z + params["bias"]
    return z, (x, params)


def fast_conv_backward(
    cache: tuple[Images, Params],
    dz: Outputs,
    *,
    strides: Size,
    padding: Padding,
    groups: int,
    limits: Limits = LIMITS,
    input_gradient: bool = True,
) -> tuple[Params, Images | None]:
    """Returns what `conv_backward` returns; each gradient is computed in its fastest form."""
    x, params = cache
    # All three gradients read dz: without the barrier XLA computes it anew for some of them. If its
    # sum for the bias is the only one (examples/cifar94.py), XLA stores all factors of dz instead.
    dz = lax.optimization_barrier(dz) if input_gradient else stored(lambda dz: dz + 0, dz)
    kernel = params["kernel"]
    image, window = x.shape[1:3], kernel.shape[:2]
    pads = window_pads(image, window, strides, padding)
    kernel_gradient = partial(_kernel_gradient, limits=limits)
    d_params = {"kernel": by_group(kernel_gradient, groups, x, dz, window, strides, pads)}
    if "bias" in params:
        d_params = {**d_params, "bias": dz.sum((0, 1, 2))}
    if not input_gradient:
        return d_params, None
    image_gradient = partial(_image_gradient, limits=limits)
    return d_params, by_group(image_gradient, groups, dz, kernel, image, strides, pads)


def _is_small(window: Size, channels: int) -> bool:
    """Whether one matrix product with the windows laid out in rows beats XLA's convolution."""
    return window[0] * window[1] * channels <= SMALL_WINDOW


def _is_wide(
    x: jax.Array, window: Size, features: int, strides: Size, pads: Pads, limits: Limits
) -> bool:
    """Whether Winograd's algorithm beats XLA's convolution: with many channels and tiles."""
    if tuple(window) not in FEWEST_CHANNELS:
        return False
    many = limits.fewest_channels or FEWEST_CHANNELS[tuple(window)]
    is_wide = min(x.shape[-1], features) >= many
    return is_wide and winograd.is_faster(x, window, strides, pads, limits)


def _window_rows(x: jax.Array, window: Size, strides: Size, pads: Pads) -> jax.Array:
    """Lays the windows out in rows (im2col): [B, h, w, kh kw C]."""
    return jnp.concatenate(window_slices(x, window, strides, pads, fill=0), axis=-1)


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Size, pads: Pads, *, limits: Limits
) -> jax.Array:
    kh, kw, channels, features = kernel.shape
    if _is_small((kh, kw), channels):
        rows = _window_rows(x, (kh, kw), strides, pads)
        return rows @ kernel.reshape(kh * kw * channels, features)
    if _is_wide(x, (kh, kw), features, strides, pads, limits):
        return winograd.convolve(x, kernel, pads, limits)
    return pair.convolve(x, kernel, strides, pads)


def _kernel_gradient(
    x: jax.Array, dz: jax.Array, window: Size, strides: Size, pads: Pads, *, limits: Limits
) -> jax.Array:
    channels, features = x.shape[-1], dz.shape[-1]
    if _is_small(window, channels):
        rows = _window_rows(x, window, strides, pads)
        return product_of_rows(rows, dz).reshape(*window, channels, features)
    if _is_wide(x, window, features, strides, pads, limits):
        return winograd.kernel_gradient(x, dz, window, pads, limits)
    # XLA transposes x. The barrier keeps the layers before, such as a batch norm and a GELU, out of
    # that loop: 5 ms in place of 38 (conv3 of examples/cifar94.py; python benchmarks/cifar94.py).
    return pair.kernel_gradient(lax.optimization_barrier(x), dz, window, strides, pads)


def _image_gradient(
    dz: jax.Array, kernel: jax.Array, image: Size, strides: Size, pads: Pads, *, limits: Limits
) -> jax.Array:
    window = kernel.shape[:2]
    padding = pair.image_gradient_pads(dz, window, image, strides, pads)
    if _is_wide(dz, window, kernel.shape[2], strides, padding, limits):
        flipped = lax.rev(kernel, (0, 1)).swapaxes(2, 3)
        return winograd.convolve(dz, flipped, padding, limits)
    return pair.image_gradient(dz, kernel, image, strides, pads)


def _drawn_setting(wide: tuple[tuple[int, int], Size, int] | None, **sizes: object) -> Setting:
    """A setting of `CONV`, or a wide one for Winograd's algorithm: (window, outputs, images).

    Its channels and filters are around the fewest for which the algorithm is used in checks. With
    square outputs there are as many filters as channels: a wrong axis then has the right shape.
    """
    narrow = pair.DOMAIN.setting(**sizes)
    if wide is None:
        return narrow
    window, outputs, batch = wide
    fewest = SMALL.fewest_channels or 0
    channels, filters = (fewest - 2 + min(size, 5) for size in narrow.params["kernel"][2:])
    filters = channels if outputs[0] == outputs[1] else filters
    return pair.setting_of((batch, *outputs, channels), window, filters)


FAST_CONV = CONV._replace(
    name="fast_conv",
    layer=FastConv,
    forward=fast_conv_forward,
    backward=fast_conv_backward,
    static=lambda layer: {**CONV.static(layer), "limits": layer.limits},
    settings=[
        *CONV.settings,
        # Uses Winograd's algorithm; the last tiles reach over the edge.
        pair.setting_of((16, 9, 8, 128), (3, 3), 128, padding=((0, 1), (2, 1))),
    ],
    domain=Domain(
        _drawn_setting,
        {
            **pair.DOMAIN.ranges,
            # Just too few tiles, and just enough; outputs that tiles do not divide; tiles of 3x3 to
            # 6x6 outputs; images that blocks do not divide.
            "wide": (
                *28 * (None,),
                ((3, 3), (3, 3), 3),
                ((3, 3), (3, 3), 130),
                ((3, 3), (4, 4), 5),
                ((3, 3), (5, 7), 7),
                ((3, 3), (6, 6), 23),
                ((5, 5), (2, 2), 4),
                ((5, 5), (7, 4), 17),
                ((5, 5), (4, 8), 9),
            ),
        },
        draws=36,  # Each of them once.
    ),
)
register_rule(FAST_CONV)


def _replace(layer: Layer) -> list[Layer] | None:
    return [with_kind(FastConv, layer)] if is_plain_conv(layer) else None


KERNEL = Kernel(
    run=1,
    replace=_replace,
    rule=FAST_CONV,
    pair=CONV,
    benchmark="python benchmarks/winograd.py; python benchmarks/step.py",
    in_checks={"limits": SMALL},
)
