"""A dense layer whose input's last columns are often 0 in every example: black pixels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.backprop.dense import Params, dense_backward, dense_forward


def with_nonzero_columns(
    forward: Callable[..., Any], backward: Callable[..., Any], widths: Sequence[int]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same pair, multiplying by as few of X's first columns as hold all but its zeros.

    Where column d of X is 0, row d of W adds nothing to X W, and row d of dW = Xᵀ dz is 0. On
    MNIST, sorted as by `training.nonzero_pixels`, the hand-written network's step takes 0.7 of the
    time (AMD EPYC, jaxlib 0.10.2; benchmarks/dense_epoch.py mlp_handwritten).

    Args:
      forward: `dense_forward` or `dense_with_ones_forward`.
      backward: The other half.
      widths: The numbers of columns to choose from, ascending; the last is D.
    """

    def first(params: Params, x: jax.Array, width: int) -> tuple[Params, jax.Array]:
        kernel = params["kernel"]
        rows = jnp.concatenate([kernel[:width], kernel[x.shape[1] :]])  # A row of biases stays.
        return {**params, "kernel": rows}, x[:, :width]

    def lit_forward(params: Params, x: jax.Array):
        def z(width: int) -> jax.Array:
            return forward(*first(params, x, width))[0]

        return _by_width(z, x, widths), (params, x)

    def lit_backward(cache, dz: jax.Array, *, input_gradient: bool = True):
        params, x = cache

        def d_params(width: int) -> Params:
            _, cut = forward(*first(params, x, width))
            d, _ = backward(cut, dz, input_gradient=False)
            black = jnp.zeros((x.shape[1] - width, dz.shape[1]), dz.dtype)
            kernel = jnp.concatenate([d["kernel"][:width], black, d["kernel"][width:]])
            return {**d, "kernel": kernel}

        dx = backward(forward(params, x)[1], dz)[1] if input_gradient else None
        return _by_width(d_params, x, widths), dx

    return lit_forward, lit_backward


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def nonzero_product(widths: Sequence[int], x: jax.Array, kernel: jax.Array) -> jax.Array:
    """X W by as few columns, differentiated by the rule derived here: [B, D], [D, K] -> [B, K]."""
    return _nonzero_product_forward(widths, x, kernel)[0]


def _nonzero_product_forward(widths: Sequence[int], x: jax.Array, kernel: jax.Array):
    forward, _ = with_nonzero_columns(dense_forward, dense_backward, widths)
    return forward({"kernel": kernel}, x)


def _nonzero_product_backward(widths: Sequence[int], cache, dz: jax.Array):
    _, backward = with_nonzero_columns(dense_forward, dense_backward, widths)
    d_params, dx = backward(cache, dz)
    return dx, d_params["kernel"]


nonzero_product.defvjp(_nonzero_product_forward, _nonzero_product_backward)


def _by_width(function: Callable[[int], Any], x: jax.Array, widths: Sequence[int]) -> Any:
    """function(width) of the smallest of the widths that has all of x but zeros."""
    used = jnp.max(jnp.where((x != 0).any(axis=0), jnp.arange(1, x.shape[1] + 1), 0))
    # A branch each for this one product, not for the step: it compiles in 1.2 s instead of 3.4 s.
    choice = jnp.sum(used > jnp.array(widths[:-1]))
    return lax.switch(choice, [partial(function, width) for width in widths])
