"""Judges a formula by the right one, and says the first thing that is wrong.

The numbers decide, on random arrays whose axes all differ. A letter has the size of the axes on
which it stands, so a student may call the indices anything.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxnets.base.display import one_line, shortened
from jaxnets.base.language import N_, _
from jaxnets.course.formulas.layers import Layer
from jaxnets.course.formulas.mistakes import mistakes, without_a_part
from jaxnets.course.formulas.numpy_code import numpy_line
from jaxnets.course.formulas.parser import FormulaError, parse
from jaxnets.course.formulas.tree import (
    Call,
    Condition,
    Entry,
    Formula,
    Number,
    Over,
    Product,
    free_letters,
)
from jaxnets.course.formulas.values import (
    MOST_NUMBERS,
    TooLargeError,
    Values,
    named_value,
    value_of,
)

MOST_SHOWN = 30  # Characters of an entry.
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
        return one_line(str(error))
    if formula.name != name:
        return _("expected a formula of {}, got one of {}", name, formula.name)
    if len(formula.letters) != len(layer.axes[name]):
        counts = len(layer.axes[name]), len(formula.letters)
        return _("indices of {}: expected {}, got {}", name, *counts)
    found = _sizes_of(layer, formula)
    if isinstance(found, str):
        return found
    try:
        with np.errstate(all="ignore"):
            return _outside(layer, formula, found) or _compared(layer, formula, found)
    except TooLargeError:
        return _("too many indices in one term")


def line_of(layer: Layer, name: str, text: str) -> str:
    """A right formula as a line of NumPy; "" where it needs more than a line."""
    formula = parse(text, layer.names_before(name))
    sizes = _sizes_of(layer, formula)
    if isinstance(sizes, str):
        return ""
    return numpy_line(formula, sizes, layer)


def _sizes_of(layer: Layer, formula: Formula) -> dict[str, str] | str:
    """The size of each letter, by its name; or what is wrong with the letters."""
    sizes, first = dict[str, str](), dict[str, str]()
    for entry in (node for node in formula.value.walk() if isinstance(node, Entry)):
        for letter, size in zip(entry.letters, layer.axes[entry.name], strict=True):
            if letter and sizes.setdefault(letter, size) != size:
                places = first[letter], size, entry.text
                said = _("{} runs over {} in {}, but over {} in {}", letter, sizes[letter], *places)
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
        return _("{} runs over {} on the right, but over {} in {}", *facts)
    sizes |= wanted
    for node in formula.value.walk():
        for letter in getattr(node, "letters", ()):
            if letter and letter not in sizes:
                return _("{} has no size: it is the index of no array", letter)
    return sizes


def _outside(layer: Layer, formula: Formula, sizes: dict[str, str]) -> str:
    """Says which entry lies outside of its array, whatever its letters are.

    Raises:
      TooLargeError: The formula needs too many numbers.
    """
    numbers = {letter: layer.sizes[size] for letter, size in sizes.items()}
    bodies = (node for node in formula.value.walk() if not isinstance(node, Over))
    counts = (math.prod(numbers[one] for one in free_letters(node)) for node in bodies)
    if sum(counts) > MOST_NUMBERS:
        raise TooLargeError
    values = layer.values({}, layer.sizes)._replace(sizes=numbers)
    for entry in (node for node in formula.value.walk() if isinstance(node, Entry)):
        for index, size in zip(entry.indices, layer.axes[entry.name], strict=True):
            places = named_value(index, values).array
            if not np.isin(places, range(layer.sizes[size])).any():
                shown = shortened(entry.text, MOST_SHOWN)
                return _("{} is outside: this index of {} ends before {}", shown, entry.name, size)
    return ""


def _compared(layer: Layer, formula: Formula, sizes: dict[str, str]) -> str:
    right = layer.gradients[formula.name]
    draws = list(_draws(layer, sizes, layer.sizes))
    given = [value_of(formula, one) for _whole, one in draws]
    wanted = [whole.arrays[right.name] for whole, _one in draws]
    if not all(map(_close, given, wanted)):
        return (
            _factor_or_transpose(layer, formula, given, wanted)
            or _missing_index(right, formula)
            or _usual_mistake(layer, right, given, [whole for whole, _one in draws])
            or _where_wrong(layer, formula, sizes, given[0], wanted[0])
        )
    if "ties" in layer.kinds.values() and not _same(layer, formula, sizes, layer.sizes, ties=True):
        return _("right, but not at the kink: > or ≥?")
    others = layer.other_sizes(formula.text)
    if not all(_same(layer, formula, sizes, numbers) for numbers in others):
        return _("right at the sizes tried first only: is there a number in place of a size?")
    values = [one for _whole, one in draws]
    if any(_never_decides(kink, values) for kink in _kinks(formula)):
        return _("right, but a condition, max or min never decides anything: leave it out")
    for less in without_a_part(formula):
        if _close(value_of(less, values[0]), wanted[0]):
            return _("right, but a term or a number in it changes nothing: leave it out")
    return ""


def _draws(
    layer: Layer, sizes: Mapping[str, str], numbers: Mapping[str, int], *, ties: bool = False
) -> Iterator[tuple[Values, Values]]:
    """Yields random arrays at some sizes: with all that is right, and with a formula's letters."""
    for seed in range(1, layer.seeds + 1):
        whole = layer.whole(numbers, seed, ties=ties)
        of_letters = {letter: numbers[size] for letter, size in sizes.items()}
        yield whole, whole._replace(sizes=of_letters)


def _same(
    layer: Layer,
    formula: Formula,
    sizes: Mapping[str, str],
    numbers: Mapping[str, int],
    *,
    ties: bool = False,
) -> bool:
    """Whether a formula is right at these sizes."""
    return all(
        _close(value_of(formula, given), whole.arrays[formula.name])
        for whole, given in _draws(layer, sizes, numbers, ties=ties)
    )


def _factor_or_transpose(
    layer: Layer, formula: Formula, given: list[np.ndarray], wanted: list[np.ndarray]
) -> str:
    """What the numbers alone say: a factor, a transpose, or a diagonal; "" if nothing."""
    if not all(np.isfinite(array).all() for array in given):
        return _("not finite: what if you divide by 0?")
    if said := _factor(layer, given, wanted):
        return said
    axes = layer.axes[formula.name]
    for i, j in itertools.combinations(range(len(axes)), 2):
        if axes[i] != axes[j]:
            continue
        if all(_close(a.swapaxes(i, j), b) for a, b in zip(given, wanted, strict=True)):
            return _("this is {}ᵀ: its first index is {}", formula.name, formula.letters[j])
        apart = ~np.eye(layer.sizes[axes[i]], dtype=bool)
        off = [[np.moveaxis(x, (i, j), (0, 1))[apart] for x in both] for both in (given, wanted)]
        if all(map(_close, *off)):
            return _("right but for δ: what if {} = {}?", formula.letters[i], formula.letters[j])
    return ""


def _missing_index(right: Formula, formula: Formula) -> str:
    """Which two arrays share no index, or which sum has none of its letter; "" if neither."""
    shared = {one for entries in _multiplied(right) if (one := _names_if_sharing(entries, True))}
    for entries in _multiplied(formula):
        if _names_if_sharing(entries, False) in shared:
            return _("{} and {} share no index: which one is summed?", *(e.name for e in entries))
    for node in (one for one in formula.value.walk() if isinstance(one, Over)):
        for letter in node.letters:
            if letter not in free_letters(node.body):
                return _("you sum over {}, but nothing in the sum has the index {}", letter, letter)
    return ""


def _usual_mistake(
    layer: Layer, right: Formula, given: list[np.ndarray], wholes: Sequence[Values]
) -> str:
    """The usual mistake that leads to these numbers; "" if none does."""
    for mistake in mistakes(layer, right):
        if all(map(_close, given, map(mistake.value, wholes))):
            return mistake.says
    return ""


def _where_wrong(
    layer: Layer,
    formula: Formula,
    sizes: Mapping[str, str],
    given: np.ndarray,
    wanted: np.ndarray,
) -> str:
    """How many entries are wrong, and the first of them."""
    if _same(layer, formula, sizes, layer.equal_sizes):
        return _("right for a square input only")
    if not formula.letters:
        return _("this number is wrong")
    wrong = ~np.isclose(given, wanted, rtol=CLOSE, atol=CLOSE)
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    counts = int(wrong.sum()), wrong.size
    return _("{} of {} entries are wrong, the first at {}", *counts, list(map(int, place)))


def _kinks(formula: Formula) -> Iterator[Condition]:
    """Yields each comparison on which a formula depends."""
    for node in formula.value.walk():
        if isinstance(node, Condition):
            yield node
        elif isinstance(node, Call) and node.function in ("max", "min"):
            yield Condition(node.arguments, (">",))
        elif isinstance(node, Call) and node.function in ("relu", "relu′"):
            yield Condition((*node.arguments, Number(0)), (">",))


def _never_decides(condition: Condition, draws: Sequence[Values]) -> bool:
    """Whether a condition holds everywhere or nowhere: then nothing shows whether it is right."""
    found = [named_value(condition, values).array for values in draws]
    return len({float(one) for array in found for one in np.unique(array)}) == 1


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    scale = float(np.abs(b).max(initial=1))
    finite = np.isfinite(a).all() and np.isfinite(b).all()
    return bool(finite and (np.abs(a - b) <= CLOSE * scale).all())


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
    both = list(zip(given, wanted, strict=True))
    ratio = float(sum((a * b).sum() for a, b in both) / sum((b**2).sum() for b in wanted))
    if not all(_close(a, ratio * b) for a, b in both):
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
