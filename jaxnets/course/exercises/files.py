"""Reads a student's file, finds the exercises in it, and names code that no exercise needs.

Uses of autodiff and of other imports are an honest error, found before the file runs. Code that
looks like a way around this is flagged for the teacher. The protection is in sandbox.py, not here.
"""

import ast
import os
import re
import stat
import warnings
from collections.abc import Sequence

from jaxnets.base.errors import UserError, did_you_mean, first_line
from jaxnets.base.language import Text, _
from jaxnets.course.exercises.catalogue import BY_FUNCTION, imports_of

MAX_SOURCE = 100_000  # Characters.
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # A named pipe would keep the reader waiting.
BYTES = getattr(os, "O_BINARY", 0)  # Windows would end the file at its first Ctrl-Z.
MODULES = {"jax", "jax.numpy", "jax.lax", "jax.nn", "numpy", "math", "functools", "itertools"}
OF_JAX = {"numpy", "lax", "nn", "Array", "jit", "vmap", "tree", "random"}  # After "jax.".

# The functions of JAX that differentiate.
AUTODIFF = {
    "grad", "value_and_grad", "hessian", "jacfwd", "jacrev", "jacobian", "vjp", "jvp", "linearize",
    "linear_transpose", "fwd_and_bwd",
}  # fmt: skip
# These, and the functions that change how JAX differentiates.
DIFFERENTIATES = AUTODIFF | {
    "checkpoint", "remat", "custom_vjp", "custom_jvp", "custom_gradient", "closure_convert",
    "custom_root", "custom_linear_solve",
}  # fmt: skip
# Names through which Python reaches what a file does not name or import.
REACHES = {
    "getattr", "setattr", "delattr", "vars", "dir", "globals", "locals", "eval", "exec", "compile",
    "breakpoint", "wraps", "update_wrapper", "partialmethod", "sys", "os", "ctypes", "ctypeslib",
    "f2py", "testing", "builtins", "pickle", "inspect", "load",
}  # fmt: skip
IN_TEXT = re.compile(r"_src|__|\b({})\b".format("|".join(DIFFERENTIATES)))
OF_A_DERIVATIVE = re.compile("jvp|vjp|jac|hess|lineari|autodiff")


def read_source(path: str) -> str:
    """Reads a regular file that is not a link.

    Raises:
      UserError: It is not such a file, is too large, or is not text.
    """
    try:
        file = os.open(path, os.O_RDONLY | NO_LINK | NO_WAITING | BYTES)
    except OSError as error:
        raise UserError("{}: expected a file of yours: {}", path, error.strerror) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UserError("{}: expected a file, got a folder or a device", path)
        with open(file, "rb", closefd=False) as opened:
            content = opened.read(4 * MAX_SOURCE + 1)
    finally:
        os.close(file)
    try:
        source = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("{}: expected a text in UTF-8: {}", path, error.reason) from error
    if len(source) > MAX_SOURCE:
        raise UserError("{}: expected at most {} characters", path, f"{MAX_SOURCE:,}")
    return source


def exercises_in(source: str, path: str) -> dict[str, str]:
    """The functions that are exercises, and for each why it cannot be judged: "" if it can.

    Raises:
      UserError: There is no such function.
    """
    tree = parse_exercise(source)
    if isinstance(tree, str):
        raise UserError("{}: {}", path, tree)
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = list(dict.fromkeys(name for name in defined if name in BY_FUNCTION))
    if not names:
        hint = next(filter(None, (did_you_mean(name, BY_FUNCTION) for name in defined)), "")
        got = ", ".join(defined) or "none"
        wanted = Text("expected a function of an exercise, such as dense_backward or bug15")
        raise UserError("{}: {}, got {}{} (jaxnets exercise lists all)", path, wanted, got, hint)
    return {name: violation(tree, importable(name, names)) or "" for name in names}


def importable(function: str, beside: Sequence[str]) -> frozenset[str]:
    """The names of jaxnets that a function may import.

    These are the imports of its own exercise, and those of the other exercises in its file that
    are not backward passes.
    """
    others = {name for other in beside for name in imports_of(BY_FUNCTION[other])}
    harmless = {name for name in others if name.rpartition(".")[2] not in BY_FUNCTION}
    return imports_of(BY_FUNCTION[function]) | harmless


def parse_exercise(source: str) -> ast.Module | str:
    """The syntax tree of a source, or why there is none."""
    if len(source) > MAX_SOURCE:
        return f"expected at most {MAX_SOURCE:,} characters, got {len(source):,}"
    try:
        with warnings.catch_warnings(action="ignore"):  # They would quote the source.
            return ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"not Python: {first_line(error)}"


def violation(tree: ast.AST, allowed: frozenset[str] = frozenset()) -> str | None:
    """The first thing in a file that no exercise needs, with its line; None if there is none.

    Args:
      tree: The file's syntax tree.
      allowed: Names of jaxnets that the exercise itself imports, such as "jaxnets.losses.expected".
    """
    found = [
        (getattr(node, "lineno", 0), reason)
        for node in ast.walk(tree)
        if (reason := _reason(node, allowed))
    ]
    return _("line {}: {}", *min(found)) if found else None


def suspicion(tree: ast.AST) -> str:
    """The first thing in a file that looks like a way to autodiff.

    A submission with such code runs, and may pass: the teacher should read it. "" if there is none.
    """
    said = {  # A docstring may mention anything.
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = [
        (node.lineno, reached)
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and id(node) not in said and (reached := _reached(node))
    ]
    return _("line {}: {}", *min(found)) if found else ""


def _reached(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) if name in REACHES or name.startswith("__"):
            return name
        case ast.Attribute(attr=name):
            derives = OF_A_DERIVATIVE.search(name)
            return name if derives or name in REACHES or name.startswith("_") else ""
        case ast.Constant(value=str() as text) if found := IN_TEXT.search(text):
            return repr(found[0])
    return ""


def _reason(node: ast.AST, allowed: frozenset[str]) -> str | None:
    if isinstance(node, ast.Import):
        return next(filter(None, (_module(alias.name) for alias in node.names)), None)
    if isinstance(node, ast.ImportFrom):
        module = node.module or "."
        for alias in node.names:
            if f"{module}.{alias.name}" in allowed or f"{module}.{alias.name}" in MODULES:
                continue
            if reason := _module(module) or _name(alias.name):
                return reason
            if module == "jax" and alias.name not in OF_JAX:
                return _("imports jax.{}; an exercise needs no more than jax.numpy", alias.name)
            if alias.name == "*":
                return _("imports *; name what you import")
        return None
    if isinstance(node, ast.Attribute):
        of_jax = isinstance(node.value, ast.Name) and node.value.id == "jax"
        other = of_jax and node.attr not in OF_JAX
        return _name(node.attr) or (_("uses jax.{}", node.attr) if other else None)
    return None


def _module(name: str) -> str | None:
    if name in MODULES:
        return None
    return _("imports {}; an exercise may import {}", name, ", ".join(sorted(MODULES)))


def _name(name: str) -> str | None:
    if name in DIFFERENTIATES:
        return _("uses {}; a gradient by hand is derived without it", name)
    return None
