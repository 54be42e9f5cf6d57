"""Brings the formulas of a page to life: `<div class="living" data-layer="dense" ...>` in its text.

The plain formulas within it stay where there is no JavaScript. The scripts are those of
docs/derive.html (derive.py).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import derive

if TYPE_CHECKING:  # The tests read the scripts without Sphinx.
    from sphinx.application import Sphinx

SCRIPT, STYLE = "living.js", "living.css"


def written(app: "Sphinx") -> None:
    """Writes the script and the style, one file each, where the pages load them from."""
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPT).write_text(script(), "utf-8")
    (folder / STYLE).write_text(derive.style("formulas.css", STYLE), "utf-8")


def script() -> str:
    """The script of the chapters."""
    return derive.script(*derive.COMMON, SCRIPT)


def loaded(app: "Sphinx", page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Loads them on the pages that have such a formula."""
    if 'class="living"' in context.get("body", ""):
        app.add_js_file(SCRIPT, loading_method="defer")
        app.add_css_file(STYLE)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Registers both with Sphinx."""
    app.connect("builder-inited", written)
    app.connect("html-page-context", loaded)
    return {"parallel_read_safe": True}
