"""Writes docs/derive.html, the page that judges formulas: `python docs/_ext/derive.py`.

It has the formulas of backprop/formulas.toml, the scripts, texts and lessons of docs/_formulas/,
and the judge's sentences in Chinese. The site's chapters use the same scripts (living.py).
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from jaxnets.base.language import _, speaking, texts_spoken
from jaxnets.course.exercises.catalogue import DERIVES
from jaxnets.course.formulas.layers import LAYERS
from jaxnets.drawing.svg import both_themes
from jaxnets.drawing.templates import digest_of

DOCS = Path(__file__).resolve().parents[1]
PAGE = DOCS / "derive.html"
SCRIPTS = DOCS / "_formulas"
# Each after those that it needs.
JUDGE = ("said.js", "parser.js", "values.js", "layers.js", "mistakes.js", "judge.js")
COMMON = (*JUDGE, "numpy.js", "mathml.js", "sums.js", "scene.js")
KEPT = (
    "sizes",
    "square",
    "follows",
    "seeds",
    "letters",
    "drawn",
    "kinds",
    "scalars",
    "forward",
    "backward",
)
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src {}; script-src {}"
SENTENCE = re.compile(r'\b_\(\s*"([^"]+)"')


def read() -> dict[str, Any]:
    """The texts and lessons."""
    return tomllib.loads((SCRIPTS / "lessons.toml").read_text("utf-8"))


def formulas() -> dict[str, dict[str, Any]]:
    """What the scripts need of each layer in formulas.toml."""
    return {
        name: {key: value for key in KEPT if (value := getattr(layer, key))}
        for name, layer in LAYERS.items()
    }


def hints() -> dict[str, dict[str, list[str]]]:
    """The hints of the exercises to derive, by their layers and gradients, in both languages."""
    with speaking("zh"):
        return {
            sheet.layer: {name: [text, _(text)] for name, text in sheet.asked.items()}
            for sheet in DERIVES.values()
        }


def sentences() -> list[str]:
    """What the judge of the scripts may say, in English: the same as the Python one."""
    texts = ((SCRIPTS / name).read_text("utf-8") for name in JUDGE)
    return sorted({found for text in texts for found in SENTENCE.findall(text)})


def chinese() -> dict[str, str]:
    """The judge's sentences in Chinese, by the English ones."""
    with speaking("zh"):
        known = texts_spoken()
    return {text: known[text] for text in sentences() if text in known}


def script(*names: str) -> str:
    """Some scripts as one, in a function of its own: the site's pages have other scripts."""
    data = read()
    filled = {"TEXTS": data["texts"], "SENTENCES": chinese()}
    tables = {"LAYERS": formulas(), "LESSONS": data["lessons"], "HINTS": hints()}
    text = "\n".join((SCRIPTS / name).read_text("utf-8") for name in names)
    text = text.replace('"use strict";\n', "")
    for name, table in filled.items():
        text = text.replace(f"const {name} = {{}};", f"const {name} = {_json(table)};")
    defined = "".join(f"const {name} = {_json(table)};\n" for name, table in tables.items())
    return f'"use strict";\n(() => {{\n{defined}{text}}})();\n'


def _json(table: Any) -> str:
    return json.dumps(table, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def style(*names: str) -> str:
    """Some styles as one, with the colours of both themes."""
    return both_themes() + "".join((SCRIPTS / name).read_text("utf-8") for name in names)


def page() -> str:
    """The page, whose policy allows its own style and script and no request."""
    parts = {
        "style": style("formulas.css", "derive.css"),
        "script": script(*COMMON, "derive.js"),
    }
    parts["policy"] = POLICY.format(*map(digest_of, parts.values()))
    template = (SCRIPTS / "page.html").read_text("utf-8")
    return re.sub(r"\{(policy|style|script)\}", lambda found: parts[found[1]], template)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
