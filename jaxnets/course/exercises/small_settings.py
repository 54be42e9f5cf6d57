"""Settings drawn for the judge in addition to the declared ones: shapes, batches, rates, strides.

They are smaller than those of `gradcheck`, so a student's loop over elements compiles quickly.
A layer that has parameters but no sizes here gets the small sizes of its rule's domain.
The draw is the same in every process: a function that passes at home also passes when it is graded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxnets.backprop.rule import LayerRule, Setting

LARGEST = 9  # Of all sizes except the batch's.
# The range of the batch's size in each setting. None: all sizes are equal, so axes may be swapped.
BATCHES = [None, (1, 9), (10, 20), None, (21, 40), (21, 40)]

Sizes = Callable[[int], tuple[int, ...]]  # Draws this many sizes, the batch's first.


def small_settings(layer: str, rule: LayerRule) -> list[Setting]:
    """Draws calls of a layer.

    Args:
      layer: The layer's name, which is that of its exercise.
      rule: Its rule, whose settings say what else a call needs.
    """
    found = []
    for number, batch in enumerate(BATCHES):
        random = np.random.default_rng([number, *layer.encode()])

        def sizes(count: int, random=random, batch=batch) -> tuple[int, ...]:
            if batch is None:
                return _integers(random, 2, LARGEST, 1) * count
            low, high = batch
            return (*_integers(random, low, high, 1), *_integers(random, 1, LARGEST, count - 1))

        like = rule.settings[number % len(rule.settings)]
        x, params, static = _small_like(layer, rule, like, sizes, random)
        if "slope" in static:  # From the smallest of its domain, which is negative, to the largest.
            slopes = rule.domain.ranges["slope"] if rule.domain else ()
            static = {"slope": slopes[number * (len(slopes) - 1) // (len(BATCHES) - 1)]}
        if "rate" in static:  # One in each part of 0 to 1.
            static = {"rate": round((number + random.uniform()) / len(BATCHES), 2)}
        padding = min(like.padding, x[0] - 2)  # The rows that a mask leaves out; two must stay.
        found.append(like._replace(x=x, params=params, static=static, padding=max(padding, 0)))
    return found


def _integers(random: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(map(int, random.integers(low, high + 1, count)))


def _small_like(
    layer: str, rule: LayerRule, like: Setting, sizes: Sizes, random: np.random.Generator
) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]], dict[str, Any]]:
    """Draws x, params and static of a setting like a declared one."""
    x, params = (), {}
    static: dict[str, Any] = dict(like.static)
    match layer:
        case "dense":
            batch, inputs, outputs = sizes(3)
            x, params = (batch, inputs), {"kernel": (inputs, outputs), "bias": (outputs,)}
        case "residual_dense":
            batch, width = sizes(2)
            x, params = (batch, width), {"kernel": (width, width), "bias": (width,)}
        case "dense_with_ones":
            batch, inputs, outputs = sizes(3)
            x, params = (batch, inputs), {"kernel": (inputs + 1, outputs)}
        case "batch_norm":
            batch, *others = sizes(len(like.x))
            x = (max(batch, 2), *others)  # The variance of one number is 0.
            params = {name: x[-1:] for name in like.params}
        case "layer_norm":
            x = tuple(max(size, 3) for size in sizes(len(like.x)))  # Two numbers are always ±1.
            params = {name: x[-1:] for name in like.params}
        case "local_response_norm":
            k, alpha, beta = random.uniform((0.5, 0.05, 0.25), (2.0, 0.3, 1.5)).round(2).tolist()
            (n,) = _integers(random, 1, 7, 1)
            x, static = sizes(len(like.x)), {"k": k, "n": n, "alpha": alpha, "beta": beta}
        case "adaptive_average_pool":
            x, static = sizes(4), {"output_size": _integers(random, 1, 7, 2)}
        case "max_pool" | "average_pool":
            x = sizes(4)
            static = {"window": _window(x[1:3], random), "strides": _integers(random, 1, 4, 2)}
            if layer == "max_pool":
                static["padding"] = str(random.choice(["SAME", "VALID"]))
        case "conv":
            batch, height, width, channels, filters = sizes(5)
            window = _window((height, width), random)
            (groups,) = _integers(random, 1, 2, 1)
            x = (min(batch, LARGEST), height, width, channels * groups)
            params = {"kernel": (*window, channels, filters * groups), "bias": (filters * groups,)}
            static = {"strides": _integers(random, 1, 3, 2), "groups": groups}
            static["padding"] = str(random.choice(["SAME", "VALID"]))
        case _ if like.params and rule.domain:
            few = {name: _small_of(values) for name, values in rule.domain.ranges.items()}
            (found,) = rule.domain._replace(ranges=few).draw(1, int(random.integers(2**31)))
            return found.x, {**found.params}, {**found.static}
        case _:
            x = sizes(len(like.x))
    return x, {name: params[name] for name in params if name in like.params}, static


def _small_of(values: Sequence[Any]) -> Sequence[Any]:
    """The values of a range that are small, as numbers or as sizes; if none is, its first."""

    def is_small(value: Any) -> bool:
        numbers = value if isinstance(value, tuple) else (value,)
        return all(one <= LARGEST for one in numbers if isinstance(one, int))

    return [value for value in values if is_small(value)] or values[:1]


def _window(image: tuple[int, ...], random: np.random.Generator) -> tuple[int, ...]:
    return tuple(min(size, k) for size, k in zip(image, _integers(random, 1, 4, 2), strict=True))
