"""Judges a formula by the right one, and says the first thing that is wrong.

The numbers decide, on random arrays whose axes all differ. A letter has the size of the axes on
which it stands, so a student may call the indices anything.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from jaxnets.base.language import N_, _
from jaxnets.course.formulas.layers import Layer
from jaxnets.course.formulas.parser import FormulaError, parse
from jaxnets.course.formulas.tree import (
    Condition,
    Entry,
    Formula,
    Letter,
    Node,
    Number,
    Product,
    Total,
)
from jaxnets.course.formulas.values import TooLargeError, Values, value_of

SEEDS = 1, 2
CLOSE = 1e-9  # Relative to the largest number; no usual mistake changes less.
MEAN = N_("a factor of {} too small: a mean in place of a sum")


def first_wrong(layer: Layer, name: str, text: str) -> str:
    """The first thing that is wrong with a formula, in one line; "" if it is right.

    Args:
      layer: The layer whose gradient it is.
      name: The array that it must give.
      text: The formula.
    """
    try:
        formula = parse(text, layer.names_before(name))
    except FormulaError as error:
        return str(error)
    if formula.name != name:
        return _("expected a formula of {}, got one of {}", name, formula.name)
    if len(formula.letters) != len(layer.axes[name]):
        counts = len(layer.axes[name]), len(formula.letters)
        return _("{} has {} indices, got {}", name, *counts)
    found = _sizes_of(layer, formula)
    if isinstance(found, str):
        return found
    try:
        with np.errstate(all="ignore"):
            return _compared(layer, formula, found)
    except TooLargeError:
        return _("too many indices in one term")


def _sizes_of(layer: Layer, formula: Formula) -> dict[str, str] | str:
    """The size of each letter, by its name; or what is wrong with the letters."""
    sizes, first = dict[str, str](), dict[str, str]()
    for entry in (node for node in formula.value.walk() if isinstance(node, Entry)):
        for letter, size in zip(entry.letters, layer.axes[entry.name], strict=True):
            if letter and sizes.setdefault(letter, size) != size:
                places = first[letter], size, entry.text
                said = _("{} counts {} in {}, but {} in {}", letter, sizes[letter], *places)
                return said
            first.setdefault(letter, entry.text)
    sizes = {letter: layer.letters[letter] for letter in layer.letters} | sizes
    wanted = dict(zip(formula.letters, layer.axes[formula.name], strict=True))
    wrong = [letter for letter, size in wanted.items() if sizes.get(letter, size) != size]
    if wrong and sorted(sizes.get(one, "") for one in wanted) == sorted(wanted.values()):
        ours = {size: letter for letter, size in sizes.items() if letter in wanted}
        first_letter = ours[layer.axes[formula.name][0]]
        return _("this is {}ᵀ: its first index is {}", formula.name, first_letter)
    for letter in wrong:
        facts = letter, sizes[letter], wanted[letter], formula.name
        return _("{} counts {} on the right, but {} in {}", *facts)
    sizes |= wanted
    for node in formula.value.walk():
        for letter in getattr(node, "letters", ()):
            if letter and letter not in sizes:
                return _("{} has no size: it is the index of no array", letter)
    return sizes


def _compared(layer: Layer, formula: Formula, sizes: dict[str, str]) -> str:
    right = layer.gradients[formula.name]

    def pairs(numbers: dict[str, int], *, ties: bool = False) -> Iterator[tuple[Values, Values]]:
        for seed in SEEDS:
            whole = layer.whole(numbers, seed, ties=ties)
            of_letters = {letter: numbers[size] for letter, size in sizes.items()}
            yield whole, whole._replace(sizes=of_letters)

    def same(numbers: dict[str, int], *, ties: bool = False) -> bool:
        return all(
            _close(value_of(formula, given), whole.arrays[right.name])
            for whole, given in pairs(numbers, ties=ties)
        )

    numbers = dict(layer.sizes)
    if same(numbers):
        if "ties" in layer.kinds.values() and not same(numbers, ties=True):
            return _("right, but not at the kink: > or ≥?")
        return ""
    draws = list(pairs(numbers))
    given = [value_of(formula, one) for _whole, one in draws]
    wanted = [whole.arrays[right.name] for whole, _one in draws]
    if said := _factor(layer, given, wanted):
        return said
    axes = layer.axes[right.name]
    for i, j in itertools.combinations(range(len(axes)), 2):
        if axes[i] != axes[j]:
            continue
        if all(_close(a.swapaxes(i, j), b) for a, b in zip(given, wanted, strict=True)):
            return _("this is {}ᵀ: its first index is {}", right.name, formula.letters[j])
        apart = ~np.eye(numbers[axes[i]], dtype=bool)
        off = [[np.moveaxis(x, (i, j), (0, 1))[apart] for x in both] for both in (given, wanted)]
        if all(map(_close, *off)):
            return _("right but for δ: what if {} = {}?", formula.letters[i], formula.letters[j])
    shared = {one for entries in _multiplied(right) if (one := _names_if_sharing(entries, True))}
    for entries in _multiplied(formula):
        if _names_if_sharing(entries, False) in shared:
            return _("{} and {} share no index: which one is summed?", *(e.name for e in entries))
    for says, changed in _neighbours(right.value):
        other = dataclasses.replace(right, value=changed)
        found = (value_of(other, whole) for whole, _one in draws)
        if all(map(_close, given, found)):
            return _(says)
    if same(dict(layer.equal_sizes)):
        return _("right for a square input only")
    wrong = ~np.isclose(given[0], wanted[0], rtol=CLOSE, atol=CLOSE)
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    counts = int(wrong.sum()), wrong.size
    return _("{} of {} entries are wrong, the first at {}", *counts, list(map(int, place)))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    scale = float(np.abs(b).max(initial=1))
    return bool(np.isfinite(a).all() and (np.abs(a - b) <= CLOSE * scale).all())


def _multiplied(formula: Formula) -> Iterator[tuple[Entry, Entry]]:
    """Yields each two entries that are factors of the same product."""
    for node in formula.value.walk():
        if isinstance(node, Product):
            entries = (one for one in node.factors if isinstance(one, Entry))
            yield from itertools.combinations(entries, 2)


def _names_if_sharing(entries: tuple[Entry, Entry], sharing: bool) -> frozenset[str] | None:
    """The names of two entries if they share an index, or if they share none."""
    a, b = (set(one.letters) - {""} for one in entries)
    return frozenset(one.name for one in entries) if bool(a & b) == sharing else None


def _factor(layer: Layer, given: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    """Which factor is too many, or missing; "" if the numbers differ otherwise."""
    ratio = float(np.median(given[0] / wanted[0]))
    if not all(_close(a, ratio * b) for a, b in zip(given, wanted, strict=True)):
        return ""
    if math.isclose(ratio, -1):
        return _("the sign is wrong")
    for name, size in {"2": 2, **layer.sizes}.items():
        for shown, factor in ((name, float(size)), (f"√{name}", math.sqrt(size))):
            if math.isclose(ratio, factor):
                return _("a factor of {} too large", shown)
            if math.isclose(ratio * factor, 1):
                mean = shown == name and name != "2"
                return _(MEAN, shown) if mean else _("a factor of {} too small", shown)
    return ""


def _neighbours(node: Node) -> Iterator[tuple[str, Node]]:
    """Yields usual mistakes: what each is, and the formula with it."""
    if isinstance(node, Condition) and all(isinstance(one, Letter) for one in node.terms):
        yield N_("δ is missing: a term is there only where two indices are equal"), Number(1)
    elif isinstance(node, Condition):
        yield N_("a condition is missing: where does nothing pass?"), Number(1)
    if isinstance(node, Total) and len(node.terms) > 1:
        for place in range(len(node.terms)):
            terms = node.terms[:place] + node.terms[place + 1 :]
            signs = node.signs[:place] + node.signs[place + 1 :]
            yield N_("a term is missing"), Total(terms, signs)
            flipped = [-one if n == place else one for n, one in enumerate(node.signs)]
            yield N_("the sign of a term is wrong"), Total(node.terms, tuple(flipped))
    for field in dataclasses.fields(node):  # pyright: ignore[reportArgumentType]: see Node.parts.
        value = getattr(node, field.name)
        if isinstance(value, Node):
            for says, part in _neighbours(value):
                yield says, _with(node, field.name, part)
        elif isinstance(value, tuple):
            for place, one in enumerate(value):
                for says, part in _neighbours(one) if isinstance(one, Node) else ():
                    parts = (*value[:place], part, *value[place + 1 :])
                    yield says, _with(node, field.name, parts)


def _with(node: Node, field: str, value: object) -> Node:
    changed: Node = dataclasses.replace(node, **{field: value})  # pyright: ignore
    return changed
