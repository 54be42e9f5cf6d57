"""A friendly check of a student's file: it names autodiff or an import that no exercise needs.

It finds an honest mistake before the file runs. It is no protection: that is sandbox.py.
"""

import ast
import warnings

from jaxnets.errors import first_line

MAX_SOURCE = 100_000  # Characters.
MODULES = {"jax", "jax.numpy", "jax.lax", "jax.nn", "numpy", "math", "functools", "itertools"}
OF_JAX = {"numpy", "lax", "nn", "Array", "jit", "vmap", "tree", "random"}  # After "jax.".

DIFFERENTIATES = {
    "grad", "value_and_grad", "hessian", "jacfwd", "jacrev", "jacobian", "vjp", "jvp", "linearize",
    "linear_transpose", "checkpoint", "remat", "custom_vjp", "custom_jvp", "custom_gradient",
    "closure_convert", "custom_root", "custom_linear_solve",
}  # fmt: skip


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
        return f"no Python: {first_line(error)}"


def functions_of(tree: ast.Module) -> list[str]:
    """The names of the functions that a file defines."""
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def violation(tree: ast.AST, allowed: frozenset[str] = frozenset()) -> str | None:
    """The first thing in a file that no exercise needs, with its line; None if there is none.

    Args:
      tree: The file's syntax tree.
      allowed: Names of jaxnets that the exercise imports itself, as "jaxnets.losses.expected".
    """
    found = [
        (getattr(node, "lineno", 0), reason)
        for node in ast.walk(tree)
        if (reason := _reason(node, allowed))
    ]
    return "line {}: {}".format(*min(found)) if found else None


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
                return f"imports jax.{alias.name}; an exercise needs no more than jax.numpy"
            if alias.name == "*":
                return "imports *; name what you import"
        return None
    if isinstance(node, ast.Attribute):
        of_jax = isinstance(node.value, ast.Name) and node.value.id == "jax"
        other = of_jax and node.attr not in OF_JAX
        return _name(node.attr) or (f"uses jax.{node.attr}" if other else None)
    return None


def _module(name: str) -> str | None:
    if name in MODULES:
        return None
    return f"imports {name}; an exercise may import {', '.join(sorted(MODULES))}"


def _name(name: str) -> str | None:
    if name in DIFFERENTIATES:
        return f"uses {name}; a gradient by hand is derived without it"
    return None
