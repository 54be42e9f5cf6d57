"""Settings drawn for the judge beside the declared ones: shapes, batches, rates, strides.

The draw is the same in every process: what passes at home passes where it is graded.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnets.backprop.rule import LayerRule, Setting

LARGEST = 9  # Of all sizes but the batch's.
# Where the batch of each drawn setting lies. None: all sizes are equal, so axes may be swapped.
BATCHES = [None, (1, 9), (10, 20), None, (21, 40), (21, 40)]

Sizes = Callable[[int], tuple[int, ...]]  # Draws so many sizes, the batch's first.


def drawn_settings(layer: str, rule: LayerRule) -> list[Setting]:
    """Draws calls of a layer.

    Args:
      layer: The layer, as its exercise is called.
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
        x, params, static = DRAW.get(layer, _resized)(like, sizes, random)
        if "rate" in static:  # One in each part of 0 to 1.
            static = {"rate": round((number + random.uniform()) / len(BATCHES), 2)}
        padding = min(like.padding, x[0] - 2)  # Rows that a mask leaves out, but for two.
        found.append(like._replace(x=x, params=params, static=static, padding=max(padding, 0)))
    return found


def _integers(random: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(map(int, random.integers(low, high + 1, count)))


Drawn = tuple[tuple[int, ...], dict[str, tuple[int, ...]], dict[str, Any]]


def _resized(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    return sizes(len(like.x)), {}, dict(like.static)


def _dense(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    batch, inputs, outputs = sizes(3)
    params = {"kernel": (inputs, outputs), "bias": (outputs,)}
    return (batch, inputs), {name: params[name] for name in like.params}, {}


def _dense_with_ones(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    batch, inputs, outputs = sizes(3)
    return (batch, inputs), {"kernel": (inputs + 1, outputs)}, {}


def _batch_norm(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    batch, *others = sizes(len(like.x))
    x = (max(batch, 2), *others)  # The variance of one number is 0.
    return x, {name: x[-1:] for name in like.params}, dict(like.static)


def _response_norm(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    k, alpha, beta = random.uniform((0.5, 0.05, 0.25), (2.0, 0.3, 1.5)).round(2).tolist()
    (n,) = _integers(random, 1, 7, 1)
    return sizes(len(like.x)), {}, {"k": k, "n": n, "alpha": alpha, "beta": beta}


def _average_pool(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    return sizes(4), {}, {"output_size": _integers(random, 1, 7, 2)}


def _window(image: tuple[int, ...], random: np.random.Generator) -> tuple[int, ...]:
    return tuple(min(size, k) for size, k in zip(image, _integers(random, 1, 4, 2), strict=True))


def _max_pool(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    x = sizes(4)
    static = {"window": _window(x[1:3], random), "strides": _integers(random, 1, 4, 2)}
    return x, {}, {**static, "padding": str(random.choice(["SAME", "VALID"]))}


def _conv(like: Setting, sizes: Sizes, random: np.random.Generator) -> Drawn:
    batch, height, width, channels, filters = sizes(5)
    window = _window((height, width), random)
    (groups,) = _integers(random, 1, 2, 1)
    params = {"kernel": (*window, channels, filters * groups), "bias": (filters * groups,)}
    static = {"strides": _integers(random, 1, 3, 2), "groups": groups}
    static |= {"padding": str(random.choice(["SAME", "VALID"]))}
    x = (min(batch, LARGEST), height, width, channels * groups)
    return x, {name: params[name] for name in like.params}, static


DRAW: dict[str, Callable[[Setting, Sizes, np.random.Generator], Drawn]] = {
    "dense": _dense,
    "dense_with_ones": _dense_with_ones,
    "batch_norm": _batch_norm,
    "local_response_norm": _response_norm,
    "adaptive_average_pool": _average_pool,
    "max_pool": _max_pool,
    "conv": _conv,
}
