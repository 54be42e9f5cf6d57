"""The house rules of the code, held against its syntax trees: who imports whom, who differentiates.

A new room must be entered in the table below before it may import anything.
"""

import ast
import graphlib
import re

import pytest
from conftest import ROOT

PACKAGE = ROOT / "jaxnets"

# What each room may import of the others. Arrows point down only: training receives functions, so
# it knows neither models nor backprop; nothing but what stands on top imports experiment or run.
ROOMS = {
    "display": "facts",
    "facts": "",
    "errors": "display",
    "system": "errors",
    "figure": "errors",
    "curves": "",
    "abtest": "display errors figure",
    "config": "display errors",
    "data": "display errors system",
    "models": "config display errors",
    "history": "curves display errors",
    "version": "",
    "losses": "errors",
    "metrics": "display losses regression_metrics",
    "regression_metrics": "display",
    "machine": "version display errors system",
    "backprop": "models losses metrics data.batches",
    "training": "config data display errors losses machine metrics",
    "kernels": "backprop models",
    "oracle": "backprop config data.batches errors losses models training",
    "experiment": "backprop config data display errors history kernels losses machine metrics "
    "models oracle training",
    "runs": "config data display errors experiment machine metrics models system training",
    "gradcheck": "backprop config data display errors experiment kernels losses machine models "
    "oracle system training",
    "exercises": "backprop display errors gradcheck losses machine models system",
    "lecture": "config data display errors experiment figure losses machine metrics models "
    "regression_metrics runs system training",
    "callbacks": "errors metrics training",
    "copies": "runs",
    "classifier": "config data errors network",
    "network": "callbacks config copies data display errors experiment history machine metrics models "
    "report runs serving training",
    "report": "backprop config data display errors experiment gradcheck kernels losses machine "
    "models oracle runs serving system training",
    "serving": "version abtest config data display errors experiment machine models runs "
    "system training",
    "tracking": "config display errors experiment metrics runs serving training",
    "cli": "abtest config display errors exercises experiment figure gradcheck lecture models report "
    "serving system training version",
    "__main__": "cli errors",
    "": "callbacks classifier config data exercises experiment facts figure history network "
    "serving version",
    "train.py": "cli errors lecture report runs tracking",
}
MAY_IMPORT = {room: set(others.split()) for room, others in ROOMS.items()}

WITHOUT_JAX = ("display", "errors", "facts", "system", "figure", "config", "cli", "__main__")
WITHOUT_JAX += ("data", "abtest", "")
JAX = {"jax", "jaxlib", "flax", "optax", "chex", "orbax"}
DIFFERENTIATES = {
    "grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose", "jacfwd", "jacrev",
    "jacobian", "hessian", "checkpoint", "remat", "custom_jvp", "custom_vjp", "custom_gradient",
    "closure_convert", "optax", "test_util", "check_grads",
}  # fmt: skip


def sources():
    """Every module of the package and train.py, with its room; "" is jaxnets/__init__.py."""
    for path in sorted(PACKAGE.rglob("*.py")):
        first = path.relative_to(PACKAGE).with_suffix("").parts[0]
        yield ("" if first == "__init__" else first), path
    yield "train.py", ROOT / "train.py"


def imports(path):
    """The modules that a file imports, inside functions too; names are counted as modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_room_imports_only_what_the_table_allows_and_jax_only_where_it_may_take_a_second():
    for room, path in sources():
        assert room in MAY_IMPORT, f"enter {room} in the table"
        allowed = tuple(f"jaxnets.{other}." for other in MAY_IMPORT[room] | ({room} - {""}))
        for name in imports(path):
            library, message = name.split(".")[0], f"{path.relative_to(ROOT)} imports {name}"
            assert library != "jaxnets" or f"{name}.".startswith(allowed), message
            assert library not in JAX or room not in WITHOUT_JAX, message


def test_files_import_each_other_in_no_circle():
    """Within a room too, inside functions too, and for type checkers alone too."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for _, path in sources()}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    below = {
        module: {
            found
            for name in imports(path)
            if (found := name if name in paths else name.rpartition(".")[0]) in paths
        }
        - {module}
        for module, path in paths.items()
    }
    del below["jaxnets"]  # It names what a notebook needs, and imports it when it is used.
    graphlib.TopologicalSorter(below).prepare()  # It raises CycleError.


def test_the_table_has_no_room_that_does_not_exist_and_no_circle():
    assert set(MAY_IMPORT) == {room for room, _ in sources()}
    below = {room: [other.split(".")[0] for other in MAY_IMPORT[room]] for room in MAY_IMPORT}
    graphlib.TopologicalSorter(below).prepare()  # It raises CycleError.


def names(source):
    """Every name and attribute in a source, and every part of what it imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")


def differentiations(source):
    """By which names a source differentiates; a custom_vjp whose two rules it defines is none."""
    found = [name for name in names(source) if name in DIFFERENTIATES]
    for function in re.findall(r"^@.*jax\.custom_vjp\b.*\ndef (\w+)", source, re.MULTILINE):
        rules = re.search(rf"^{function}\.defvjp\((\w+), (\w+)\)$", source, re.MULTILINE)
        if rules and all(f"\ndef {rule}(" in source for rule in rules.groups()):
            found.remove("custom_vjp")
    return found


def test_nothing_in_backprop_differentiates():
    for path in (PACKAGE / "backprop").rglob("*.py"):
        assert not differentiations(path.read_text()), path


@pytest.mark.parametrize(
    "source",
    [
        "import jax\ndef f(x): return jax.grad(lambda y: y)(x)",
        "from jax import vjp as forward",
        "from jax.test_util import check_grads",
        "import jax\nf = jax.custom_vjp(lambda x: x)",
        "import jax\n@jax.custom_vjp\ndef f(x): return x",
        "import jax, other\n@jax.custom_vjp\ndef f(x): return x\nf.defvjp(other.a, other.b)",
        "import jax\n@jax.custom_vjp\ndef f(x): return x\n"
        "def a(x): return x, x\ndef b(x, g): return jax.vjp(f, x)[1](g)\nf.defvjp(a, b)",
    ],
)
def test_code_that_differentiates_would_be_found(source):
    assert differentiations(source)


def test_no_module_is_a_drawer_for_everything():
    for folder in ("jaxnets", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.stem not in ("utils", "util", "helpers", "misc", "common"), path
