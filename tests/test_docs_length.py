"""A page says what its reader needs: at most 1,200 words, and one number in five words.

Words are those of sentences, lists and tables: without blocks of code, formulas, addresses and
what is folded. Inline code is one word. Chinese has no blanks between its words; 1.6 characters
count as one, with which a page and its translation are about equally long. Notebooks are measured
in minutes, not here.
"""

import re

import pytest
from conftest import ROOT
from test_docs import FENCE

DOCS = ROOT / "docs"
MAX_WORDS, MAX_NUMBERS = 1200, 0.2  # Of a page; for each word.
CHARACTERS_A_WORD = 1.6
# What is looked up, and not read from its first line to its last.
REFERENCE = {
    "errata", "glossary", "exercises-answers", "exercises-list", "lecture-map", "changelog",
    "contributing", "backprop/sheet", "reference/api", "reference/backprop", "reference/cli",
}  # fmt: skip
UNREAD = (
    r"<!--.*?-->",
    r"<details>.*?</details>",
    r"<[^>]+>",
    r"\$\$.*?\$\$",
    r"\$[^$\n]+\$",
    r"!\[[^]]*\]\([^)]*\)",
    r"(?<=\])\([^)\s]*\)",
    r"https?://\S+",
)


def name_of(path) -> str:
    """The page's name in either language, as docs/speed.md is "speed"."""
    return path.relative_to(DOCS).with_suffix("").as_posix().removeprefix("zh/")


FOLDERS = {"_site", "_lecture", "_slides"}
PAGES = [
    p
    for p in sorted(DOCS.rglob("*.md"))
    if not FOLDERS & set(p.parts) and name_of(p) not in REFERENCE
]


def counted(text: str) -> tuple[float, int]:
    """The words and the numbers of a page."""
    text = re.sub(r"`[^`]+`", "code", FENCE.sub("", text))
    for unread in UNREAD:
        text = re.sub(unread, " ", text, flags=re.DOTALL)
    words = len(re.findall(r"[A-Za-z][\w'’-]*", text, re.ASCII))
    characters = len(re.findall("[\u4e00-\u9fff]", text))
    numbers = len(re.findall(r"(?<![A-Za-z\d.,])\d[\d.,:]*", text))
    return words + characters / CHARACTERS_A_WORD, numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_short_and_no_list_of_numbers(page):
    words, numbers = counted(page.read_text("utf-8"))
    assert words <= MAX_WORDS
    assert numbers <= MAX_NUMBERS * words


def test_every_exempt_page_exists():
    assert {name_of(path) for path in DOCS.rglob("*.md")} >= REFERENCE


def test_words_and_numbers_are_counted_as_a_reader_reads():
    page = (
        "# Two words\n\n```sh\nno words 1 2 3\n```\n\nA rate of 0.15, `--epochs=20`: "
        "[see here](other.md#x2) and $x_1 = 3$.\n\n| 1,000 | Zen 4 |\n\n"
        "<details>folded 5 6</details>\n\n![alt 7](x.svg)\n"
    )
    assert counted(page) == (2 + 3 + 1 + 2 + 1 + 1, 3)
    assert counted("学习率是 0.15，`code`") == (4 / CHARACTERS_A_WORD + 1, 1)
