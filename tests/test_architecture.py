"""The house rules of the code, held against its syntax trees: who imports whom, who differentiates.

A new room must be entered in the table below before it may import anything.
"""

import ast
import graphlib
import pathlib
import re

import pytest
import reading_path
from conftest import ROOT

PACKAGE = ROOT / "jaxnets"

# What each room may import of the others, from the ground up: of those that stand before it alone.
# Training receives functions, so it knows neither networks nor passes.
ROOMS = {
    # The ground.
    "base": "",
    # The core.
    "config": "base",
    "data": "base",
    "losses": "base",
    "regression_metrics": "base",
    "metrics": "base losses regression_metrics",
    "models": "base config",
    "backprop": "base data losses metrics models",
    "networks": "backprop base config models",
    "machine": "base",
    "kernels": "backprop base machine models",
    "training": "base config data losses machine metrics regression_metrics",
    "parts": "backprop base config data kernels losses machine models networks training",
    "experiment": "base data machine metrics models parts training",
    "runs": "backprop base config data experiment machine metrics models networks training",
    # The proof, above what it proves.
    "gradcheck": "backprop base config data experiment kernels losses machine metrics models "
    "networks training",
    # The wings: the core knows none of them.
    "drawing": "base",
    "predict": "backprop base config data machine models networks runs training",
    "page": "backprop base config data drawing models predict runs",
    "export": "backprop base config models predict runs",
    "server": "base config data machine models networks page predict runs training",
    "abtest": "base config data drawing predict runs server",
    "tune": "base config data drawing experiment gradcheck machine metrics models networks runs "
    "training",
    "tracking": "base config metrics runs training",
    "course": "backprop base config data experiment gradcheck losses machine metrics models "
    "networks parts runs training tune",
    "report": "backprop base config course data drawing experiment gradcheck kernels losses "
    "machine metrics models networks predict runs training",
    "notebook": "backprop base config course data experiment gradcheck machine metrics models "
    "networks page predict report runs training",
    # The entrances.
    "cli": "abtest base config course experiment export gradcheck networks page predict report "
    "runs server tracking training tune",
    "__main__": "base cli",
    "": "backprop base config course data experiment gradcheck models notebook predict report "
    "training",
    "train.py": "base cli course runs",
}
MAY_IMPORT = {room: set(others.split()) for room, others in ROOMS.items()}
CORE = "config data losses regression_metrics metrics models backprop networks kernels machine "
CORE += "training parts experiment runs"

WITHOUT_JAX = ("abtest", "base", "config", "data", "drawing", "cli", "__main__", "")
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


def test_a_room_imports_only_what_the_table_allows():
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


def test_a_room_stands_on_those_before_it():
    assert set(MAY_IMPORT) == {room for room, _ in sources()}
    stand: set[str] = set()
    for room, others in MAY_IMPORT.items():
        assert others <= stand, f"{room} stands on {others - stand}"
        stand.add(room)


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
        rules = re.search(
            rf"^{function}\.defvjp\((\w+), (\w+)(?:, symbolic_zeros=True)?\)$", source, re.MULTILINE
        )
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


# The reading path of docs/read-the-code.md.
FILES = [file for stop in reading_path.PATH.values() for file in stop]


def test_the_table_of_the_reading_path_is_that_of_today():
    page = reading_path.PAGE.read_text("utf-8")
    assert reading_path.renewed(page) == page, "run python docs/_ext/reading_path.py"


def test_on_the_reading_path_a_file_comes_after_those_that_it_uses():
    place = {file.removesuffix(".py").replace("/", "."): n for n, file in enumerate(FILES)}
    assert len(place) == len(FILES)
    for number, file in enumerate(FILES):
        for name in imports(ROOT / file):
            used = name if name in place else name.rpartition(".")[0]
            assert place.get(used, -1) < number, f"{file} uses {used}, which comes later"


def test_the_reading_path_is_of_the_core_but_for_its_end():
    for file in FILES[:-2]:
        room = pathlib.PurePath(file).parts[1].removesuffix(".py")
        assert room in ["base", "minimal", *CORE.split()], file


def test_no_test_imports_another():
    """What several tests need has a module of its own; benchmarks are imported as a package."""
    for path in (ROOT / "tests").rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("test_"), f"{path.name} imports {name}"
        assert "benchmarks" not in re.findall(r"sys\.path.*", path.read_text()), path


def test_the_core_imports_neither_the_proof_nor_a_wing():
    ground = {"base", *CORE.split()}
    for room, path in sources():
        if room in CORE.split():
            rooms = {name.split(".")[1] for name in imports(path) if name.startswith("jaxnets.")}
            assert rooms <= ground, path


def test_no_module_is_a_drawer_for_everything():
    for folder in ("jaxnets", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.stem not in ("utils", "util", "helpers", "misc", "common"), path


# What stays Any in the core, whose signatures pyright checks strictly but for machine's.
MAY_BE_ANYTHING = {
    "option -> ": "it stands for the default of a field of any type",
    "_is_path(value": "what an untrusted config.json holds",
    "load(form": "the arguments of another function, handed on",
    "_check_scans(picture": "Pillow's JPEG, a class that it loads when it opens one",
    "_sources(builder": "of TensorFlow Datasets, which is imported where it is used",
    "update(state": "Optax's states have no type in common",
    "update_plateau(opt_state": "Optax's states have no type in common",
    "evaluate -> ": "a union would let no caller write metrics.accuracy",
    "__call__(inputs": "of a protocol that each layer fits",
    "__call__(settings": "of a protocol that each layer fits",
}


def test_no_parameter_and_no_result_of_the_core_is_any():
    found = set()
    for room, path in sources():
        if room not in set(CORE.split()) - {"machine"}:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                arguments = ast.walk(function.args)
                found |= {
                    f"{function.name}({argument.arg}"
                    for argument in arguments
                    if isinstance(argument, ast.arg) and is_any(argument.annotation)
                }
                found |= {f"{function.name} -> "} if is_any(function.returns) else set()
    assert found == set(MAY_BE_ANYTHING)


def is_any(annotation):
    return isinstance(annotation, ast.Name) and annotation.id == "Any"
