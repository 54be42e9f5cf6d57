"""Makes the lecture's notebooks, English and Chinese, from their plain sources, and runs them.

python docs/_ext/notebooks.py [NAME ...] [--check | --texts]

A source, docs/_lecture/NAME.md, holds a notebook in reading order: its code once, in fences of
```python, and between them a text in both languages, parted by a line <!-- zh -->. What the code
says (comments, docstrings, labels, what it prints) is English; docs/_lecture/zh.toml has the
Chinese, and in place of a line "# Chinese fonts" that edition sets fonts. Otherwise both have the
same code. After a cell that draws, <!-- alt: English | Chinese --> says what its picture shows, for
those who cannot see it; <!-- folded --> folds a cell on the site. Each edition is run. A picture
becomes a PNG of at most 64 colours, ids are numbers and times are removed: the same versions on the
same machine give the same bytes. Chinese labels need a font (Debian: fonts-noto-cjk). --check
writes nothing and compares with the notebooks that are there. --texts runs nothing: it renews the
texts and keeps the outputs, if the code is the same.
"""

import argparse
import base64
import copy
import io
import os
import re
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
SOURCES = DOCS / "_lecture"
LANGUAGES = ("en", "zh")
CHINESE = "<!-- zh -->"
# A line's end between Chinese characters, or beside a Chinese mark, which would become a space.
CHINESE_BREAK = re.compile(
    r"(?<=[\u3000-\uff60”])\n *(?=[\u3000-\uff60“])"
    r"|(?<=[，。；：、！？）”])\n *(?=[\w`$(\[]|\*\*)(?!\d+\. |\$\$|```)"
    r"|(?<=[\w`$)\]])(?<!```)(?<!\$\$)\n *(?=[，。；：、！？）（“])"
)
ALT = re.compile(r"\s*<!-- alt: (.+?) \| (.+?) -->\n", re.DOTALL)
FOLDED = re.compile(r"\s*<!-- folded -->\n")
# Where the Chinese edition sets fonts: Matplotlib's own has no Chinese characters.
FONTS_HERE = "# Chinese fonts\n"
FONTS = """\
# 图中的汉字：用已安装的中文字体。
fonts = plt.matplotlib.font_manager.get_font_names()
plt.rcParams["font.family"] = ["DejaVu Sans"] + [
    font for font in ("Microsoft YaHei", "Hiragino Sans GB", "Noto Sans CJK SC") if font in fonts
]
"""
SAYS = tomllib.loads((SOURCES / "zh.toml").read_text("utf-8"))
PIECES = re.compile("|".join(map(re.escape, sorted(SAYS, key=len, reverse=True))))
UNANSWERED = ("exercises-numpy",)  # Their blanks are the reader's: they are kept without outputs.
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 1800  # After which a cell hangs, however slow the machine.
COLOURS = 64
TIMES = "<th>seconds</th></tr>"  # The last column of a history's table.
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?")


class Cell(NamedTuple):
    """A cell of both notebooks."""

    kind: str  # "code" or "markdown"
    text: dict[str, str]  # By language.
    alt: dict[str, str] = {}  # What a code cell's picture shows, by language.
    folded: bool = False


def in_english(code: str) -> str:
    """A cell's code in the English edition."""
    return code.replace(FONTS_HERE, "")


def in_chinese(code: str) -> str:
    """A cell's code in the Chinese edition."""
    return PIECES.sub(lambda piece: SAYS[piece[0]], code).replace(FONTS_HERE, FONTS)


def read_source(name: str) -> list[Cell]:
    """The cells of a source.

    Raises:
      ValueError: A text is not there in both languages.
    """
    cells = []
    parts = CODE.split((SOURCES / f"{name}.md").read_text("utf-8"))
    for number, part in enumerate(parts):
        if number % 2 == 0 and (found := ALT.match(part)):
            cells[-1] = cells[-1]._replace(alt=dict(zip(LANGUAGES, found.groups(), strict=True)))
            part = part[found.end() :]
        if number % 2 == 0 and (found := FOLDED.match(part)):
            cells[-1] = cells[-1]._replace(folded=True)
            part = part[found.end() :]
        part = part.strip("\n")
        if number % 2:
            editions = (in_english(part + "\n"), in_chinese(part + "\n"))
            texts = [code.strip("\n") for code in editions]
            cells.append(Cell("code", dict(zip(LANGUAGES, texts, strict=True))))
        elif part:
            texts = [text.strip("\n") for text in part.split(CHINESE)]
            if len(texts) != len(LANGUAGES) or not all(texts):
                raise ValueError(f"{name}: expected a text in two languages, got {part[:200]!r}")
            texts[1] = CHINESE_BREAK.sub("", texts[1])
            cells.append(Cell("markdown", dict(zip(LANGUAGES, texts, strict=True))))
    return cells


def names() -> list[str]:
    """The sources' names, in the lecture's order."""
    return sorted(path.stem for path in SOURCES.glob("*.md"))


def path_of(name: str, language: str) -> Path:
    """A notebook's folder; a name that begins with no number is no part of the lecture."""
    folder = DOCS if language == "en" else DOCS / language
    return (folder / "lecture" if name[0].isdigit() else folder) / f"{name}.ipynb"


def to_notebook(cells: list[Cell], language: str) -> Any:
    """A notebook without outputs."""
    import nbformat.v4 as v4

    made = []
    for number, cell in enumerate(cells, start=1):
        new = v4.new_code_cell if cell.kind == "code" else v4.new_markdown_cell
        made.append(new(cell.text[language], id=f"cell-{number:02d}"))
        if cell.alt:  # MyST-NB gives it to the page's <img>.
            made[-1].metadata["mystnb"] = {"image": {"alt": cell.alt[language]}}
        if cell.folded:
            made[-1].metadata["tags"] = ["hide-input"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return v4.new_notebook(cells=made, metadata=metadata)


def execute(notebook: Any, language: str = "en") -> None:
    """Runs a notebook in an empty folder, with this checkout's package, and tidies its outputs.

    Args:
      notebook: Gets the outputs.
      language: That of the judge's verdicts.
    """
    import nbclient

    with tempfile.TemporaryDirectory() as folder:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment["LANGUAGE"] = language
        place = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(
            notebook, timeout=SECONDS, startup_timeout=SECONDS, resources=place
        )
        metadata = copy.deepcopy(notebook.metadata)
        client.execute(env=environment)
        notebook.metadata = metadata  # Without Python's version.
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
            if TIMES in output.get("data", {}).get("text/html", ""):
                html = output.data["text/html"].replace(TIMES, "</tr>")
                output.data["text/html"] = re.sub("<td>[^<]*</td></tr>", "</tr>", html)


def merged(outputs: list[Any]) -> list[Any]:
    """The outputs with what follows each other on stdout as one: a kernel sends it in pieces."""
    kept: list[Any] = []
    for output in outputs:
        name = output.get("name")
        if name is not None and kept and kept[-1].get("name") == name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def smaller(encoded: str) -> str:
    """A picture with fewer colours, in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def executed(name: str, kept: dict[str, Any] | None = None) -> dict[str, Any]:
    """Both notebooks of a source, run; or with the outputs of those that were kept.

    Raises:
      ValueError: A kept one has other code.
    """
    cells = read_source(name)
    made = {language: to_notebook(cells, language) for language in LANGUAGES}
    for language, notebook in made.items():
        if name in UNANSWERED:
            continue
        if kept is None:
            execute(notebook, language)
            continue
        old, new = (
            [cell for cell in one.cells if cell.cell_type == "code"]
            for one in (kept[language], notebook)
        )
        if [cell.source for cell in old] != [cell.source for cell in new]:
            raise ValueError(f"{name}: the code is not that of the notebook, which must run again")
        for there, here in zip(old, new, strict=True):
            here.outputs, here.execution_count = there.outputs, there.execution_count
    return made


def printed(notebook: Any) -> list[str]:
    """What each code cell printed or showed as text."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [o.get("text", o.get("data", {}).get("text/plain", "")) for o in cell.outputs]
            texts.append("".join(map(str, outputs)))
    return texts


def differences(kept: list[str], found: list[str], tolerance: float = 0.1) -> list[str]:
    """Where the texts of two runs differ by more than another machine's rounding makes them.

    Words must be the same. Numbers may differ by a share of the larger one or, below 1, by as much:
    training multiplies roundings, and errors below 1e-4 are roundings themselves.
    """
    problems = [] if len(kept) == len(found) else [f"{len(kept)} cells, now {len(found)}"]
    for number, (old, new) in enumerate(zip(kept, found, strict=False), start=1):
        words = [re.sub(r"[\s─-]+", " ", NUMBER.sub("#", text)) for text in (old, new)]
        if words[0] != words[1]:
            problems.append(f"code cell {number}: expected\n{old}\ngot\n{new}")
            continue
        pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=False)
        for texts in pairs:
            a, b = (float(text.replace(",", "")) for text in texts)
            if abs(a - b) > tolerance * max(abs(a), abs(b), 1):
                problems.append(f"code cell {number}: expected {texts[0]}, got {texts[1]}")
    return problems


def check(name: str) -> list[str]:
    """Runs a source; how what it prints differs from the notebooks that are kept."""
    problems = []
    for language, notebook in executed(name).items():
        problems += differences(printed(read(name, language)), printed(notebook))
    return problems


def read(name: str, language: str) -> Any:
    """A notebook as it is kept."""
    import nbformat

    return nbformat.read(path_of(name, language), as_version=4)


def main() -> int:
    """The script."""
    import nbformat

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all of them")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--texts", action="store_true", help="run nothing, renew the texts")
    given, failed = parser.parse_args(), False
    for name in given.names or names():
        if given.check:
            problems = check(name)
            failed |= bool(problems)
            print("\n".join([f"{name}: {'differs' if problems else 'the same'}", *problems]))
            continue
        kept = {one: read(name, one) for one in LANGUAGES} if given.texts else None
        for language, notebook in executed(name, kept).items():
            path = path_of(name, language)
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, path)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
