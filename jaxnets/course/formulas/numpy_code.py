"""Writes a formula as one line of NumPy: dW_dk = Σ_b X_bd dZ_bk is dW = X.T @ dZ."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnets.course.formulas.layers import Layer
from jaxnets.course.formulas.parser import GREEK
from jaxnets.course.formulas.tree import (
    Call,
    Condition,
    Entry,
    Formula,
    Letter,
    Node,
    Number,
    Over,
    Power,
    Product,
    Scalar,
    Total,
)

HAT = "̂"
LATIN = {greek: name for name, greek in GREEK.items() if len(greek) == 1} | {"ε": "eps"}
FUNCTIONS = {
    "exp": "np.exp({})",
    "log": "np.log({})",
    "sqrt": "np.sqrt({})",
    "max": "np.maximum({}, {})",
    "min": "np.minimum({}, {})",
    "σ": "1 / (1 + np.exp(-{}))",
    "tanh": "np.tanh({})",
    "relu": "np.maximum({}, 0)",
}
SLOPES = {
    "σ′": "np.exp(-{0}) / (1 + np.exp(-{0})) ** 2",
    "tanh′": "1 - np.tanh({0}) ** 2",
    "relu′": "1.0 * ({0} > 0)",
}
COMPARISONS = {">": ">", "≥": ">=", "<": "<", "≤": "<=", "=": "==", "≠": "!="}
# How strongly a text holds together: a sum, a product, a power or a sign, a name or a call.
SUM, PRODUCT, POWER, ATOM = range(4)


class Code(NamedTuple):
    """An expression of NumPy, with a letter for each axis of its array."""

    text: str
    letters: str
    holds: int = ATOM

    def within(self, holds: int) -> str:
        """Its text, in brackets where it holds together less strongly than this."""
        return self.text if self.holds >= holds else f"({self.text})"


class NoLineError(ValueError):
    """A formula is no line of NumPy."""


def numpy_line(formula: Formula, sizes: Mapping[str, str], layer: Layer) -> str:
    """The formula of a layer as a line of NumPy; "" where a shifted index needs more than a line.

    Args:
      formula: The formula.
      sizes: The name of the size of each letter.
      layer: The layer, which knows the sizes of its arrays.
    """
    letters = "".join(formula.letters)
    try:
        writer = _Writer(sizes, layer)
        text = writer.spread(writer.code(formula.value, letters), letters)
    except NoLineError:
        return ""
    return f"{python_name(formula.name)} = {text}"


def python_name(name: str) -> str:
    """A name of a formula as one of Python: dγ is dgamma, x̂ is xhat."""
    text = unicodedata.normalize("NFD", name).replace(HAT, "hat")
    return "".join(LATIN.get(one, one) for one in text)


class _Writer:
    def __init__(self, sizes: Mapping[str, str], layer: Layer):
        self.sizes = sizes
        self.layer = layer

    def code(self, node: Node, wanted: str = "") -> Code:
        """An expression, if possible with its axes in the order of the wanted letters."""
        match node:
            case Number(value):
                return Code(f"{value:.15g}", "")
            case Scalar(name):
                return Code(python_name(name), "")
            case Letter(letter):
                return Code(f"np.arange({self.size(letter)})", letter)
            case Entry():
                return self.entry(node)
            case Condition():
                return self.condition(node, wanted)
            case Call(function, arguments):
                return self.call(function, arguments, wanted)
            case Power(base, exponent):
                letters, (one, other) = self.together([base, exponent], wanted, POWER + 1, POWER)
                return Code(f"{one} ** {other}", letters, POWER)
            case Total():
                return self.total(node, wanted)
            case Product():
                return self.product(node, wanted)
            case Over("sum", letters, body):
                return self.sum(letters, body, wanted)
            case Over(_kind, letters, body):
                return self.reduced(self.code(body), "max", letters)
        raise TypeError(node)

    def size(self, letter: str) -> str:
        if letter not in self.sizes:
            raise NoLineError
        return python_name(self.sizes[letter])

    def entry(self, entry: Entry) -> Code:
        text, letters = python_name(entry.name), entry.letters
        if not all(letters):
            text, letters = self.windows(entry)
        out = "".join(dict.fromkeys(letters))
        if len(out) < len(letters):
            return Code(f'np.einsum("{"".join(letters)}->{out}", {text})', out)
        return Code(text, out)

    def windows(self, entry: Entry) -> tuple[str, Sequence[str]]:
        """X's windows for all X_b,i+p: one at each place i, of as many entries as p has values."""
        places, windows, shifted = list[str](), list[str](), list[str]()
        axes, numbers = self.layer.axes[entry.name], self.layer.sizes
        for axis, (index, size) in enumerate(zip(entry.indices, axes, strict=True)):
            match index:
                case Letter(letter):
                    places.append(letter)
                case Total((Letter(place), Letter(letter)), (1, 1)):
                    count, width = (numbers[self.sizes[one]] for one in (place, letter))
                    if count + width - 1 != numbers[size]:
                        raise NoLineError
                    places.append(place)
                    windows.append(letter)
                    shifted.append(str(axis))
                case _:
                    raise NoLineError
        widths, over = ", ".join(map(self.size, windows)), ", ".join(shifted)
        if len(shifted) > 1:
            widths, over = f"({widths})", f"({over})"
        array = python_name(entry.name)
        view = f"np.lib.stride_tricks.sliding_window_view({array}, {widths}, {over})"
        return view, [*places, *windows]

    def condition(self, node: Condition, wanted: str) -> Code:
        pair = [one.letter for one in node.terms if isinstance(one, Letter)]
        if node.signs == ("=",) and len(pair) == 2 and self.size(pair[0]) == self.size(pair[1]):
            return Code(f"np.eye({self.size(pair[0])})", "".join(pair))
        letters, texts = self.together(node.terms, wanted, *[SUM] * len(node.terms))
        holds = [
            f"{a} {COMPARISONS[sign]} {b}"
            for a, sign, b in zip(texts[:-1], node.signs, texts[1:], strict=True)
        ]
        text = holds[0] if len(holds) == 1 else " & ".join(f"({one})" for one in holds)
        return Code(f"1.0 * ({text})", letters, PRODUCT)

    def call(self, function: str, arguments: Sequence[Node], wanted: str) -> Code:
        if function in SLOPES:
            (argument,) = (self.code(one, wanted) for one in arguments)
            holds = SUM if function == "tanh′" else PRODUCT
            return Code(SLOPES[function].format(argument.within(ATOM)), argument.letters, holds)
        if function not in FUNCTIONS:
            raise NoLineError
        inner = ATOM if function == "σ" else SUM
        letters, texts = self.together(arguments, wanted, *[inner] * len(arguments))
        holds = PRODUCT if function == "σ" else ATOM
        return Code(FUNCTIONS[function].format(*texts), letters, holds)

    def total(self, node: Total, wanted: str) -> Code:
        holds = [PRODUCT if sign < 0 else SUM for sign in node.signs]
        letters, texts = self.together(node.terms, wanted, *holds)
        text = f"-{texts[0]}" if node.signs[0] < 0 else texts[0]
        for sign, term in zip(node.signs[1:], texts[1:], strict=True):
            text += f" - {term}" if sign < 0 else f" + {term}"
        return Code(text, letters, SUM)

    def product(self, node: Product, wanted: str) -> Code:
        holds = [PRODUCT] + [POWER] * (len(node.factors) + len(node.divisors) - 1)
        letters, texts = self.together([*node.factors, *node.divisors], wanted, *holds)
        count = len(node.factors)
        text = " * ".join(texts[:count]) + "".join(f" / {one}" for one in texts[count:])
        return Code(text, letters, PRODUCT)

    def sum(self, summed: Sequence[str], body: Node, wanted: str) -> Code:
        """A sum over letters: a product of matrices, a sum over axes, or an einsum."""
        while isinstance(body, Over) and body.kind == "sum":
            summed, body = (*summed, *body.letters), body.body
        factors, divisors = [body], list[Node]()
        if isinstance(body, Product):
            factors, divisors = list(body.factors), list(body.divisors)
        parts = [self.code(one) for one in factors]
        below = [self.code(one) for one in divisors]
        numbers = [one for one in parts if not one.letters]
        arrays = [one for one in parts if one.letters]
        arrays += [
            Code(f"1 / {one.within(POWER)}", one.letters, PRODUCT) for one in below if one.letters
        ]
        inside = {letter for one in arrays for letter in one.letters}
        numbers += [Code(self.size(one), "") for one in summed if one not in inside]
        found = self.contracted(arrays, [one for one in summed if one in inside], wanted)
        text = " * ".join(
            [*(one.within(POWER) for one in numbers), *([found.within(PRODUCT)] if found else [])]
        )
        text += "".join(f" / {one.within(POWER)}" for one in below if not one.letters)
        if not found:
            return Code(text, "", PRODUCT)
        alone = not numbers and all(one.letters for one in below)
        return Code(text, found.letters, found.holds if alone else PRODUCT)

    def contracted(self, arrays: Sequence[Code], summed: Sequence[str], wanted: str) -> Code | None:
        if not arrays:
            return None
        rest = "".join(dict.fromkeys("".join(one.letters for one in arrays)))
        rest = "".join(letter for letter in rest if letter not in summed)
        out = "".join(letter for letter in wanted if letter in rest)
        out += "".join(letter for letter in rest if letter not in out)
        if len(arrays) == 1:
            return self.reduced(arrays[0], "sum", summed)
        if len(arrays) == 2 and len(summed) == 1 and len(out) == 2:
            (letter,) = summed
            for left, right in (arrays, arrays[::-1]):
                if set(left.letters) == {out[0], letter} and set(right.letters) == {letter, out[1]}:
                    texts = self.turned(left, out[0] + letter), self.turned(right, letter + out[1])
                    return Code(f"{texts[0]} @ {texts[1]}", out, PRODUCT)
        subscripts = f"{','.join(one.letters for one in arrays)}->{out}"
        return Code(f'np.einsum("{subscripts}", {", ".join(one.text for one in arrays)})', out)

    def reduced(self, code: Code, how: str, over: Sequence[str]) -> Code:
        """The sum or maximum over some of an array's axes."""
        axes = [place for place, letter in enumerate(code.letters) if letter in over]
        rest = "".join(letter for letter in code.letters if letter not in over)
        if not axes:
            return code
        axis = f"axis={axes[0] if len(axes) == 1 else tuple(axes)}" if rest else ""
        return Code(f"{code.within(ATOM)}.{how}({axis})", rest)

    def together(self, nodes: Sequence[Node], wanted: str, *holds: int) -> tuple[str, list[str]]:
        """The letters of several parts, and each part's text with these axes."""
        parts = [self.code(one, wanted) for one in nodes]
        there = "".join(dict.fromkeys("".join(one.letters for one in parts)))
        letters = "".join(letter for letter in wanted if letter in there)
        letters += "".join(letter for letter in there if letter not in letters)
        return letters, [
            self.spread(one, letters, hold) for one, hold in zip(parts, holds, strict=True)
        ]

    def spread(self, code: Code, letters: str, holds: int = SUM) -> str:
        """An array's text with axes in this order, of size 1 where it has none."""
        order = "".join(letter for letter in letters if letter in code.letters)
        if not order:
            return code.within(holds)
        behind = letters[letters.index(order[0]) :]
        if behind == code.letters:
            return code.within(holds)
        text = self.turned(code, order)
        if behind == order:
            return text
        index = ", ".join(":" if letter in order else "None" for letter in behind)
        return f"{text}[{index}]"

    def turned(self, code: Code, order: str) -> str:
        """An array's text with its axes in another order."""
        if code.letters == order:
            return code.within(ATOM)
        if len(order) == 2:
            return f"{code.within(ATOM)}.T"
        places = ", ".join(str(code.letters.index(letter)) for letter in order)
        return f"{code.within(ATOM)}.transpose({places})"
