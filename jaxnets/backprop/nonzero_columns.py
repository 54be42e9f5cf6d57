"""A dense layer whose input's last columns are often 0 in every example: black pixels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.dense import DENSE, with_rule
from jaxnets.backprop.rule import FindRule, LayerRule, Params, Setting, rule_of
from jaxnets.models.chain import Chain


def first_dense(chain: Chain) -> nn.Dense:
    """The first dense layer."""
    return next(layer for layer in chain.layers if isinstance(layer, nn.Dense))


def find_rule_with_widths(layer: Any, widths: Sequence[int]) -> FindRule:
    """A `rule_of` that gives one dense layer the rule of `with_nonzero_columns`."""

    def find_rule(asked: Any) -> LayerRule | None:
        rule = rule_of(asked)
        return with_nonzero_columns(rule, widths) if rule and asked is layer else rule

    return find_rule


def with_nonzero_columns(rule: LayerRule, widths: Sequence[int]) -> LayerRule:
    """The same layer, multiplying by as few of X's first columns as hold all but its zeros.

    Where column d of X is 0, row d of W adds nothing to X W, and row d of dW = Xᵀ dz is 0. On
    MNIST, sorted as by `training.large_batch`, the hand-written network's step takes 0.7 of the
    time (AMD EPYC, jaxlib 0.10.2; benchmarks/dense_epoch.py mlp_handwritten).

    Args:
      rule: DENSE or DENSE_WITH_ONES.
      widths: The numbers of columns to choose from, ascending; the last is D.
    """

    def first(params: Params, x: jax.Array, width: int) -> tuple[Params, jax.Array]:
        kernel = params["kernel"]
        rows = jnp.concatenate([kernel[:width], kernel[x.shape[1] :]])  # A row of biases stays.
        return {**params, "kernel": rows}, x[:, :width]

    def forward(params: Params, x: Float[Array, "B D"]):
        z = _by_width(lambda width: rule.forward(*first(params, x, width))[0], x, widths)
        return z, (params, x)

    def backward(cache, dz: Float[Array, "B K"], *, input_gradient: bool = True):
        params, x = cache

        def d_params(width: int) -> Params:
            _, cut = rule.forward(*first(params, x, width))
            d, _ = rule.backward(cut, dz, input_gradient=False)
            zeros = jnp.zeros((x.shape[1] - width, dz.shape[1]), dz.dtype)
            kernel = jnp.concatenate([d["kernel"][:width], zeros, d["kernel"][width:]])
            return {**d, "kernel": kernel}

        dx = rule.backward(rule.forward(params, x)[1], dz)[1] if input_gradient else None
        return _by_width(d_params, x, widths), dx

    def faster(layer: Any) -> Any:
        return with_rule(layer, with_nonzero_columns(DENSE, widths))

    return rule._replace(forward=forward, backward=backward, faster=faster)


def _setting(*widths: int) -> Setting:
    """Three of the six columns are 0 in every example."""
    params = {"kernel": (6, 5), "bias": (5,)}
    return Setting((9, 6), params, numbers="dark", static={"widths": widths})


NONZERO_COLUMNS = DENSE._replace(
    forward=lambda *inputs, widths: with_nonzero_columns(DENSE, widths).forward(*inputs),
    backward=lambda *arrays, widths, **others: with_nonzero_columns(DENSE, widths).backward(
        *arrays, **others
    ),
    plain=lambda *inputs, widths: DENSE.plain(*inputs),
    settings=[_setting(3, 6), _setting(4, 5, 6), _setting(2, 6), _setting(1, 2, 4, 6)],
    faster=None,
)


def _by_width(function: Callable[[int], Any], x: jax.Array, widths: Sequence[int]) -> Any:
    """function(width) of the smallest of the widths that has all of x but zeros."""
    used = jnp.max(jnp.where((x != 0).any(axis=0), jnp.arange(1, x.shape[1] + 1), 0))
    # A branch each for this one product, not for the step: it compiles in 1.2 s instead of 3.4 s.
    choice = jnp.sum(used > jnp.array(widths[:-1]))
    return lax.switch(choice, [partial(function, width) for width in widths])
