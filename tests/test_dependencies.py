"""What jaxnets needs of others: floors, the lock file, licences, and what a run loads of them."""

import ast
import importlib.metadata
import json
import re
import sys
import tomllib

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from jaxnets.data.published import SETS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = ".ci/requirements-3.11.txt"
LOCKED = (
    "test",
    "compare",
    "ray",
    "export",
    "serve",
    "postgres",
    "report",
    "tensorboard",
    "clients",
    "oracle",
)
RENEW = "bash .ci/lock renews the lock file"


def requirements(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml requires, by name."""
    optional = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in optional[extra])]
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def pins(path: str) -> dict[str, tuple[Version, str]]:
    """The versions that a file of requirements pins, each with all the lines about it."""
    entries = re.split(r"\n(?=[A-Za-z])", (ROOT / path).read_text())
    found = [re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)", entry) for entry in entries]
    named = zip(found, entries, strict=True)
    return {canonicalize_name(m[1]): (Version(m[2]), entry) for m, entry in named if m}


def test_the_lock_file_has_what_pyproject_requires_with_hashes():
    needed, locked = requirements(*LOCKED), pins(LOCK)
    for name in ("torch", "torchvision"):  # Their CPU builds are not on PyPI.
        assert needed.pop(name) and name not in locked
    for name, requirement in needed.items():
        assert name in locked, f"{name}: {RENEW}"
        version, _ = locked[name]
        assert requirement.specifier.contains(version), f"{requirement}: {version}; {RENEW}"
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for _, entry in locked.values())
    direct = {name for name, (_, entry) in locked.items() if "jaxnets (pyproject.toml)" in entry}
    assert direct <= set(needed), RENEW


def test_dependencies_have_tested_floors_and_no_bounds_above():
    floors = pins(".ci/floors.txt")
    for name, requirement in requirements().items():
        for specifier in requirement.specifier:
            assert specifier.operator == ">=", requirement
            assert Version(specifier.version) == floors[name][0], f"{name} in .ci/floors.txt"


def test_pre_commit_runs_the_versions_of_the_gate():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    revisions = dict(re.findall(r"repo: \S+/([\w-]+)\n    rev: v(\S+)", hooks))
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    exact = [*PROJECT["optional-dependencies"]["docs"], *groups["checks"]]
    locked, _ = pins(LOCK)["ruff"]
    assert revisions["ruff-pre-commit"] == str(locked)
    assert f"codespell=={revisions['codespell']}" in exact
    assert f"zizmor=={revisions['zizmor-pre-commit']}" in exact


def test_every_dependency_and_data_set_has_its_licence():
    page = (ROOT / "LICENSES.md").read_text()
    table = page.partition("\n## ")[0]
    listed = {canonicalize_name(name) for name in re.findall(r"`([\w-]+)`", table)}
    extras = PROJECT["optional-dependencies"].keys() - {"test"}
    names = [*requirements(*extras), *SETS, "mnist"]
    assert {canonicalize_name(name) for name in names} <= listed


def installed_with(*names: str) -> set[str]:
    """The packages that pip installs for some."""
    found, left = set(), set(map(canonicalize_name, names))
    while left:
        found.add(name := left.pop())
        texts = importlib.metadata.requires(name) or []
        needs = [r for r in map(Requirement, texts) if not r.marker or r.marker.evaluate()]
        left |= {canonicalize_name(r.name) for r in needs} - found
    return found


# Modules whose package has another name, or comes with one that is asked for.
BROUGHT = {"PIL": "pillow", "IPython": "jupyterlab", "sklearn": "scikit-learn"}


def imported(code: str) -> set[str]:
    """The packages that a cell imports."""
    nodes = [*ast.walk(ast.parse(re.sub(r"(?m)^%.*", "", code)))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


NOTEBOOKS = sorted(path for path in (ROOT / "docs").rglob("*.ipynb") if "_site" not in path.parts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_a_notebook_imports_what_its_extra_brings(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    needed = set().union(*map(imported, code)) - sys.stdlib_module_names
    needed -= {"jaxnets", "google"}  # Colab's own is tried, and may be missing.
    assert {canonicalize_name(BROUGHT.get(n, n)) for n in needed} <= {*requirements("notebooks")}
    first = "".join(cells[0]["source"])
    assert '`python -m pip install -e ".[notebooks]"`' in first or path.stem == "exercises-numpy"
    assert re.search(r"\]\((\.\./)?install\.md#(the-notebooks|运行-notebook)\)", first)


@pytest.mark.slow
def test_a_plain_run_loads_nothing_that_only_tensorflow_datasets_brings(run_python, tiny_flags):
    others = set(requirements()) - {"tensorflow-datasets"}
    only = installed_with("tensorflow-datasets") - installed_with(*others)
    assert {"tensorflow-datasets", "pyarrow", "promise", "toml"} < only
    code = (
        "import sys, train, jaxnets; from jaxnets.base.errors import run_main; "
        "jaxnets.load_dataset('mnist'); status = run_main(train.main); "
        "print(*{name.partition('.')[0] for name in sys.modules}); sys.exit(status)"
    )
    outcome = run_python("-c", code, "--model=cnn", *tiny_flags, "--epochs=1")
    assert (outcome.status, outcome.err) == (0, "")
    of_module, loaded = importlib.metadata.packages_distributions(), outcome.out.splitlines()[-1]
    names = {canonicalize_name(d) for name in loaded.split() for d in of_module.get(name, ())}
    assert {"jax", "flax", "numpy"} < names and not names & only
