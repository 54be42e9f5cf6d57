"""The parts of a formula, as the parser returns them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields


class Node:
    """A part of a formula."""

    def parts(self) -> "Iterator[Node]":
        """The parts of which it is made."""
        for field in fields(self):  # pyright: ignore[reportArgumentType]: each is a dataclass.
            value = getattr(self, field.name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Node):
                    yield part

    def walk(self) -> "Iterator[Node]":
        """The part itself, and all within it."""
        yield self
        for part in self.parts():
            yield from part.walk()


@dataclass(frozen=True)
class Number(Node):
    """A number, such as 2 or 0.5."""

    value: float


@dataclass(frozen=True)
class Scalar(Node):
    """A number with a name: a size such as B, or a setting such as ε."""

    name: str


@dataclass(frozen=True)
class Letter(Node):
    """An index, as a number from 0."""

    letter: str


@dataclass(frozen=True)
class Entry(Node):
    """An entry of an array: X_bd, or with shifted indices X_b,i+p."""

    name: str
    indices: tuple[Node, ...]
    text: str = ""  # As it was written.

    @property
    def letters(self) -> tuple[str, ...]:
        """Its indices that are single letters; "" for each of the others."""
        return tuple(one.letter if isinstance(one, Letter) else "" for one in self.indices)


@dataclass(frozen=True)
class Condition(Node):
    """1 where a chain of comparisons holds, else 0; δ_ij is [i = j]."""

    terms: tuple[Node, ...]
    signs: tuple[str, ...]  # Of ">", "≥", "<", "≤", "=", "≠".


@dataclass(frozen=True)
class Call(Node):
    """A function of numbers, such as exp or σ′."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Power(Node):
    """A power."""

    base: Node
    exponent: Node


@dataclass(frozen=True)
class Product(Node):
    """A product of factors, divided by others."""

    factors: tuple[Node, ...]
    divisors: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Total(Node):
    """A sum of terms, each with its sign."""

    terms: tuple[Node, ...]
    signs: tuple[int, ...]  # 1 or -1.


@dataclass(frozen=True)
class Over(Node):
    """The sum, or the maximum, over all values of some indices."""

    kind: str  # "sum" or "max".
    letters: tuple[str, ...]
    body: Node


@dataclass(frozen=True)
class Formula:
    """An array's name, its indices, and what each of its entries is."""

    name: str
    letters: tuple[str, ...]
    value: Node
    text: str  # As it was written.


def free_letters(node: Node) -> set[str]:
    """The indices of a part that it does not sum over."""
    if isinstance(node, Letter):
        return {node.letter}
    within = set[str]().union(*map(free_letters, node.parts()))
    return within - set(node.letters) if isinstance(node, Over) else within
