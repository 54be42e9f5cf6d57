"""Makes docs/slides.html and docs/zh/slides.html of docs/_slides/course.md.

    python docs/_ext/slides.py

In the source `# ` begins a week, `## ` a slide. A line marked `en:` or `zh:` is of one language,
any other of both; the mark follows what Markdown begins a line with. `> ` are the speaker's notes,
$...$ is a formula. A picture is NAME.svg, in Chinese NAME.zh.svg; it says itself what it shows.
Lines from `>>> ` to the next empty one recompute a slide's numbers: the tests run them, no slide
shows them.
"""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

DOCS = Path(__file__).resolve().parents[1]
SOURCE = DOCS / "_slides" / "course.md"
FILES = {"en": DOCS / "slides.html", "zh": DOCS / "zh" / "slides.html"}
WORDS = {
    "en": {"language": "en", "back": "back", "next": "next", "notes": "speaker's notes"},
    "zh": {"language": "zh-CN", "back": "上一页", "next": "下一页", "notes": "讲解备注"},
}
MARKED = re.compile(r"^(#+ |> |- |\d\. |\| )?(en|zh): (.*)$")
CHECK = re.compile(r"^>>> .*\n(?:.+\n)*", re.MULTILINE)
SVG = "{http://www.w3.org/2000/svg}"


def texts_of(source: str, language: str) -> list[str]:
    """The Markdown of each slide in a language; each begins with its heading."""
    lines = []
    for line in CHECK.sub("", source).splitlines():
        marked = MARKED.match(line)
        if marked is None:
            lines.append(line)
        elif marked[2] == language:
            lines.append(f"{marked[1] or ''}{marked[3]}")
    _before, *slides = re.split(r"^(?=#{1,2} )", "\n".join(lines), flags=re.MULTILINE)
    return slides


def deck(source: str, language: str) -> str:
    """The page with all slides in a language."""
    texts = texts_of(source, language)
    markdown = _markdown(language)
    sections = []
    for text in texts:
        kind = ' class="week"' if text.startswith("# ") else ""
        body = markdown.render(re.sub(r"^#+ ", "# ", text))
        sections.append(f"<section{kind}>\n{body}</section>")
    title = html.escape(texts[0].splitlines()[0].removeprefix("# "))
    page = (DOCS / "_slides" / "deck.html").read_text("utf-8")
    filled = WORDS[language] | {"title": title, "slides": "\n".join(sections)}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], page)


def _markdown(language: str) -> MarkdownIt:
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.use(dollarmath_plugin, renderer=_formula, double_inline=True)
    markdown.add_render_rule("blockquote_open", lambda *_: '<aside class="notes">\n')
    markdown.add_render_rule("blockquote_close", lambda *_: "</aside>\n")

    def picture(_self: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
        return _picture(SOURCE.parent / str(tokens[index].attrs["src"]), language)

    markdown.add_render_rule("image", picture)
    return markdown


def _formula(latex: str, options: dict[str, Any]) -> str:
    r"""MathML; parts that \qquad separates may wrap on a phone."""
    display = "block" if options["display_mode"] else "inline"
    return "".join(convert(part.strip(), display=display) for part in latex.split(r"\qquad"))


def _picture(path: Path, language: str) -> str:
    """A picture within the page, with its own title and description as words."""
    if language != "en":
        path = path.with_suffix(f".{language}{path.suffix}")
    content = path.read_bytes()
    root = ElementTree.fromstring(content)
    words = [root.findtext(SVG + tag) or "" for tag in ("title", "desc")]
    alt = html.escape(". ".join(filter(None, words)))
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{base64.b64encode(content).decode()}">'


if __name__ == "__main__":
    for language, path in FILES.items():
        path.write_text(deck(SOURCE.read_text("utf-8"), language), "utf-8")
