"""JupyterLite in the site: the notebooks that need NumPy alone, run in the reader's browser.

The site's folder lite/ gets the files of JupyterLite and of its kernel. Pyodide, which is Python
for a browser, comes from its own address, cdn.jsdelivr.net: that is the one request to another
site. Pyodide has no JAX, so a notebook ends here where jaxnets is first imported.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from notebooks import LANGUAGES, Cell, read_source, to_notebook
from sphinx.application import Sphinx

NAMES = ("exercises-numpy", "autograd")
OPTIONS = ["--apps=tree", "--apps=notebooks", "--no-sourcemaps", "--no-unused-shared-packages"]
OPTIONS += ["--no-libarchive"]
# A package that Pyodide lacks is not sought on PyPI.
SETTINGS = {
    "jupyter-lite-schema-version": 0,
    "jupyter-config-data": {
        "appName": "jaxnets",
        "appUrl": "./tree",
        "litePluginSettings": {
            "@jupyterlite/pyodide-kernel-extension:kernel": {"disablePyPIFallback": True}
        },
    },
}


def numpy_alone(name: str) -> list[Cell]:
    """The cells of a source before the part whose code imports jaxnets."""
    kept: list[Cell] = []
    for cell in read_source(name):
        if cell.kind == "code" and re.search("^(import|from) jaxnets", cell.text["en"], re.M):
            return kept[:-1] if kept[-1].kind == "markdown" else kept
        kept.append(cell)
    return kept


def without_links(text: str) -> str:
    """A text whose links to other pages, which are not in JupyterLite, are their words."""
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)


def build(site: Path) -> int:
    """Builds the folder lite/ of a site; returns the exit status."""
    if importlib.util.find_spec("jupyterlite_core") is None:
        print("jupyterlite-core is missing: pip install -e '.[docs]'", file=sys.stderr)
        return 1
    import nbformat  # Takes 2 s, which the tests of the rest need not.

    with tempfile.TemporaryDirectory() as folder:
        for language in LANGUAGES:
            for name in NAMES:
                notebook: Any = to_notebook(numpy_alone(name), language)
                for cell in notebook.cells:
                    if cell.cell_type == "markdown":
                        cell.source = without_links(cell.source)
                path = Path(folder, "contents", language, f"{name}.ipynb")
                path.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook, path)
        Path(folder, "jupyter-lite.json").write_text(json.dumps(SETTINGS), "utf-8")
        command = [sys.executable, "-m", "jupyterlite_core", "build", *OPTIONS]
        command += [f"--contents={folder}/contents", f"--output-dir={site / 'lite'}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode


def address(app: Sphinx, page: str, template: str, context: dict[str, Any], *rest: Any) -> None:
    """Sets what the template needs: where the page's notebook runs in the browser, or nothing."""
    chinese = app.config.language != "en"
    path = f"lite/notebooks/index.html?path={'zh' if chinese else 'en'}/{page}.ipynb"
    context["lite_address"] = ("../" if chinese else "") + path if page in NAMES else ""
    context["lite_name"] = "在浏览器中运行" if chinese else "Run in the browser"


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers it with Sphinx."""
    app.connect("html-page-context", address)
    return {"parallel_read_safe": True}
