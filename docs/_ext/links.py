"""Links to the code and to the other language's pages, which lie outside what Sphinx reads.

`path/to/file.py:name` in a page becomes a link to that line of the file, and `[text](../file)` one
to the file. Both lead to pages that show the files; a name that is not there is a warning.
"""

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
SHOWN = ("jaxnets", "examples", "tests", "benchmarks", "deploy")
ALONE = ("train.py", "LICENSE", "docs/LICENSE", "deploy/Dockerfile", "CODE_OF_CONDUCT.md")
ENDINGS = {".py", ".md", ".sh", ".js", ".css", ".yaml", ".pbtxt", ".toml", ".sbatch", ".conf"}
PAGES = {
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "LICENSES.md": "licences",
    "SECURITY.md": "security",
    "TRUST.md": "trust",
    "README.md": "index",
    "docs/zh/README.md": "zh/index",
}
REFERENCE = re.compile(r"([\w/]+\.py)(?::([\w.]+))?")


def line_of(source: str, name: str) -> int | None:
    r"""The line that defines `function`, `Class.method` or `CONSTANT` in a module, or None.

    >>> line_of("a = b = 1\n\nclass C:\n    def f(self): ...\n", "C.f"), line_of("x = 1", "y")
    (4, None)
    """
    body: list[ast.stmt] = ast.parse(source).body
    line = None
    for part in name.split("."):
        found = [node for node in _statements(body) if part in _names(node)]
        if not found:
            return None
        line, body = found[-1].lineno, getattr(found[-1], "body", [])
    return line


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, also those below `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements(node.body + node.orelse)


def _names(node: ast.stmt) -> list[str]:
    """The names that a statement defines or imports."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [leaf.id for t in targets for leaf in ast.walk(t) if isinstance(leaf, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            return [alias.asname or alias.name for alias in names]
    return []


def shown_files() -> list[str]:
    """The files with a page of their own, relative to the repository."""
    paths = [path for folder in SHOWN for path in (ROOT / folder).rglob("*")]
    kept = [path for path in paths if path.suffix in ENDINGS and "__pycache__" not in path.parts]
    return sorted([*(path.relative_to(ROOT).as_posix() for path in kept), *ALONE])


def address_of(path: str, anchor: str = "") -> str | None:
    """A file's page in the English site, or None for a file that has none."""
    if path in PAGES:
        return PAGES[path] + ".html" + anchor
    if path.startswith("docs/") and path.endswith((".md", ".ipynb")):
        return path.removeprefix("docs/").rpartition(".")[0] + ".html" + anchor
    return f"code/{path}.html{anchor}" if path in SHOWN_FILES else None


SHOWN_FILES = frozenset(shown_files())


class OutsideLinks(SphinxTransform):
    """Gives the links that leave Sphinx's source folder their addresses, before Sphinx looks."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for node in [*self.document.findall(addnodes.pending_xref)]:
            if node.get("reftype") == "myst" and node.get("refdomain") == "doc":
                self._leave(node, node["reftarget"], node.get("reftargetid"))
            elif node.get("reftype") == "myst":  # Of a page that includes a file of the root.
                path, _, anchor = node["reftarget"].partition("#")
                if address := address_of(path, f"#{anchor}" if anchor else ""):
                    node.replace_self(self._reference(address, node.children))
        for node in [*self.document.findall(addnodes.download_reference)]:
            self._leave(node, node["reftarget"], None)
        for node in [*self.document.findall(nodes.literal)]:
            if not isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                self._name(node)

    def _leave(self, node: nodes.Element, target: str, anchor: str | None) -> None:
        """Replaces a link to a file outside the source folder."""
        page = Path(self.env.doc2path(self.env.docname))
        path = Path(posixpath.normpath(posixpath.join(self.env.srcdir, target)))
        if isinstance(node, addnodes.download_reference):
            path = Path(posixpath.normpath(posixpath.join(page.parent, target)))
        elif path.suffix not in (".md", ".ipynb"):
            endings = [path.with_name(path.name + ending) for ending in (".md", ".ipynb")]
            path = next((p for p in endings if p.exists()), path)
        inside = path.is_relative_to(self.env.srcdir)
        if inside and self.env.path2doc(path) in self.env.found_docs:
            return
        if inside and isinstance(node, addnodes.download_reference):
            return
        address = address_of(path.relative_to(ROOT).as_posix(), f"#{anchor}" if anchor else "")
        if address is None or not path.exists():
            LOGGER.warning("link to %s, which has no page", path, location=node)
            return
        node.replace_self(self._reference(address, node.children))

    def _name(self, literal: nodes.literal) -> None:
        """Links `file.py:name` and `file.py` to the code."""
        found = REFERENCE.fullmatch(literal.astext())
        if found is None or found[1] not in SHOWN_FILES:
            return
        anchor = ""
        if found[2]:
            line = line_of((ROOT / found[1]).read_text("utf-8"), found[2])
            if line is None:
                LOGGER.warning("%s: no such name in the file", found[0], location=literal)
                return
            anchor = f"#L-{line}"
        address = address_of(found[1], anchor)
        assert address is not None
        literal.replace_self(self._reference(address, [literal.deepcopy()]))

    def _reference(self, address: str, children: list[nodes.Node]) -> nodes.reference:
        here = posixpath.dirname(self.env.docname)
        if self.env.config.language != "en":  # That site is the English one's folder zh.
            here = posixpath.join("zh", here)
        uri = posixpath.relpath(address, here)
        return nodes.reference("", "", *children, refuri=uri, internal=True)


def code_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file of the code: its text, coloured, with an anchor at every line."""
    if app.config.language != "en":
        return
    formatter = HtmlFormatter(linespans="L", cssclass="highlight", wrapcode=True)
    for path in shown_files():
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        code = highlight((ROOT / path).read_text("utf-8"), lexer, formatter)
        body = f'<section class="code-page"><h1>{path}</h1>{code}</section>'
        yield (
            f"code/{path}",
            {"title": path, "body": body, "toc": "", "display_toc": False},
            "page.html",
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers both with Sphinx."""
    app.add_transform(OutsideLinks)
    app.connect("html-collect-pages", code_pages)
    return {"parallel_read_safe": True}
