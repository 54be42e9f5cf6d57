"""The usual mistakes in a formula: what each is called, and what the formula is with it."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxnets.base.language import _
from jaxnets.course.formulas.layers import Layer
from jaxnets.course.formulas.tree import (
    Condition,
    Entry,
    Formula,
    Letter,
    Node,
    Number,
    Power,
    Product,
    Scalar,
    Total,
    free_letters,
)
from jaxnets.course.formulas.values import Values, value_of

Some = TypeVar("Some")
Changed = Iterator[tuple[str, Node]]  # What a mistake is called, and a part with it.


class Mistake(NamedTuple):
    """A wrong formula."""

    says: str
    value: Callable[[Values], Any]


def mistakes(layer: Layer, right: Formula) -> Iterator[Mistake]:
    """Yields the usual mistakes in a layer's formula, the likelier first."""
    sizes = layer.letters
    like = {one: [other for other in sizes if sizes[other] == sizes[one]] for one in sizes}
    for says, value in _changed(right.value, lambda node: _mistaken(node, like)):
        if free_letters(value) <= set(right.letters):
            yield Mistake(says, _computes(dataclasses.replace(right, value=value)))
    names = layer.names_before(right.name)
    for name, other in itertools.permutations(names.ranks, 2):
        if layer.axes[name] == layer.axes[other]:
            says = _("another array belongs where you write {}", other)
            yield Mistake(says, _computes(right, name, other))
    for name in names.scalars:
        yield Mistake(_("{} is missing in some place", name), _computes(right, name))


def without_a_part(formula: Formula) -> Iterator[Formula]:
    """Yields a formula without one of its terms, and without one of its numbers that is not 1."""

    def less(node: Node) -> Changed:
        if isinstance(node, Total):
            yield from (
                ("", Total(_without(node.terms, place), _without(node.signs, place)))
                for place, term in enumerate(node.terms)
                if len(node.terms) > 1 and not isinstance(term, Scalar)  # A scalar such as ε.
            )
        if isinstance(node, Product):
            yield from (
                ("", dataclasses.replace(node, factors=_without(node.factors, place)))
                for place, factor in enumerate(node.factors)
                if len(node.factors) > 1 and isinstance(factor, Number) and factor.value != 1
            )

    for _says, value in _changed(formula.value, less):
        yield dataclasses.replace(formula, value=value)


def _computes(formula: Formula, name: str = "", other: str = "") -> Callable[[Values], Any]:
    """Computes a formula with another array in place of one, or with 1 in place of a scalar."""

    def value(values: Values) -> Any:
        if other:
            values = values._replace(arrays={**values.arrays, name: values.arrays[other]})
        elif name:
            values = values._replace(scalars={**values.scalars, name: 1})
        return value_of(formula, values)

    return value


def _changed(node: Node, change: Callable[[Node], Changed]) -> Changed:
    """Yields what a part becomes if it, or one part within it, is changed."""
    yield from change(node)
    for field in dataclasses.fields(node):  # pyright: ignore[reportArgumentType]: see Node.parts.
        value = getattr(node, field.name)
        if isinstance(value, Node):
            for says, part in _changed(value, change):
                yield says, _with(node, field.name, part)
        elif isinstance(value, tuple):
            for place, one in enumerate(value):
                for says, part in _changed(one, change) if isinstance(one, Node) else ():
                    parts = (*value[:place], part, *value[place + 1 :])
                    yield says, _with(node, field.name, parts)


def _mistaken(node: Node, like: Mapping[str, Sequence[str]]) -> Changed:
    """Yields the mistakes in one part; `like` has the letters with the same size as each."""
    match node:
        case Condition(terms) if all(isinstance(one, Letter) for one in terms):
            yield _("δ is missing: a term is there only where two indices are equal"), Number(1)
        case Condition():
            yield _("a condition is missing: where does nothing pass?"), Number(1)
        case Power(base):
            yield _("an exponent is missing"), base
        case Total():
            yield from _other_totals(node)
        case Product():
            yield from _other_products(node)
        case Entry():
            yield from _other_entries(node, like)


def _other_totals(node: Total) -> Changed:
    for place in range(len(node.terms)) if len(node.terms) > 1 else ():
        terms, signs = _without(node.terms, place), _without(node.signs, place)
        yield _("a term is missing"), Total(terms, signs)
        flipped = [-one if n == place else one for n, one in enumerate(node.signs)]
        yield _("the sign of a term is wrong"), Total(node.terms, tuple(flipped))
    if len(node.terms) > 2:
        for term, sign in zip(node.terms, node.signs, strict=True):
            yield _("terms are missing"), Total((term,), (sign,))


def _other_products(node: Product) -> Changed:
    for place, one in enumerate(node.factors):
        if isinstance(one, Condition):  # That has a sentence of its own.
            continue
        factors, name = _without(node.factors, place) or (Number(1),), ""
        if isinstance(one, Entry):
            name = one.name
        says = _("a factor is missing: {}", name) if name else _("a factor is missing")
        yield says, Product(factors, node.divisors)
        yield _("you divide where a factor belongs"), Product(factors, (*node.divisors, one))
    for place, one in enumerate(node.divisors):
        divisors = _without(node.divisors, place)
        yield _("a divisor is missing"), Product(node.factors, divisors)
        yield _("you multiply where a divisor belongs"), Product((*node.factors, one), divisors)


def _other_entries(node: Entry, like: Mapping[str, Sequence[str]]) -> Changed:
    indices, letters = node.indices, node.letters
    for i, j in itertools.combinations(range(len(indices)), 2):
        if letters[j] in like.get(letters[i], ()):
            swapped = list(indices)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            says = _("two indices of {} are exchanged", node.name)
            yield says, dataclasses.replace(node, indices=tuple(swapped))
    turned = tuple(map(_turned, indices))
    if turned != indices:
        says = _("an index of {} is shifted the wrong way", node.name)
        yield says, dataclasses.replace(node, indices=turned)
    for place, letter in enumerate(letters):
        for other in like.get(letter, ()):
            if other != letter:
                changed = (*indices[:place], Letter(other), *indices[place + 1 :])
                says = _("an index of {} is the wrong letter", node.name)
                yield says, dataclasses.replace(node, indices=changed)


def _turned(index: Node) -> Node:
    """An index that is shifted the other way: i - p for i + p."""
    if not isinstance(index, Total):
        return index
    return Total(index.terms, (index.signs[0], *(-sign for sign in index.signs[1:])))


def _without(parts: tuple[Some, ...], place: int) -> tuple[Some, ...]:
    return parts[:place] + parts[place + 1 :]


def _with(node: Node, field: str, value: object) -> Node:
    changed: Node = dataclasses.replace(node, **{field: value})  # pyright: ignore
    return changed
