"""The source of what a submission is given of jaxnets: its runner, and what its exercise imports.

The process that runs a submission gets no package, which holds the answers. It gets the definitions
that it needs, cut out of the modules, with all that they use in turn.
"""

import ast
import functools
import graphlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "jaxnets"


@functools.cache
def sources_of(names: frozenset[str]) -> dict[str, str]:
    """The sources of modules, each after those that it imports.

    Args:
      names: What they must define, such as "jaxnets.losses.probabilities_of".
    """
    kept: dict[str, set[ast.stmt]] = {}
    imported: dict[str, set[str]] = {}
    todo = list(names)
    while todo:
        module, _dot, name = todo.pop().rpartition(".")
        statement = _definitions(module)[name]
        chosen = kept.setdefault(module, set())
        if statement in chosen:
            continue
        chosen.add(statement)
        for used in _uses(module, statement):
            todo.append(used)
            imported.setdefault(module, set()).add(used.rpartition(".")[0])
    order = {module: imported.get(module, set()) - {module} for module in kept}
    return {
        module: "\n".join(ast.unparse(one) for one in _statements(module) if one in kept[module])
        for module in graphlib.TopologicalSorter(order).static_order()
    }


@functools.cache
def _statements(module: str) -> list[ast.stmt]:
    """A module's statements: one for each name that it imports, and no annotation of a function."""
    found = importlib.util.find_spec(module)
    assert found and found.origin
    statements = []
    for one in ast.parse(Path(found.origin).read_text("utf-8")).body:
        if isinstance(one, ast.ImportFrom):
            statements += [ast.ImportFrom(one.module, [alias], one.level) for alias in one.names]
        else:
            statements.append(_Unannotated().visit(one))
    return statements


class _Unannotated(ast.NodeTransformer):
    """Drops the annotations of functions, which name types that only the package has."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _is_module(name: str) -> bool:
    """Whether this is the name of a module, and not of something in one."""
    package = importlib.util.find_spec(name.rpartition(".")[0])
    is_package = package is not None and package.submodule_search_locations is not None
    return is_package and importlib.util.find_spec(name) is not None


@functools.cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """A module's statements by the names that they define."""
    return {name: one for one in _statements(module) for name in _names(one)}


def _names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines, also those in the branches of an if."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.If(body=body):
            for one in body:
                yield from _names(one)
        case _:
            yield from _named(statement, ast.Store)


def _named(tree: ast.AST, context: type[ast.expr_context]) -> Iterator[str]:
    for one in ast.walk(tree):
        if isinstance(one, ast.Name) and isinstance(one.ctx, context):
            yield one.id


def _uses(module: str, statement: ast.stmt) -> Iterator[str]:
    """What a statement uses, of its own module and of others of the package."""
    for name in _named(statement, ast.Load):
        if name in _definitions(module):
            yield f"{module}.{name}"
    for one in ast.walk(statement):
        if isinstance(one, ast.ImportFrom) and str(one.module).startswith(f"{PACKAGE}."):
            for imported in (f"{one.module}.{alias.name}" for alias in one.names):
                if _is_module(imported):
                    yield from (f"{imported}.{name}" for name in _definitions(imported))
                else:
                    yield imported
