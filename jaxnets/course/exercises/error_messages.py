"""Says an error in a student's code in one line: where it is, the shapes there, what is wrong."""

import ast
import contextlib
import linecache
import re
from collections.abc import Iterator, Mapping
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnets.base.display import shortened
from jaxnets.base.errors import first_line, nearest
from jaxnets.base.language import N_, _

# Names from other libraries that students write, and JAX's own.
ELSEWHERE = {"matmul": "@", "mm": "@", "permute": "transpose", "unsqueeze": "x[:, None]"}
IMPORTS = {
    "jnp": "import jax.numpy as jnp",
    "np": "import numpy as np",
    "jax": "import jax",
    "lax": "from jax import lax",
}
IN_PLACE = {ast.Add: "add", ast.Mult: "multiply", ast.Div: "divide"}  # x.at[i].add(1) for +=.
PRODUCTS = {"dot", "matmul"}
MAX_TEXT = 40  # Characters of the student's code in a message.
# For one, two and three arrays; a message shows no more.
SHAPES = (
    N_("{} is {}: {}"),
    N_("{} is {}, {} is {}: {}"),
    N_("{} is {}, {} is {}, {} is {}: {}"),
)
NOT_DEFINED = N_("{} is not defined; did you mean {}?")
UNKNOWN = object()  # The value of an expression that cannot be evaluated again.


# Messages of Python, NumPy and JAX, and what they mean. Each {} is replaced by a group.
SAID = {
    "argument must be .*, not 'ellipsis'": N_("a number is still ..., the blank to fill in"),
    "truth value of an array": N_(
        "if and while need one truth value, not an array of them; use jnp.where"
    ),
    r"Attempted boolean conversion of traced array": N_(
        "if and while need a number, and a compiled step has none; use jnp.where"
    ),
    r"__array__\(\) was called on traced array": N_(
        "NumPy needs numbers, and a compiled step has none; use jnp instead of np"
    ),
    r"Abstract tracer value encountered": N_(
        "this needs a number, and a compiled step has none; use jnp instead of Python's functions"
    ),
    r"axis (-?\d+) is out of bounds for array of dimension (\d+)": N_(
        "there is no axis {}; the number of axes is {}, and the first is axis 0"
    ),
    r"index (-?\d+) is out of bounds for axis (\d+) with size (\d+)": N_(
        "there is no index {}; axis {} has the size {}, and the first index is 0"
    ),
    r"Too many indices: array is (\d+)-dim\w+, but (\d+) were": N_(
        "the number of axes is {}, the number of indices {}"
    ),
    r"cannot reshape .*\(size (\d+)\) into shape (.+) \(size (\d+)\)": N_(
        "{} numbers do not fill the shape {}, which takes {}"
    ),
    r"(\w+)\(\) got an unexpected keyword argument 'dim'": N_(
        "in {} there is no argument dim; did you mean axis?"
    ),
    r"(\w+)\(\) got an unexpected keyword argument 'keepdim'": N_(
        "in {} there is no argument keepdim; did you mean keepdims?"
    ),
    r"'axis' is an invalid keyword argument for (\w+)|\b(\w+)\(\) got .* argument 'axis'": N_(
        "Python's own {} has no argument axis; use the one in jnp"
    ),
    r"(\w+)\(\) got an unexpected keyword argument '(\w+)'": N_("in {} there is no argument {}"),
    r"not enough values to unpack \(expected (\d+), got (\d+)\)": N_(
        "the number of names before the = is {}, the number of values {}"
    ),
    r"too many values to unpack \(expected (\d+)": N_(
        "the number of names before the = is {}, and there are more values"
    ),
    r"Size of label '(\w)' for operand \d+ \((\d+)\) does not match .*\((\d+)\)": N_(
        "the letter {} names an axis of size {} and another of size {}"
    ),
    r"sum subscript '(\w+)' does not contain the correct number": N_(
        "{} must have a letter for each axis"
    ),
    r"lhs feature dimension size .* but (\d+) // (\d+) != (\d+)": N_(
        "the input has {} channels in {} groups, the kernel takes {} channels; "
        "dimension_numbers says which axis holds them"
    ),
}


class Operand(NamedTuple):
    """A part of the expression that failed, and its value."""

    text: str
    value: Any

    @property
    def is_array(self) -> bool:
        return isinstance(self.value, jax.Array | np.ndarray) and self.value.ndim > 0


class FailedCode(NamedTuple):
    """The place in a student's code that has failed."""

    frame: FrameType
    line: int
    source: str
    statement: ast.stmt | None
    node: ast.AST | None  # The expression; None if it cannot be found.

    def operand(self, node: ast.AST) -> Operand:
        """A part of the expression, with its value, which is evaluated again."""
        text = " ".join(str(ast.get_source_segment(self.source, node)).split())
        value = UNKNOWN
        with contextlib.suppress(Exception):
            code = compile(ast.Expression(node), "part", "eval")  # type: ignore[arg-type]
            value = eval(code, self.frame.f_globals, self.names)
        return Operand(shortened(text, MAX_TEXT), value)

    @property
    def names(self) -> Mapping[str, Any]:
        return self.frame.f_locals


class ResultError(Exception):
    """A function returned something other than what was asked for, or used autodiff."""


def error_message(error: BaseException, file: str) -> str:
    """Says what is wrong in a student's file: its line, and the shapes of the arrays there."""
    if isinstance(error, RecursionError):
        return _("it calls itself without end")
    failed = _failed_code(error, file)
    return _("line {}: {}", failed.line, _reason(error, failed)) if failed else _plain(error)


def _failed_code(error: BaseException, file: str) -> FailedCode | None:
    """The last step of a traceback in the student's file."""
    steps, step = [], error.__traceback__
    while step:
        if step.tb_frame.f_code.co_filename == file:
            steps.append(step)
        step = step.tb_next
    if not steps:
        return None
    last = steps[-1]
    source = "".join(linecache.getlines(file))
    position = list(last.tb_frame.f_code.co_positions())[last.tb_lasti // 2]
    line, end, start, stop = position
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):  # A notebook's magic.
        nodes = []
    statements = [
        node
        for node in nodes
        if isinstance(node, ast.stmt) and node.lineno <= (line or 0) <= (node.end_lineno or 0)
    ]
    where = (line, start, end, stop)
    found = [node for node in nodes if isinstance(node, ast.expr) and _where(node) == where]
    statement = statements[-1] if statements else None  # The innermost one: the walk goes inwards.
    return FailedCode(last.tb_frame, last.tb_lineno, source, statement, found[0] if found else None)


def _where(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def _reason(error: BaseException, failed: FailedCode) -> str:
    node = failed.node
    if isinstance(error, NameError) and isinstance(node, ast.Name):
        return _no_name(error, node.id, failed)
    if isinstance(error, AttributeError) and isinstance(node, ast.Attribute):
        return _no_attribute(node, failed)
    if isinstance(error, KeyError) and isinstance(node, ast.Subscript):
        owner, key = failed.operand(node.value), failed.operand(node.slice)
        if isinstance(owner.value, Mapping):
            known = ", ".join(owner.value)
            return _("{} has no {} here; it has {}", owner.text, key.text, known)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        array = failed.operand(node.value)
        if isinstance(array.value, jax.Array):
            return _in_place(array.text, node, failed)
    operands = [failed.operand(part) for part in _parts(node)]
    if isinstance(error, TypeError):
        if isinstance(node, ast.Call):
            function = failed.operand(node.func)
            if function.value is not UNKNOWN and not callable(function.value):
                return _("{} is {}, not a function", function.text, kind_in_words(function.value))
        for operand in operands:
            if said := _no_array(operand):
                return said
    arrays = list({one.text: one for one in operands if one.is_array}.values())
    said = _no_fit(node, arrays, first_line(error)) or _plain(error)
    shown = arrays[: len(SHAPES)]
    parts = [part for one in shown for part in (one.text, one.value.shape)]
    return _(SHAPES[len(shown) - 1], *parts, said) if shown else said


def _parts(node: ast.AST | None) -> Iterator[ast.expr]:
    """The operands of an operator, the arguments of a call, or the object that is indexed."""
    match node:
        case ast.BinOp(left=left, right=right):
            yield from (left, right)
        case ast.Compare(left=left, comparators=others):
            yield from (left, *others)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            if isinstance(function, ast.Attribute):
                yield function.value
            for part in [*arguments, *(keyword.value for keyword in keywords)]:
                yield from part.elts if isinstance(part, ast.List | ast.Tuple) else [part]
        case ast.Subscript(value=value) | ast.Attribute(value=value):
            yield value
        case ast.expr():
            yield node


def _no_name(error: NameError, name: str, failed: FailedCode) -> str:
    if isinstance(error, UnboundLocalError):
        return _("{} has no value yet", name)
    if name in IMPORTS:
        return _("{} is not defined; the file needs the line {}", name, IMPORTS[name])
    for owner, value in failed.names.items():
        if isinstance(value, Mapping) and name in value:
            entry = f'{owner}["{name}"]'
            return _(NOT_DEFINED, name, entry)
    modules = {
        alias: value.__name__
        for alias, value in failed.frame.f_globals.items()
        if isinstance(value, ModuleType)
    }
    for alias, module in modules.items():
        if module == name:
            return _(NOT_DEFINED, name, alias)
    if near := nearest(name, [*failed.names, *modules]):
        return _(NOT_DEFINED, name, near)
    return _("{} is not defined; the names here are {}", name, ", ".join(failed.names))


def _no_attribute(node: ast.Attribute, failed: FailedCode) -> str:
    owner, name = failed.operand(node.value), node.attr
    if said := _no_array(owner):
        return said
    if isinstance(owner.value, jax.Array | np.ndarray):
        said = _("an array has no attribute {}", name)
    else:
        text = owner.text if isinstance(owner.value, ModuleType) else kind_in_words(owner.value)
        said = _("{} has no attribute {}", text, name)
    known = [one for one in dir(owner.value) if not one.startswith("_")]
    near = ELSEWHERE.get(name) or nearest(name, known)
    return said + _("; did you mean {}?", near) if near else said


def _in_place(array: str, node: ast.Subscript, failed: FailedCode) -> str:
    index = failed.operand(node.slice).text
    how, value = "set", "..."
    match failed.statement:
        case ast.Assign(value=new):
            value = failed.operand(new).text
        case ast.AugAssign(op=operator, value=new) if type(operator) in IN_PLACE:
            how, value = IN_PLACE[type(operator)], failed.operand(new).text
        case ast.AugAssign(op=ast.Sub(), value=new):
            how, value = "add", f"-({failed.operand(new).text})"
    right = f"{array} = {array}.at[{index}].{how}({value})"
    return _("an array of JAX does not change in place; write {}", right)


def _no_array(operand: Operand) -> str | None:
    """The reason why an operand is not an array; None if no reason is known."""
    text, value = operand
    if value is ...:
        return _("{} is still ..., the blank to fill in", text)
    if value is None:
        return _("{} is None, not an array", text)
    if isinstance(value, Mapping):
        entries = ", ".join(f'{text}["{name}"]' for name in value)
        return _("{} is a dict; its arrays are {}", text, entries)
    if isinstance(value, tuple) and not all(isinstance(part, int) for part in value):
        parts = ", ".join(f"{text}[{number}]" for number in range(len(value)))
        return _("{} is a tuple; its parts are {}", text, parts)
    if callable(value) and not isinstance(value, type):
        return _("{} is a function, not an array; call it with ( )", text)
    return None


def _no_fit(node: ast.AST | None, arrays: list[Operand], message: str) -> str | None:
    """The reason why two arrays' shapes do not fit; None if the error is another one."""
    if len(arrays) != 2:
        return None
    (first, a), (second, b) = ((one.text, one.value.shape) for one in arrays)
    match node:
        case ast.BinOp(op=ast.MatMult()):
            product = True
        case ast.Call(func=ast.Attribute(attr=name)):
            product = name in PRODUCTS and max(len(a), len(b)) <= 2
        case _:
            product = False
    if product:
        left = a[-1], _("columns") if len(a) > 1 else _("numbers")
        right = (b[-2], _("rows")) if len(b) > 1 else (b[0], _("numbers"))
        return _(
            "{} has {} {} and {} has {} {}; in a product of matrices these must be equal",
            first,
            *left,
            second,
            *right,
        )
    if not isinstance(node, ast.BinOp) and "broadcast" not in message:
        return None
    small, large = sorted((a, b), key=len)
    if len(small) < len(large) and small == large[: len(small)]:
        fits = (*small, 1)
        return _("a sum with keepdims=True is {} instead of {}, which fits", fits, small)
    return _("number by number, both sizes of an axis must be equal, or one of them must be 1")


def _plain(error: BaseException) -> str:
    """The message of Python or JAX; in plainer words if students often see it."""
    message = first_line(error)
    if isinstance(error, SyntaxError):
        return _("line {}: {}", error.lineno, error.msg)
    for pattern, said in SAID.items():
        if found := re.search(pattern, message):
            return _(said, *(group.lstrip("_") for group in found.groups() if group))
    message = re.sub(r"'?\b(DynamicJaxprTracer|JitTracer|ArrayImpl)\b'?", "array", message)
    kind = type(error).__name__
    return kind if message == kind else f"{kind}: {message}"


def kind_in_words(value: Any) -> str:
    """The kind of a value, in the reader's language."""
    if isinstance(value, jax.Array | np.ndarray):
        return _("an array")
    return _("a {}", type(value).__name__)
