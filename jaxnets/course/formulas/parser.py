r"""Reads a formula in index notation.

    dW_dk = Σ_b X_bd dZ_bk      dW[d,k] = sum(b) X[b,d] dZ[b,k]      dW_{dk} = \sum_b X_{bd} dZ_{bk}

A factor follows a factor with a space, * or ·; products and quotients are read from left to right.
A sum reaches to the end of its term, that is to the next + or -; brackets end it earlier. An index
may be shifted or strided: X_b,2i+p,j. A condition in brackets, [z_bk > 0], is 1 or 0.
"""

import contextlib
import re
from collections.abc import Generator, Mapping
from typing import NamedTuple, NoReturn

from jaxnets.base.display import shortened
from jaxnets.base.language import _
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
    free_letters,
)
from jaxnets.course.formulas.values import FUNCTIONS

MOST_CHARACTERS, MOST_DEPTH = 1000, 60
AROUND = 30  # Characters of a formula on each side of an error.
GREEK: dict[str, str] = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η",
    "lambda": "λ", "mu": "μ", "nu": "ν", "sigma": "σ", "sqrt": "√", "sum": "Σ", "partial": "∂",
}  # fmt: skip
GREEK |= {"varepsilon": "ε", "eps": "ε", "sigmoid": "σ", "ln": "log", "ReLU": "relu"}
COMMANDS = {"cdot": "·", "times": "·", "odot": "·", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥"}
COMMANDS |= {"ne": "≠", "neq": "≠", "gt": ">", "lt": "<", "prime": "′"}
SIGNS = {">": ">", "<": "<", ">=": "≥", "<=": "≤", "≥": "≥", "≤": "≤", "=": "=", "==": "="}
SIGNS |= {"≠": "≠", "!=": "≠"}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))
TOKEN = re.compile(
    r"""
    (?P<space>(?:\s|\\[,;:!\ ]|\\(?:left|right|quad|displaystyle)(?![A-Za-z]))+)
  | (?P<number>\d+(?:\.\d+)?|\.\d+)
  | (?P<hat>\\hat\s*\{?\s*(?P<under>\\?[A-Za-zα-ω]+)\s*\}?)
  | (?P<name>[∂d]?[α-ω]̂?|∂[A-Za-z]*[0-9]*̂?|\\?[A-Za-z]+[0-9]*̂?)
  | (?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)
  | (?P<sign>\*\*|[><!=]=|[-+−–*·×⋅⊙/^_()\[\]{},=<>≤≥≠√Σ∑'′’ᵀ])
    """,
    re.VERBOSE,
)
SAME = {"−": "-", "–": "-", "*": "·", "×": "·", "⋅": "·", "⊙": "·", "∑": "Σ", "'": "′", "’": "′"}
SAME |= {"**": "^"}
CLOSING = {"(": ")", "[": "]", "{": "}"}


class FormulaError(ValueError):
    """A formula cannot be read, or not computed; one line says why, and where."""


class Token(NamedTuple):
    """A word or a sign of a formula."""

    kind: str  # "name", "number", "raised", "sign" or "end".
    text: str
    at: int
    end: int


class Names(NamedTuple):
    """The names that a formula may use."""

    ranks: Mapping[str, int]  # The number of indices of each array.
    scalars: frozenset[str] = frozenset()


def canonical(name: str) -> str:
    """A name with Greek letters and hats: dgamma is dγ, xhat is x̂."""
    name = name.replace("\\", "")
    if name in GREEK:
        return GREEK[name]
    prefix, rest = (name[0], name[1:]) if name[:1] in ("d", "∂") else ("", name)
    hat = "̂" if rest.endswith("hat") and len(rest) > 3 else ""
    rest = rest[:-3] if hat else rest
    greek = GREEK.get(rest, rest)
    return prefix + greek + hat if hat or greek != rest else name


def tokens_of(text: str) -> list[Token]:
    """The words and signs of a formula, then one that ends it.

    Raises:
      FormulaError: A sign is unknown, or the text is too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise FormulaError(_("expected at most {} characters", MOST_CHARACTERS))
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise _error(text, at, _("what does {} mean?", text[at]))
        kind, word, at = match.lastgroup or "", match[0], match.end()
        if match["hat"]:
            kind, word = "name", canonical(match["under"]) + "̂"
        elif kind == "name":
            word = canonical(word)
            command = COMMANDS.get(word, word)
            if command != word or word in ("√", "Σ"):
                kind, word = "sign", command
        elif kind == "raised":
            word = "".join(RAISED[sign] for sign in word)
        last = found[-1] if found else None
        if kind == "sign":
            word = SAME.get(word, word)
            if word == "′" and last and last.kind == "name" and last.end == match.start():
                found[-1] = last._replace(text=last.text + "′", end=at)
                continue
        # \partial L, d\gamma.
        begun = last.text if last and last.kind == kind == "name" else ""
        if last and (begun == "∂" or (begun == "d" and match[0].startswith("\\"))):
            found[-1] = last._replace(text=last.text + word, end=at)
            continue
        if kind != "space":
            found.append(Token(kind, word, match.start(), at))
    return [*found, Token("end", "", len(text), len(text))]


def _error(text: str, at: int, message: str) -> FormulaError:
    before, after = text[:at].lstrip(), text[at:].rstrip()
    before = "…" + before[-AROUND:] if len(before) > AROUND else before
    return FormulaError(_("{}, at the arrow: {}", message, before + "→" + shortened(after, AROUND)))


def parse(text: str, names: Names) -> Formula:
    """A formula with its name and indices.

    Raises:
      FormulaError: It cannot be read, or an index is neither summed nor on the left; the message is
        one line.
    """
    return _Parser(text, names).formula()


class _Parser:
    def __init__(self, text: str, names: Names):
        self.text, self.names = text, names
        self.tokens, self.place, self.depth = tokens_of(text), 0, 0
        self.in_condition = False  # There a letter is a number, as in [i = j].

    # Tokens.
    @property
    def next(self) -> Token:
        return self.tokens[self.place]

    def after(self, count: int = 1) -> Token:
        return self.tokens[min(self.place + count, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.next
        self.place = min(self.place + 1, len(self.tokens) - 1)
        return token

    def takes(self, *signs: str) -> bool:
        """Whether the next token is one of these signs, which is then taken."""
        if self.next.kind == "sign" and self.next.text in signs:
            self.take()
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.takes(sign):
            self.fail(_("expected {}", sign))

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        raise _error(self.text, self.next.at if at is None else at, message)

    def is_sign(self, *signs: str, token: Token | None = None) -> bool:
        token = token or self.next
        return token.kind == "sign" and token.text in signs

    # Formulas.
    def formula(self) -> Formula:
        name, letters = self.target()
        self.expect("=")
        if self.next.kind == "end":
            self.fail(_("nothing is on the right"))
        value = self.expression()
        if self.next.kind != "end":
            self.fail(_("expected the end, got {}", self.next.text))
        self.expect_letters(name, letters, value)
        return Formula(name, letters, value, self.text.strip())

    def expect_letters(self, name: str, letters: tuple[str, ...], value: Node) -> None:
        """Each letter on the right is either on the left or summed."""
        for letter in sorted(free_letters(value) - set(letters)):
            raise FormulaError(_("{} is on the right but neither summed nor on the left", letter))
        for node in value.walk():
            for letter in node.letters if isinstance(node, Over) else ():
                if letter in letters:
                    raise FormulaError(
                        _("you sum over {}, but {} names the entry of {}", letter, letter, name)
                    )

    def target(self) -> tuple[str, tuple[str, ...]]:
        token = self.next
        if token.text == "frac":
            name, indices = self.fraction_of_differentials() or ("", ())
        else:
            name = self.differential() or (self.take().text if token.kind == "name" else "")
            indices = self.subscript(None) if name else ()
        letters = tuple(one.letter if isinstance(one, Letter) else "" for one in indices)
        if not name:
            self.fail(_("expected a name such as dW_dk"), token.at)
        if "" in letters or len(set(letters)) < len(letters):
            self.fail(_("each index on the left is a different letter"), token.at)
        return name, letters

    def differential(self) -> str:
        """The name dW of ∂L/∂W, which is taken; "" if something else is next."""
        over, slash, under = self.next, self.after(), self.after(2)
        starts = over.kind == "name" and over.text in ("∂L", "dL") and under.kind == "name"
        if starts and self.is_sign("/", token=slash) and under.text[:1] in ("∂", "d"):
            if over.text == "dL" and under.text not in self.names.ranks:
                return ""
            self.place += 3
            return "d" + under.text[1:]
        return ""

    def fraction_of_differentials(self) -> tuple[str, tuple[Node, ...]] | None:
        r"""The gradient \frac{∂L}{∂W_dk}; None, and nothing is taken, if something else is next."""
        texts = [self.after(count).text for count in range(5)]
        under = self.after(5)
        if texts not in (["frac", "{", "∂L", "}", "{"], ["frac", "{", "dL", "}", "{"]):
            return None
        if under.kind != "name" or under.text[:1] not in ("∂", "d"):
            return None
        self.place += 6
        name = "d" + under.text[1:]
        indices = self.subscript(self.names.ranks.get(name))
        self.expect("}")
        return name, indices

    # Expressions.
    @contextlib.contextmanager
    def deeper(self) -> Generator[None]:
        """Counts how deep the parts within parts are: Python's own limit would end the program."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            self.fail(_("too many brackets"))
        yield
        self.depth -= 1

    def expression(self) -> Node:
        sign = -1 if self.is_sign("-") else 1
        self.takes("+", "-")
        terms, signs = [self.term()], [sign]
        while self.is_sign("+", "-"):
            signs.append(-1 if self.take().text == "-" else 1)
            terms.append(self.term())
        return terms[0] if signs == [1] else Total(tuple(terms), tuple(signs))

    def term(self) -> Node:
        with self.deeper():
            return self.product()

    def product(self) -> Node:
        factors, divisors = list[Node](), list[Node]()
        below = False
        while True:
            explicit = bool(factors)
            sum_begins = self.begins_over()
            factor = self.over() if sum_begins else self.factor(minus=explicit)
            (divisors if below else factors).append(factor)
            below = False
            if sum_begins:
                break
            if self.takes("/"):
                below = True
            elif not self.takes("·") and not self.begins_factor():
                break
        if len(factors) == 1 and not divisors:
            return factors[0]
        return Product(tuple(factors), tuple(divisors))

    def begins_factor(self) -> bool:
        token = self.next
        if token.kind == "number" and self.tokens[self.place - 1].kind == "number":
            self.fail(_("two numbers in a row"))
        return token.kind in ("name", "number") or self.is_sign("(", "[", "{", "√", "Σ")

    def factor(self, *, minus: bool = False) -> Node:
        with self.deeper():
            return self.power(minus)

    def power(self, minus: bool) -> Node:
        if minus and self.takes("-"):
            return Total((self.factor(),), (-1,))
        base = self.primary()
        token = self.next
        self.expect_no_transpose()
        if token.kind == "raised":
            self.take()
            return Power(base, self.signed_number(token))
        if self.takes("^"):
            return Power(base, self.exponent())
        return base

    def expect_no_transpose(self) -> None:
        if self.is_sign("ᵀ") or (self.is_sign("^") and self.after().text in ("T", "\\top")):
            self.fail(_("index notation has no ᵀ: exchange the indices"))

    def signed_number(self, token: Token) -> Node:
        try:
            value = float(token.text)
        except ValueError:
            self.fail(_("expected a number"), token.at)
        return Number(value) if value >= 0 else Total((Number(-value),), (-1,))

    def exponent(self) -> Node:
        if self.takes("-"):
            return Total((self.primary(),), (-1,))
        return self.primary()

    def primary(self) -> Node:
        token = self.next
        if token.kind == "number":
            self.take()
            return Number(float(token.text))
        if self.is_sign("[") and self.compares():
            return self.condition()
        if self.is_sign("(", "[", "{"):
            self.take()
            inner = self.expression()
            self.expect(CLOSING[token.text])
            return inner
        if self.takes("√"):
            return Call("sqrt", (self.factor(),))
        if token.kind == "name":
            return self.named()
        if self.begins_over():
            return self.over()
        what = _("the end") if token.kind == "end" else shortened(token.text, AROUND)
        self.fail(_("expected a factor, got {}", what))

    def named(self) -> Node:
        token, ranks = self.next, self.names.ranks
        if name := self.differential():
            return self.entry(name, token)
        if token.text == "frac":
            if gradient := self.fraction_of_differentials():
                return self.checked(Entry(*gradient, self.text[token.at : self.end]), token)
            return self.fraction()
        self.take()
        name = token.text
        subscripted = self.is_sign("_") or (self.is_sign("[") and not self.compares())
        if name in FUNCTIONS and not (name in ranks and subscripted):
            return self.call(name)
        if name in ("δ", "delta") and "δ" not in ranks:
            return self.delta(token)
        is_letter = len(name) == 1 and name.islower() and not subscripted
        is_number = name in self.names.scalars or ranks.get(name) == 0
        if is_letter and self.in_condition and not is_number:
            return Letter(name)
        if name in ranks:
            return self.entry(name, token)
        if name in self.names.scalars:
            return Scalar(name)
        if name == "e" and self.takes("^"):
            return Call("exp", (self.exponent(),))
        self.fail_unknown(name, token)

    def fail_unknown(self, name: str, token: Token) -> NoReturn:
        known = ", ".join([*self.names.ranks, *sorted(self.names.scalars)])
        self.fail(_("unknown name {}; known are {}", name, known), token.at)

    @property
    def end(self) -> int:
        return self.tokens[self.place - 1].end

    def entry(self, name: str, token: Token) -> Entry:
        indices = self.subscript(self.names.ranks.get(name))
        return self.checked(Entry(name, indices, self.text[token.at : self.end]), token)

    def checked(self, entry: Entry, token: Token) -> Entry:
        rank = self.names.ranks.get(entry.name)
        if rank is None:
            self.fail_unknown(entry.name, token)
        self.expect_no_transpose()
        if rank != len(entry.indices):
            count = len(entry.indices)
            self.fail(_("indices of {}: expected {}, got {}", entry.name, rank, count), token.at)
        return entry

    def fraction(self) -> Node:
        self.take()
        parts = []
        for _part in range(2):
            self.expect("{")
            parts.append(self.expression())
            self.expect("}")
        return Product((parts[0],), (parts[1],))

    def call(self, name: str) -> Node:
        takes = FUNCTIONS[name].arguments
        if not self.takes("("):
            if takes > 1:
                self.fail(_("expected {}", "("))
            return Call(name, (self.factor(),))
        arguments = [self.expression()]
        while self.takes(","):
            arguments.append(self.expression())
        if len(arguments) != takes:
            self.fail(_("arguments of {}: expected {}, got {}", name, takes, len(arguments)))
        self.expect(")")
        return Call(name, tuple(arguments))

    def delta(self, token: Token) -> Node:
        brackets = self.is_sign("(")
        indices = self.indices_until(")") if brackets else self.subscript(2)
        if len(indices) != 2:
            self.fail(_("indices of {}: expected {}, got {}", "δ", 2, len(indices)), token.at)
        return Condition(tuple(indices), ("=",))

    # Conditions.
    def compares(self) -> bool:
        """Whether the bracket that is next holds a comparison."""
        depth = 0
        for token in self.tokens[self.place :]:
            if token.kind == "sign" and token.text in CLOSING:
                depth += 1
            elif token.kind == "sign" and token.text in CLOSING.values():
                depth -= 1
                if depth <= 0:
                    return False
            elif depth and token.kind == "sign" and token.text in SIGNS:
                return True
        return False

    def condition(self) -> Node:
        self.take()
        outside, self.in_condition = self.in_condition, True
        terms, signs = [self.expression()], list[str]()
        while self.next.kind == "sign" and self.next.text in SIGNS:
            signs.append(SIGNS[self.take().text])
            terms.append(self.expression())
        self.in_condition = outside
        self.expect("]")
        return Condition(tuple(terms), tuple(signs))

    # Sums and maxima over indices.
    def begins_over(self) -> bool:
        if self.is_sign("Σ"):
            return True
        if self.next.kind != "name" or self.next.text != "max":
            return False
        if self.is_sign("_", token=self.after()):
            return True
        place = self.place + 1
        if not self.is_sign("(", token=self.tokens[place]):
            return False
        while not self.is_sign(")", token=self.tokens[place]):
            place += 1
            token = self.tokens[place]
            is_letter = token.kind == "name" and token.text not in self.names.scalars
            if not is_letter and not self.is_sign(",", ")", token=token):
                return False
        return self.tokens[place + 1].kind == "name"

    def over(self) -> Node:
        token = self.take()
        kind = "sum" if token.text == "Σ" else "max"
        indices = self.indices_until(")") if self.is_sign("(") else self.subscript(None)
        letters = tuple(one.letter if isinstance(one, Letter) else "" for one in indices)
        if not letters or "" in letters or len(set(letters)) < len(letters):
            self.fail(_("expected letters after the sum, such as Σ_b"), token.at)
        if any(one.isupper() for one in letters) or not self.begins_factor():
            self.fail(_("expected a space and a term after the letters of the sum"), token.at)
        return Over(kind, letters, self.term())

    # Indices.
    def subscript(self, rank: int | None) -> tuple[Node, ...]:
        """The indices after a name; () if there are none."""
        if rank == 0:
            return ()
        if self.is_sign("["):
            return () if self.compares() else self.indices_until("]")
        if not self.takes("_"):
            return ()
        if self.is_sign("{"):
            return self.indices_until("}")
        return self.tight_indices(rank)

    def indices_until(self, closing: str) -> tuple[Node, ...]:
        self.take()
        found = list[Node]()
        while not self.is_sign(closing):
            if self.next.kind == "end":
                self.fail(_("expected {}", closing))
            found += self.index_item()
            self.takes(",")
        self.take()
        return tuple(found)

    def tight_indices(self, rank: int | None) -> tuple[Node, ...]:
        """Indices without brackets: bd, or b,i+p,c with commas and no space."""
        if self.next.kind not in ("name", "number"):
            self.fail(_("expected an index"))
        found = self.letters_of(self.take())
        while rank is not None and len(found) < rank:
            end = self.tokens[self.place - 1].end
            if not self.is_sign(",") or self.next.at != end or self.after().at != self.next.end:
                break
            self.take()
            found += self.index_item(tight=True)
        return tuple(found)

    def index_item(self, *, tight: bool = False) -> list[Node]:
        """One index, which may be shifted; or several letters that follow each other."""
        start = self.place
        found = self.index_sum(tight)
        if self.place == start + 1 and self.tokens[start].kind == "name":
            return self.letters_of(self.tokens[start])
        return [found]

    def index_sum(self, tight: bool) -> Node:
        sign = -1 if self.takes("-") else 1
        terms, signs = [self.index_product(tight)], [sign]
        while self.is_sign("+", "-") and not (tight and self.ends_index()):
            signs.append(-1 if self.take().text == "-" else 1)
            terms.append(self.index_product(tight))
        return terms[0] if signs == [1] else Total(tuple(terms), tuple(signs))

    def ends_index(self) -> bool:
        """Whether a + or - after an index without brackets does not belong to it."""
        sign, token, behind = self.next, self.after(), self.after(2)
        apart = sign.at != self.end or token.at != sign.end
        named = token.kind == "name" and self.is_sign("_", "[", "(", token=behind)
        return apart or named or (token.kind == "name" and not token.text.islower())

    def index_product(self, tight: bool) -> Node:
        factors = list[Node]()
        while True:
            token = self.next
            if factors and tight and token.at != self.end:
                break
            if token.kind == "number":
                self.take()
                factors.append(Number(float(token.text)))
            elif token.kind == "name":
                factors += self.letters_of(self.take())
            elif self.takes("("):
                with self.deeper():
                    factors.append(self.index_sum(tight=False))
                self.expect(")")
            elif not factors:
                self.fail(_("expected an index"))
            follows = self.next.kind in ("number", "name") or self.is_sign("(")
            if not self.takes("·") and not follows:
                break
        return factors[0] if len(factors) == 1 else Product(tuple(factors))

    def letters_of(self, token: Token) -> list[Node]:
        if token.kind == "number":
            return [Number(float(token.text))]
        if token.text in self.names.scalars:
            return [Scalar(token.text)]
        source = self.text[token.at : token.end]
        if not source.isalpha():
            self.fail(_("expected an index"), token.at)
        return [Scalar(one) if one in self.names.scalars else Letter(one) for one in source]
