"""The source of a few names of jaxnets with all that they use, and nothing else.

A sandbox gets these instead of the package: `window_slices`, but no backward pass of ours.
"""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path


def sources_of(names: Iterable[str]) -> dict[str, str]:
    """The modules, by name, in which these names are defined, cut down to what they use.

    Args:
      names: Full names, as "jaxnets.losses.probabilities_of".
    """
    found: dict[str, dict[str, ast.stmt]] = {}
    for name in names:
        module, _, attribute = name.rpartition(".")
        _add(module, {attribute}, found)
    texts = {}
    for module, statements in found.items():
        ordered = sorted(statements.values(), key=lambda node: node.lineno)
        texts[module] = "\n".join(ast.unparse(node) for node in dict.fromkeys(ordered))
    return texts


def _add(module: str, names: set[str], found: dict[str, dict[str, ast.stmt]]) -> None:
    """Adds the statements of a module that define these names, and what they use in turn."""
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin, module
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    defined = {name: node for statement in tree.body for name, node in _definitions(statement)}
    statements = found.setdefault(module, {})
    while names:
        name = names.pop()
        if name in statements or name not in defined:  # There already, or a builtin.
            continue
        node = statements[name] = _without_annotations(defined[name])
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "jaxnets":
            _add(str(node.module), {alias.name for alias in node.names}, found)
        names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _definitions(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """The names that a statement defines, each with the statement; an import only with its name."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            one: ast.stmt = ast.Import([alias])
            if isinstance(node, ast.ImportFrom):
                one = ast.ImportFrom(node.module, [alias], node.level)
            yield (alias.asname or alias.name).partition(".")[0], ast.copy_location(one, node)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = (part for target in targets for part in ast.walk(target))
        yield from ((part.id, node) for part in parts if isinstance(part, ast.Name))


def _without_annotations(node: ast.stmt) -> ast.stmt:
    """A function without its types, which need packages that a sandbox does not have."""
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef):
            part.returns = None
        elif isinstance(part, ast.arg):
            part.annotation = None
    return node
