"""JupyterLite in the site: its notebooks need NumPy alone, and the site has them and its parts."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import notebooks
import pytest
from conftest import ROOT
from documents import printed

pytest.importorskip("sphinx")
import lite

pytestmark = pytest.mark.oracle
EDITIONS = [(name, language) for name in lite.NAMES for language in notebooks.LANGUAGES]
# Names a folder in which `npm install pyodide` was run.
PYODIDE = os.environ.get("PYODIDE_FOLDER", "")


def code_of(name: str, language: str) -> list[str]:
    cells = lite.numpy_alone(name)
    return [cell.text[language] for cell in cells if cell.kind == "code"]


def test_a_notebook_ends_where_the_package_begins():
    whole = [cell.kind for cell in notebooks.read_source("autograd")].count("code")
    code = code_of("autograd", "en")
    assert 10 < len(code) < whole and "jaxnets" not in "".join(code)
    assert "## 6" not in "".join(cell.text["en"] for cell in lite.numpy_alone("autograd"))
    text = "Take [this](x.md#y) and `a[0]` (or [that](../z.ipynb))."
    assert lite.without_links(text) == "Take this and `a[0]` (or that)."


@pytest.mark.parametrize("language", notebooks.LANGUAGES)
def test_numpy_alone_checks_every_operation_of_the_tape(language):
    lines = printed(code_of("autograd", language))
    right, wrong = (notebooks.SAYS[word] for word in ('"right"', '"wrong"'))
    words = [right.strip('"'), wrong.strip('"')] if language == "zh" else ["right", "wrong"]
    assert sum(line.endswith(f" {words[0]}") for line in lines) == 11, lines
    assert not any(line.endswith(words[1]) for line in lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site's folder lite/."""
    pytest.importorskip("jupyterlite_core")
    folder = tmp_path_factory.mktemp("site")
    assert lite.build(folder) == 0
    return folder / "lite"


@pytest.mark.slow
def test_the_site_has_the_notebooks_and_what_opens_them(site):
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {"notebooks/index.html", "service-worker.js"} <= files
    assert not [name for name in files if name.endswith(".map")]
    for language in notebooks.LANGUAGES:
        listing = json.loads((site / f"api/contents/{language}/all.json").read_text("utf-8"))
        paths = [f"{language}/{name}.ipynb" for name in lite.NAMES]
        assert sorted(entry["path"] for entry in listing["content"]) == sorted(paths)
        for name, path in zip(lite.NAMES, paths, strict=True):
            notebook = json.loads((site / "files" / path).read_text("utf-8"))
            code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
            assert ["".join(cell["source"]) for cell in code] == code_of(name, language)
            assert not any(cell["outputs"] for cell in code)
    for page in (ROOT / "docs/browser.md", ROOT / "docs/zh/browser.md"):
        text = page.read_text("utf-8")
        addresses = re.findall('href="(?:../)?lite/([^"?]+)[?]path=([^"]+)"', text)
        assert len(addresses) == 2
        for app, path in addresses:
            assert {app, f"files/{path}"} <= files


@pytest.mark.slow
def test_pyodide_alone_comes_from_another_site(site):
    """What the scripts name as an address of code to load."""
    kernels = site / "extensions/@jupyterlite/pyodide-kernel-extension"
    scripts = "".join(path.read_text("utf-8") for path in kernels.rglob("*.js"))
    hosts = set(re.findall(r"https://([\w.-]+)/[\w./-]+\.m?js\b", scripts))
    assert hosts == {"cdn.jsdelivr.net"}
    settings = json.loads((site / "jupyter-lite.json").read_text("utf-8"))
    assert '"disablePyPIFallback": true' in json.dumps(settings)


# Compiles all cells in Pyodide's Python; runs them if its NumPy can be fetched.
WASM = """
const { loadPyodide } = require(process.argv[1]);
(async () => {
  const python = await loadPyodide();
  python.globals.set("editions", require("fs").readFileSync(0, "utf-8"));
  python.runPython(`
import importlib.util, json
editions = json.loads(editions)
for cells in editions.values():
    for cell in cells:
        compile(cell, "cell", "exec")
print("compiled", len(editions), "jax:", importlib.util.find_spec("jax"))`);
  await python.loadPackage("numpy").catch(() => null);
  python.runPython(`
if importlib.util.find_spec("numpy"):
    for cells in editions.values():
        space = {"__name__": "notebook"}
        for cell in cells:
            exec(cell, space)
    print("ran", len(editions))`);
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.slow
@pytest.mark.skipif(not (PYODIDE and shutil.which("node")), reason="Node or Pyodide is missing")
def test_the_cells_run_in_webassembly():
    editions = {f"{name}-{language}": code_of(name, language) for name, language in EDITIONS}
    package = Path(PYODIDE, "node_modules/pyodide/pyodide.js")
    done = subprocess.run(
        ["node", "-e", WASM, str(package)],
        input=json.dumps(editions),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "compiled 4 jax: None" in done.stdout
    if "ran 4" not in done.stdout:
        pytest.skip("Pyodide's NumPy cannot be fetched")
