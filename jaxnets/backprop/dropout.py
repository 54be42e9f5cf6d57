"""Dropout, for training only."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxnets.backprop.rule import BATCHES, PLACES, WIDTHS, Domain, LayerRule, Setting
from jaxnets.base.errors import UserError

Numbers = Float[Array, "*sizes"]
Mask = Bool[Array, "*sizes"]
Rate = float | np.floating  # The mask is drawn in its precision.


def dropout_forward(key: Key[Array, ""], x: Numbers, *, rate: Rate) -> tuple[Numbers, Mask]:
    """Sets each number to 0 with probability `rate` and scales up the rest.

        y = m x / (1 - rate),   m = 1 with probability 1 - rate, else 0

    The scale keeps the mean of y at x, so evaluation needs no dropout at all. The mask m, which is
    the cache, is the one that flax.linen.Dropout draws from the same key.

    Raises:
      ValueError: The rate is not a probability.

    Source: Krizhevsky et al. 2012, section 4.2 (which scales in evaluation instead).
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: expected a probability between 0 and 1, got {rate}")
    kept = jax.random.bernoulli(key, 1 - rate, x.shape) if rate else jnp.ones(x.shape, bool)
    return _drop_and_scale(kept, x, rate), kept


def dropout_backward(cache: Mask, d_out: Numbers, *, rate: Rate) -> Numbers:
    """Applies the chain rule to y = m x / (1 - rate).

    dx = m dy / (1 - rate)     the mask is a constant, so the same numbers become 0
    """
    return _drop_and_scale(cache, d_out, rate)


def _drop_and_scale(kept: jax.Array, v: jax.Array, rate: Rate) -> jax.Array:
    """Zeroes what is not kept and scales the rest; at rate 1 nothing is kept."""
    return jnp.where(kept, v / (1 - rate), 0)


def _static(layer: nn.Dropout) -> dict[str, Any]:
    if layer.broadcast_dims:
        got = layer.broadcast_dims
        raise UserError("Dropout: expected no broadcast_dims for gradients by hand, got {}", got)
    return {"rate": layer.rate}


def _setting(batch: int, places: tuple[int, ...], width: int, rate: float) -> Setting:
    return Setting((batch, *places, width), static={"rate": rate})


DROPOUT = LayerRule(
    name="dropout",
    layer=nn.Dropout,
    fields=("rate",),
    exported=lambda row, arrays: None,  # It drops nothing after training.
    forward=dropout_forward,
    backward=dropout_backward,
    plain=lambda key, x, rate: nn.Dropout(rate, deterministic=False).apply({}, x, rng=key),
    settings=[
        _setting(6, (), 8, 0.5),
        _setting(2, (3, 3), 2, 0.0),
        _setting(4, (), 4, 1.0),
    ],
    inputs=("key", "x"),
    static=_static,
    domain=Domain(
        _setting,
        {
            "batch": BATCHES,
            "places": PLACES,
            "width": WIDTHS,
            "rate": (0.01, 0.1, 0.25, 0.5, 0.65, 0.8, 0.93, 0.99),
        },
    ),
)
