"""The wrong backward passes as text: a student's file gets one without its name."""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

MUTANTS = Path(__file__).parents[2] / "gradcheck" / "mutants.py"


class MutantSource(NamedTuple):
    """The source of a wrong backward pass, with all that a file of it needs."""

    layer: str
    function: str  # Its source from `def` on.
    imports: list[ast.Import | ast.ImportFrom]  # The imports that it uses, a name each.
    helpers: list[str]  # The sources of what else it calls.
    forward: str  # The source of the forward pass that keeps its cache, if it is the mutant's own.


@functools.cache
def mutant_sources() -> dict[str, MutantSource]:
    """Every wrong backward pass by its name."""
    source = MUTANTS.read_text("utf-8")
    tree = ast.parse(source)
    lines = source.splitlines()
    imports = _imports(tree)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def text(node: ast.FunctionDef) -> str:
        return "\n".join(lines[node.lineno - 1 : node.end_lineno])  # Without decorators.

    def needed(node: ast.FunctionDef) -> list[ast.FunctionDef]:
        """The helpers that a function calls, those of helpers first."""
        used = [functions[name] for name in _names(node) if name in functions and name != node.name]
        below = [deeper for helper in used for deeper in needed(helper)]
        return list(dict.fromkeys([*below, *used]))

    found = {}
    for name, node in functions.items():
        calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
        if not calls:
            continue
        (breaks,) = calls
        (layer,) = (value.value for value in breaks.args if isinstance(value, ast.Constant))
        helpers = needed(node)
        names = {used for part in [node, *helpers] for used in _names(part)}
        keeps = [kw.value.id for kw in breaks.keywords if isinstance(kw.value, ast.Name)]
        found[name] = MutantSource(
            str(layer),
            text(node),
            [node for alias, node in imports.items() if alias in names],
            [text(helper) for helper in helpers],
            "".join(text(functions[forward]) for forward in keeps),
        )
    return found


def _imports(tree: ast.Module) -> dict[str, ast.Import | ast.ImportFrom]:
    """The imports of a module, by the names that they give."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                one = ast.Import([alias])
                if isinstance(node, ast.ImportFrom):
                    one = ast.ImportFrom(node.module, [alias], 0)
                found[alias.asname or alias.name] = one
    return found


def _names(function: ast.FunctionDef) -> dict[str, None]:
    """The names that a function's body uses, in their order."""
    parts = (part for line in function.body for part in ast.walk(line))
    return dict.fromkeys(part.id for part in parts if isinstance(part, ast.Name))
