"""The formulas of the taught pairs, from backprop/formulas.toml, and numbers to try them on."""

import functools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from jaxnets.course.formulas.parser import Names, parse
from jaxnets.course.formulas.tree import Formula
from jaxnets.course.formulas.values import Values, value_of

SIDE = 4  # Of all axes, where they are to be equal.
OTHERS = 2  # Draws of sizes, besides the two that the layer has.


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's formulas, forward and backward."""

    sizes: Mapping[str, int]
    letters: Mapping[str, str]  # The size of each index, by its name.
    drawn: Mapping[str, str]  # The arrays that are given, with their indices.
    forward: Sequence[str]
    backward: Sequence[str]
    follows: Mapping[str, str] = field(default_factory=dict)  # Sizes that others decide.
    square: Mapping[str, int] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)  # How an array is drawn.
    seeds: int = 2  # Draws that a formula is tried on.
    # Which pair computes the same, and which of its arguments the arrays are.
    pair: str = ""
    x: str = ""
    labels: str = ""
    mask: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    static: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """The sizes of each array, by their names."""
        found = dict(self.drawn)
        for text in [*self.forward, *self.backward]:
            name, _under, letters = text.partition(" ")[0].partition("_")
            found[name] = letters
        return {name: tuple(self.letters[one] for one in row) for name, row in found.items()}

    @functools.cached_property
    def names(self) -> Names:
        """What a formula may name."""
        ranks = {name: len(row) for name, row in self.axes.items()}
        return Names(ranks, frozenset([*self.sizes, *self.scalars]))

    def names_before(self, name: str) -> Names:
        """What the formula of a gradient may name: not itself, nor the gradients after it."""
        later = [*self.gradients][[*self.gradients].index(name) :]
        ranks = {one: rank for one, rank in self.names.ranks.items() if one not in later}
        return self.names._replace(ranks=ranks)

    @functools.cached_property
    def steps(self) -> list[Formula]:
        """The formulas of the forward pass, in their order."""
        return [parse(text, self.names) for text in self.forward]

    @property
    def out(self) -> str:
        """The name of the output, which the last step gives."""
        return self.steps[-1].name

    @functools.cached_property
    def gradients(self) -> dict[str, Formula]:
        """The formulas of the backward pass, by the names of their arrays, in their order."""
        found = (parse(text, self.names) for text in self.backward)
        return {formula.name: formula for formula in found}

    def values(self, arrays: Mapping[str, Any], sizes: Mapping[str, int], xp: Any = np) -> Values:
        """What the names of a formula stand for, without what follows from the given arrays."""
        letters = {letter: sizes[size] for letter, size in self.letters.items()}
        return Values(dict(arrays), {**self.scalars, **sizes}, letters, xp)

    def computed(self, values: Values, formulas: Sequence[Formula]) -> Values:
        """The same with the arrays of some formulas, each of which may use those before."""
        arrays = dict(values.arrays)
        for formula in formulas:
            arrays[formula.name] = value_of(formula, values._replace(arrays=arrays))
        return values._replace(arrays=arrays)

    def whole(self, sizes: Mapping[str, int], seed: int, *, ties: bool = False) -> Values:
        """Random numbers for all given arrays, and what follows from them.

        Args:
          sizes: The axes' sizes.
          seed: The seed of the draw.
          ties: Whether the arrays of the kind "ties" are whole numbers, some of them 0.
        """
        random = np.random.default_rng(seed)
        given = {
            name: _drawn(random, self.kinds.get(name, ""), [sizes[one] for one in row], ties)
            for name, row in ((name, self.axes[name]) for name in self.drawn)
        }
        found = self.values(given, sizes)
        return self.computed(found, [*self.steps, *self.gradients.values()])

    @property
    def equal_sizes(self) -> Mapping[str, int]:
        """Sizes at which a mistake of axes does not show."""
        return self.square or self.followed(dict.fromkeys(self.sizes, SIDE))

    def other_sizes(self, text: str) -> Iterator[Mapping[str, int]]:
        """Yields sizes at which a number in place of a size shows.

        They are drawn by the formula's text, so nobody can aim at them.
        """
        yield self.equal_sizes
        random = np.random.default_rng(list(text.encode()))
        for _draw in range(OTHERS):
            drawn = random.integers(2, SIDE + 1, len(self.sizes)).tolist()
            yield self.followed(dict(zip(self.sizes, drawn, strict=True)))

    def followed(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes with those that others decide, such as that of a convolution's input."""
        found, names = dict(sizes), Names({}, frozenset(sizes))
        for size, text in self.follows.items():
            values = Values({}, found, {})
            found[size] = int(value_of(parse(f"{size} = {text}", names), values))
        return found


def _drawn(random: np.random.Generator, kind: str, shape: Sequence[int], ties: bool) -> np.ndarray:
    if kind == "shares":
        positive = random.uniform(0.2, 1, shape)
        return positive / positive.sum(-1, keepdims=True)
    if kind == "mask":
        mask = (random.uniform(size=shape) < 0.6).astype(float)
        mask.flat[0], mask.flat[1], mask.flat[-1] = 1, 1, 0
        return mask
    if kind == "ties" and ties:
        whole = np.array(random.integers(-2, 3, shape), float)
        whole.flat[0] = 0
        return whole
    return np.array(random.standard_normal(shape))


def _read() -> dict[str, Layer]:
    data = tomllib.loads((files("jaxnets.backprop") / "formulas.toml").read_text("utf-8"))
    return {name: Layer(**facts) for name, facts in data.items()}


LAYERS = _read()
