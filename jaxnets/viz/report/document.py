"""The parts of a report in HTML. Every text is escaped here or comes as HTML."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources

from jaxnets.drawing.svg import Figure, both_themes, element, escape

# Nothing is loaded and no program runs; only the style with this digest counts.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src '{}'"
SHORT = 24  # Characters of a row's name that are kept in one line.


def document(language: str, title: str, nav: str, body: str, footer: str) -> str:
    """A page that loads nothing; nav and body are HTML."""
    folder = resources.files("jaxnets.viz.report") / "assets"
    style = both_themes() + (folder / "report.css").read_text("utf-8") + _hiding(body)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = POLICY.format(f"sha256-{digest}")
    html = [
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>",
        f"<header><h1>{escape(title)}</h1></header>\n<nav>{nav}</nav>",
        f"<main>\n{body}</main>",
        f"<footer>{escape(footer)}</footer>\n</body>\n</html>\n",
    ]
    return "\n".join(html)


def _hiding(body: str) -> str:
    """The rules by which an unticked box of a figure hides its curve, without a program."""
    most = max(map(int, re.findall(r'<input type="checkbox" class="k(\d+)"', body)), default=-1)
    rules = (f"figure:has(.k{n}:not(:checked)) .s{n}" for n in range(most + 1))
    return f"{', '.join(rules)} {{ display: none; }}\n" if most >= 0 else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, perhaps of a class."""
    return f'<p class="{kind}">{escape(text)}</p>\n' if kind else f"<p>{escape(text)}</p>\n"


def headed(heading: str, html: str, anchor: str) -> str:
    """HTML below a heading."""
    return f'<h3 id="{escape(anchor)}">{escape(heading)}</h3>\n{html}'


def details(summary: str, html: str) -> str:
    """HTML that a click opens."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>\n"


def card(html: str) -> str:
    """A box."""
    return f'<div class="card">{html}</div>\n'


def figures_of(parts: Sequence[tuple[Figure, str]], kind: str = "figures") -> str:
    """Figures beside each other, each with its title and a note."""
    html = ""
    for figure, note in parts:
        note = f'<p class="note">{escape(note)}</p>' if note else ""
        html += f'<figure id="{escape(figure.name)}"><figcaption><h4>{escape(figure.title)}</h4>'
        html += f"</figcaption>{_boxes(figure)}{figure.inline()}{note}</figure>\n"
    return f'<div class="{kind}">\n{html}</div>\n' if html else ""


def _boxes(figure: Figure) -> str:
    """A figure's legend, in which a tick shows or hides each curve."""
    html = ""
    for number, (label, style) in enumerate(figure.keys):
        line = element("line", x1=0, x2=24, y1=4, y2=4, **style)
        box = f'<input type="checkbox" class="k{number}" checked>'
        swatch = f'<svg viewBox="0 0 24 8" aria-hidden="true">{line}</svg>'
        html += f"<label>{box}{swatch}{escape(label)}</label>"
    return f'<div class="keys">{html}</div>' if html else ""


def verdict_list(verdicts: Sequence[tuple[str, str]]) -> str:
    """Sentences, each with its kind: good, bad or unknown."""
    items = ""
    for kind, text in verdicts:  # A line would else break within a flag, behind its hyphens.
        html = re.sub(r"--[a-z_]{1,20}(=\w{1,9})?", r"<code>\g<0></code>", escape(text))
        items += f'<li class="{kind}">{html}</li>'
    return f'<ul class="verdicts">{items}</ul>\n' if items else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls on its own where it is too wide; numbers stand on the right."""
    is_number = [
        all(re.fullmatch(r"[-–\d.,e+ %]+", row[k]) for row in rows) for k in range(len(head))
    ]

    def cells(row: Sequence[str], tag: str) -> str:
        html = ""
        for k, text in enumerate(row):
            name = "th" if k == 0 and tag == "td" else tag
            is_long = tag == "td" and (k > 0 or len(text) > SHORT)
            kind = ' class="number"' if is_number[k] else ' class="long"' if is_long else ""
            scope = "" if name == "td" else ' scope="col"' if tag == "th" else ' scope="row"'
            html += f"<{name}{kind}{scope}>{escape(text)}</{name}>"
        return f"<tr>{html}</tr>"

    top = f"<thead>{cells(head, 'th')}</thead>" if any(head) else ""
    body = "".join(cells(row, "td") for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'
