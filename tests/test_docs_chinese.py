"""The Chinese pages against the English ones: the same code, the same formulas, the same terms."""

import ast
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(p for p in (DOCS / "zh").rglob("*") if p.suffix in (".md", ".ipynb"))
FENCE = re.compile(r"^( *)(```+|:::+)(.*?)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(^|\s)(#|//) .*$", re.MULTILINE)  # The only words in code that differ.
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


def cells_of(path: Path) -> list[tuple[str, str]]:
    """A notebook's cells, or a Markdown page as one: their kinds and texts."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return [("markdown", text)]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]


class Wordless(ast.NodeTransformer):
    """Empties the strings, and drops what only Chinese notebooks need: the fonts of labels."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        node.values = [part for part in node.values if isinstance(part, ast.FormattedValue)]
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if "font" in ast.unparse(node.targets[0]) else self.generic_visit(node)


def code_of(path: Path) -> list[str]:
    """The code blocks without comments, and the cells without words; a directive is no code."""
    blocks = []
    for kind, text in cells_of(path):
        if kind == "code":  # test_lecture_notebooks.py holds what its strings say.
            blocks.append(ast.unparse(Wordless().visit(ast.parse(text))))
            continue
        fences = [(found[3], found[4]) for found in FENCE.finditer(text) if found[2][0] == "`"]
        if path.name.startswith("week-"):  # test_course.py holds what a checkpoint prints.
            fences = [fence for fence in fences if fence[0] != "text"]
        fences = [f"{language}\n{code}" for language, code in fences if language[:1] != "{"]
        blocks += [re.sub(r"\s+\n", "\n", COMMENT.sub("", block)).strip() for block in fences]
    return blocks


def formulas_of(path: Path) -> Counter[str]:
    """The formulas in the sentences, whose order a translation may change."""
    texts = [FENCE.sub("", text) for kind, text in cells_of(path) if kind == "markdown"]
    found = FORMULA.findall(re.sub(r"`[^`]*`", "", "\n".join(texts)))
    return Counter("".join(pair).strip() for pair in found)


def differences(chinese: Path, english: Path) -> list[str]:
    """What stands in one page only, or in another order."""
    ours, theirs = code_of(chinese), code_of(english)
    found = [f"{a!r} beside {b!r}" for a, b in zip(ours, theirs, strict=False) if a != b]
    if len(ours) != len(theirs):
        found.append(f"{len(ours)} blocks of code beside {len(theirs)}")
    ours, theirs = formulas_of(chinese), formulas_of(english)
    return (
        found
        + [f"only in Chinese: ${f}$" for f in ours - theirs]
        + [f"only in English: ${f}$" for f in theirs - ours]
    )


def english_of(page: Path) -> Path:
    """The page that a Chinese one translates."""
    home = page.name == "README.md"  # GitHub shows it; the English one lies above docs/.
    return ROOT / page.name if home else DOCS / page.relative_to(DOCS / "zh")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_translation_has_the_english_code_and_formulas(page):
    english = english_of(page)
    assert english.exists(), f"{page} translates nothing"
    assert differences(page, english) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_and_its_translation_link_to_each_other(page):
    english = english_of(page)
    for here, there in ((page, english), (english, page)):
        link = os.path.relpath(there, here.parent).replace(os.sep, "/")
        text = "".join(text for kind, text in cells_of(here) if kind == "markdown")
        assert f"]({link})" in text, f"{here} does not link to {link}"


ENGLISH = """# A page
Take $x$ and $y$ with `$HOME`.

```sh
python train.py  # trains
```

```math
z = x + y
```
"""
CHINESE = ENGLISH.replace("# A page", "# 页面").replace("# trains", "# 训练")
CHINESE = CHINESE.replace("Take $x$ and $y$ with", "取 $y$ 和 $x$，以及")


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("", "", 0),
        ("train.py", "train.py --epochs=1", 1),
        ("z = x + y", "z = x - y", 1),
        ("$x$", "$X$", 2),
        ("```sh", "```text", 1),
        ("```math\nz = x + y\n```\n", "", 1),
    ],
)
def test_a_translation_that_drifted_is_found(tmp_path, right, wrong, found):
    english, chinese = tmp_path / "page.md", tmp_path / "zh.md"
    english.write_text(ENGLISH, "utf-8")
    chinese.write_text(CHINESE.replace(right, wrong), "utf-8")
    assert len(differences(chinese, english)) == found


def test_a_notebook_that_drifted_is_found(tmp_path):
    def write(name, *cells):
        path = tmp_path / name
        cells = [{"cell_type": kind, "source": [text]} for kind, text in cells]
        path.write_text(json.dumps({"cells": cells}), "utf-8")
        return path

    english = write("en.ipynb", ("markdown", "Take $x$."), ("code", "f(1, 'x')  # one"))
    same = write("same.ipynb", ("markdown", "取 $x$。"), ("code", "f(1, '一')  # 一"))
    drifted = write("drifted.ipynb", ("markdown", "取 $y$。"), ("code", "f(2, '一')  # 一"))
    assert differences(same, english) == []
    assert len(differences(drifted, english)) == 3


def rows_of(page: str) -> list[list[str]]:
    """The rows of a page's table, without its head."""
    lines = [line for line in (DOCS / page).read_text("utf-8").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_both_glossaries_have_the_same_terms_each_in_its_order():
    english, chinese = rows_of("glossary.md"), rows_of("zh/glossary.md")
    assert len(english) > 70
    assert sorted(row[:2] for row in english) == sorted([row[2], row[0]] for row in chinese)
    for words in ([row[0].lower() for row in english], [row[1].lower() for row in chinese]):
        assert words == sorted(words)


# What no sentence may say, and the glossary's word for it.
CHINESE_SYNONYMS = {
    "epoch(?!）)": "轮",  # Beside its Chinese word, in brackets, it may stand.
    "反向计算|前向计算|正向传播|反传": "反向传播",
    "折点|拐点|尖点": "不可导点",
    "隐藏层": "隐含层",
    "学习速率|学习步长": "学习率",
    "规范化|标准化": "归一化",
    "正确率|准确度|精准度": "准确率",
    "查准率": "精确率",
    "查全率": "召回率",
    "蒙版|遮罩": "掩码",
    "批次|批量(?!训练|更新)": "批",  # 批量训练函数 is a slide's title.
    "雅各比|雅克比": "雅可比矩阵",
    "失活率|dropout 的?比率": "dropout 率",
    "训练文件夹": "运行文件夹",
}
ENGLISH_SYNONYMS = {
    "normalis": "normalization",
    "optimis(e|ing|ation)": "optimizer",
    "initialis": "initialization",
    r"learnt\b|recognis|regularis|generalis(e|ation)": "regularization",
    "back-propagation|back propagation": "backpropagation",
    "hyper-parameter": "hyperparameter",
    r"(noise|by luck) \(p|are equally good \(p": "significant",  # Not shown to differ is not equal.
}


def sentences_of(path: Path) -> str:
    """A page's words, without code, quotations and addresses."""
    texts = [FENCE.sub("", text) for kind, text in cells_of(path) if kind == "markdown"]
    text = re.sub(r"~~~.*?~~~", "", "\n".join(texts), flags=re.DOTALL)
    return re.sub(r"`[^`]*`|“[^”]*”|\"[^\"]*\"|\]\([^)]*\)|https?://\S*", "", text)


@pytest.mark.parametrize("synonyms", [CHINESE_SYNONYMS, ENGLISH_SYNONYMS], ids=["zh", "en"])
def test_the_pages_use_the_glossarys_words(synonyms):
    chinese = synonyms is CHINESE_SYNONYMS
    terms = {part for row in rows_of("glossary.md") for part in row[chinese].split(", ")}
    assert set(synonyms.values()) <= terms
    pages = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb")]
    pages = [path for path in pages if not {"_site", "_lecture", "glossary.md"} & set(path.parts)]
    found = {
        (str(path.relative_to(DOCS)), match[0])
        for path in pages
        if ("zh" in path.parts) == chinese
        for wrong in synonyms
        for match in re.finditer(wrong, sentences_of(path))
    }
    assert not found


def test_a_word_beside_the_glossary_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("训练两个 epoch，`epoch` 和“epoch”不算，一轮（epoch）也不算。\n", "utf-8")
    (wrong,) = (wrong for wrong in CHINESE_SYNONYMS if "epoch" in wrong)
    assert len(re.findall(wrong, sentences_of(page))) == 1
