"""What the site adds to Sphinx: links to the code, formulas, flags, Chinese search."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from conftest import ROOT
from documents import anchors_of

pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")

import axe
import chinese_lines
import chinese_search
import flags_page
import links
import redirects
from docutils import nodes

import jaxnets
from jaxnets.cli.commands import COMMANDS
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import options_of

pytestmark = pytest.mark.oracle


def test_every_file_that_a_page_may_name_has_a_page():
    assert {"train.py", "jaxnets/backprop/dense.py", "tests/conftest.py"} <= links.SHOWN_FILES
    assert links.address_of("train.py", "#L-3") == "code/train.py.html#L-3"
    assert links.address_of("docs/backprop/one-neuron.md", "#x") == "backprop/one-neuron.html#x"
    assert links.address_of("CONTRIBUTING.md") == "contributing.html"
    assert links.address_of("docs/LICENSE") == "code/docs/LICENSE.html"
    assert links.address_of("pyproject.toml") is None


def is_page(address: str) -> bool:
    """Whether a page of the site's source has this address."""
    return any((ROOT / "docs" / f"{address}{ending}").exists() for ending in (".md", ".ipynb"))


def test_every_old_address_still_leads_to_a_page():
    addresses = (ROOT / "tests" / "site_addresses.txt").read_text("utf-8").split()
    assert len(addresses) > 100
    assert [one for one in addresses if not is_page(one) and one not in redirects.MOVED] == []
    for old, new in redirects.MOVED.items():
        page, _, anchor = new.partition("#")
        assert not is_page(old) and is_page(page), (old, new)
        if anchor:
            assert anchor in anchors_of(ROOT / "docs" / f"{page}.md"), (old, new)


def test_what_language_models_read_links_to_pages_and_to_no_answer():
    text = (ROOT / "docs" / "llms.txt").read_text("utf-8")
    pages = re.findall(r"\]\(([^)]+)\.html\)", text)
    assert len(pages) > 15 and text.count("](") == len(pages)
    assert [page for page in pages if not is_page(page)] == []
    assert [page for page in pages if "answers" in page or "teachers" in page] == []


def test_a_redirect_is_relative_to_its_own_folder_and_language(monkeypatch):
    monkeypatch.setattr(redirects, "MOVED", {"a/b": "c/d#e", "zh/f": "zh/g"})
    for language, expected in (("en", ("a/b", "../c/d.html#e")), ("zh_CN", ("f", "g.html"))):
        app: Any = SimpleNamespace(config=SimpleNamespace(language=language))
        ((old, context, _),) = redirects.redirects(app)
        assert (old, context["address"]) == expected


def test_lines_of_chinese_are_joined_and_no_others():
    words = ["先读，", "\n", "", "再写 ", "\n", "a", "\n", "一行", "\n", "二行", "\n", "three"]
    paragraph = nodes.paragraph("", "", *map(nodes.Text, words))
    chinese_lines.join(paragraph)
    assert paragraph.astext() == "先读，再写 \na\n一行二行\nthree"


def test_a_name_is_found_at_the_line_that_defines_it():
    source = (ROOT / "jaxnets/backprop/dense.py").read_text("utf-8")
    line = links.line_of(source, "dense_backward")
    assert line and source.splitlines()[line - 1].startswith("def dense_backward(")
    nested = "if True:\n    A = 1\nelse:\n    class B:\n        x: int = 0\n"
    assert [links.line_of(nested, name) for name in ("A", "B", "B.x", "x")] == [2, 4, 5, None]


def test_the_page_of_flags_names_every_command_and_flag():
    text = flags_page.reference()
    kinds = [Config, ConfigFile, *(command.kinds[0] for command in COMMANDS.values())]
    for kind in kinds:
        for field in options_of(kind):
            start = field.metadata["help"].split(",")[0].replace("*", "\\*")
            assert start in text.replace("`", ""), field.name
    assert [f"\n## jaxnets {name}\n" in text for name in COMMANDS] == [True] * len(COMMANDS)
    assert "; `--help_all` shows them." in text and "``" not in text.replace("```", "")
    assert "`--learning_rate=X`\n: peak learning rate" in text


def test_the_page_of_python_has_every_name_and_field_with_its_help():
    page = (ROOT / "docs/reference/api.md").read_text("utf-8")
    missing = [name for name in dir(jaxnets) if f":: jaxnets.{name}\n" not in page]
    assert missing == ["__version__"]
    assert flags_page.FIELDS in page
    text = flags_page.fields()
    for field in options_of(Config):
        assert f"\n`{field.name}: " in f"\n{text}"
    line = "`learning_rate: float`\n: peak learning rate [default: 0.1]\n"
    assert line in text and "default: by the network" in text


def build(source: Path, site: Path) -> subprocess.CompletedProcess:
    """Builds a folder as the Chinese site, which is the smaller one."""
    options = ["-W", "--keep-going", "-q", "-b", "html", "-t", "zh", "-c", str(ROOT / "docs")]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(site)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path):
    (tmp_path / "index.md").write_text(
        "# Page\n\n`jaxnets/losses.py:mse`, `jaxnets/losses.py:mze`\n\n"
        "[there](other.md), [gone](gone.md), [no such part](other.md#gone), [part](other.md#here)\n"
    )
    (tmp_path / "other.md").write_text("# Other\n\n## Here\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    wanted = ("mze: no such name", "gone.md", "gone")
    assert len(warnings) == 3, done.stderr
    assert all(any(word in line for line in warnings) for word in wanted), done.stderr
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    line = links.line_of((ROOT / "jaxnets/losses.py").read_text("utf-8"), "mse")
    assert f'href="../code/jaxnets/losses.py.html#L-{line}"' in page


def test_chinese_is_cut_into_pairs():
    assert chinese_search.pairs("损失函数 cross-entropy") == [
        "损失", "失函", "函数", "cross", "entropy",
    ]  # fmt: skip
    assert chinese_search.pairs("用Relu层") == ["用", "Relu", "层"]


PAGE = """# softmax_cross_entropy_backward：反向传播

用链式法则从损失函数求到每个参数：$z = xW + b$。也叫 backpropagation。

| augmentation | accuracy | parameters | normalization | jaxnets.backprop.network |
| --- | --- | --- | --- | --- |
| `jaxnets/backprop/alexnet_layers.py:local_response_norm_backward` | 1 | 2 | 3 | 4 |

```{py:function} local_response_norm_backward_of_a_name_wider_than_a_phone(cache: tuple[int, int])
```
"""
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
# How many boxes each word of the table's head is broken into.
BOXES = """[...document.querySelectorAll("th p")].map((p) => {
  const range = document.createRange();
  range.selectNodeContents(p);
  return range.getClientRects().length;
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A small site of two pages."""
    import nbformat  # Not above: each worker collects the tests, and this takes 2 s.
    from nbformat import v4

    folder = tmp_path_factory.mktemp("site")
    source = folder / "source"
    source.mkdir()
    (source / "index.md").write_text("# 主页\n\n```{toctree}\nchain\ndrawn\nload\n```\n", "utf-8")
    (source / "inner.md").write_text("# 里面\n", "utf-8")
    load = "# 读取\n\n先读，\n**再**写。\n\n```{eval-rst}\n.. autofunction:: jaxnets.load\n```\n"
    load += "\n## Dropout\n\n遮住。\n\n```{py:module} jaxnets.backprop.dropout\n```\n"
    (source / "load.md").write_text(load, "utf-8")
    drawn = v4.new_output("display_data", data={"image/png": PIXEL})
    cells = [v4.new_markdown_cell("# 图"), v4.new_code_cell("draw()", outputs=[drawn])]
    cells[1].metadata = {"mystnb": {"image": {"alt": "一个白色的点"}}}
    python = {"language_info": {"name": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=python), source / "drawn.ipynb")
    inner = "\n```{toctree}\n:hidden:\ninner\n```\n"
    (source / "chain.md").write_text(PAGE + inner, "utf-8")
    done = build(source, folder / "site")
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_site_is_for_everybody(site, tmp_path, dark):
    with Browser(tmp_path / "chromium") as page:
        page.resize(1280, 900)
        axe.see_dark(page, dark)
        for name in ("index", "chain", "load"):
            page.call("Page.navigate", url=(site / f"{name}.html").as_uri())
            page.wait("document.readyState === 'complete'")
            assert page.evaluate("document.querySelectorAll('summary').length") == 1
            assert axe.violations(page) == []


@pytest.mark.slow
def test_a_bound_function_keeps_its_first_argument(site):
    page = re.sub("<[^>]+>", "", (site / "load.html").read_text("utf-8"))
    assert "jaxnets.load(workdir: str" in page and "先读，再写。" in page


@pytest.mark.slow
def test_a_drawn_picture_has_its_cells_words(site):
    (tag,) = re.findall(r"<img[^>]*_images[^>]*>", (site / "drawn.html").read_text("utf-8"))
    assert 'alt="一个白色的点"' in tag


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chinese_words_are_found_in_a_browser_offline(site, tmp_path):
    with Browser(tmp_path / "chromium") as browser:
        for question, found in (
            ("反向传播", True), ("链式法则", True), ("损失函数求", True), ("backpropagation", True),
            ("卷积神经网络", False),
        ):  # fmt: skip
            url = (site / "search.html").as_uri() + f"?q={question}"
            browser.call("Page.navigate", url=url)
            browser.wait("document.querySelector('#search-results .search-summary')?.innerText")
            answers = "[...document.querySelectorAll('#search-results li a')].map(a => a.innerText)"
            if found:  # They come one after the other.
                browser.wait(f"{answers}.some((title) => title.includes('反向传播'))")
            titles = browser.evaluate(answers)
            assert any("反向传播" in title for title in titles) == found, question
        browser.call("Page.navigate", url=(site / "search.html").as_uri() + "?q=dropout")
        browser.wait(f"{answers}.includes('jaxnets.backprop.dropout')")
        assert "jaxnets" not in browser.evaluate(answers)[0]
        assert (
            browser.evaluate("document.querySelector('input[type=search]').placeholder") == "搜索"
        )
        browser.call("Page.navigate", url=(site / "chain.html").as_uri())
        browser.wait("document.querySelector('mjx-container svg') !== null")
        switch = "document.querySelector('.language-switch')"
        assert browser.evaluate(f"{switch}.getAttribute('href')") == "../index.html"
        assert all(url.startswith(("file:", "data:")) for url in browser.requests())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_fits_a_phone_without_errors(site, tmp_path):
    with Browser(tmp_path / "chromium") as browser:
        browser.resize(390, 844, mobile=True)
        browser.call("Page.navigate", url=(site / "chain.html").as_uri())
        browser.wait("document.querySelector('mjx-container svg') !== null")
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        assert browser.evaluate(BOXES) == [1] * 5
        entries = [event["params"] for event in browser.problems()]
        assert not [e for e in entries if e.get("type") != "log"], entries


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_line_that_a_link_points_to_hides_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(links, "shown_files", lambda: ["train.py"])
    app: Any = SimpleNamespace(config=SimpleNamespace(language="en"))
    ((_, page, _),) = links.code_pages(app)
    style = (ROOT / "docs" / "_static" / "site.css").read_text("utf-8")
    path = tmp_path / "train.html"
    path.write_text(f"<!DOCTYPE html><style>{style}</style>{page['body']}", "utf-8")
    lefts = "[...document.querySelectorAll('pre span[id]')].map(e => e.getClientRects()[0].left)"
    with Browser(tmp_path / "chromium") as browser:
        browser.call("Page.navigate", url=f"{path.as_uri()}#L-3")
        browser.wait("document.querySelector(':target')?.id === 'L-3'")
        assert len(set(browser.evaluate(lefts))) == 1
