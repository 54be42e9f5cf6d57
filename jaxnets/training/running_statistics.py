"""The step of running statistics, which no update rule may touch: they only follow the batches."""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import optax

from jaxnets.errors import UserError

RATE = 0.1  # PyTorch's default: 0.9 of the running statistic and 0.1 of the batch's.


def with_statistics(
    rule: optax.GradientTransformation, names: Collection[str], reduction: str
) -> optax.GradientTransformation:
    """Returns the rule, except that statistics move by a tenth of their gradient.

    Weight decay, momentum and schedule are for the other parameters. The state is the rule's.

    Args:
      rule: The update rule.
      names: The names of the parameters that are statistics, in whichever layer.
      reduction: The config's reduction of gradients, "mean" or "sum".

    Raises:
      UserError: The gradient is a sum over the examples, so the statistics would move too far.
    """
    if reduction != "mean":
        raise UserError(f"reduction: expected mean for a network with batch norm, got {reduction}")

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        gradients = updates
        updates, state = rule.update(gradients, state, params)

        def chosen(path: Sequence[Any], update: jax.Array, gradient: jax.Array) -> jax.Array:
            return -RATE * gradient if path[-1].key in names else update

        return jax.tree_util.tree_map_with_path(chosen, updates, gradients), state

    return optax.GradientTransformation(rule.init, update)
