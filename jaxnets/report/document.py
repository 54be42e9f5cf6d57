"""A report as an HTML document that loads nothing; templates/report.html shows its data."""

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import Environment

from jaxnets.base.language import spoken
from jaxnets.drawing.svg import Figure, LegendEntry, both_themes, element
from jaxnets.drawing.templates import digest_of, environment
from jaxnets.machine.platform import versions
from jaxnets.report.verdicts import Finding

# Nothing is loaded and no script runs; only the style with this digest applies.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src {}"


class Section(NamedTuple):
    """A part of a report: its data, which a file of templates/sections shows."""

    name: str  # Also its anchor.
    heading: str
    figures: dict[str, Figure]
    values: dict[str, Any]
    template: str = ""  # The file's name, if it is not the section's.


class RunPart(NamedTuple):
    """A run in a report."""

    name: str
    prefix: str  # Of its anchors.
    accuracy: str
    facts: list[dict[str, str]]  # Each one's label and value, and perhaps its interval.
    verdicts: list[Finding]
    sections: list[Section]
    unfinished_step: str | None
    ten_crop: bool
    missing: list[str]


def document(comparison: Sequence[Section], runs: Sequence[RunPart]) -> str:
    """The report of some runs; several are first compared."""
    sections = [*comparison, *(section for run in runs for section in run.sections)]
    curves = [len(figure.keys) for section in sections for figure in section.figures.values()]
    css = resources.files("jaxnets.report") / "assets" / "report.css"
    style = both_themes() + css.read_text("utf-8") + _hiding(max(curves, default=0))
    return (
        _templates()
        .get_template("report.html")
        .render(
            language=spoken(),
            policy=POLICY.format(digest_of(style)),
            style=style,
            comparison=comparison,
            runs=runs,
            version=versions()["jaxnets"],
        )
    )


def _templates() -> Environment:
    made = environment("jaxnets.report")
    made.filters |= {"numeric": _numeric, "swatch": _swatch}
    return made


def _hiding(curves: int) -> str:
    """The CSS rules by which an unticked box of a figure hides its curve, without a script."""
    rules = ", ".join(f"figure:has(.k{n}:not(:checked)) .s{n}" for n in range(curves))
    return f"{rules} {{ display: none; }}\n" if rules else ""


def _numeric(rows: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """Whether each column has only numbers."""
    return [all(re.fullmatch(r"[-–\d.,e+ %]+", row[k]) for row in rows) for k in range(columns)]


def _swatch(key: LegendEntry) -> str:
    """The look of a curve."""
    line = element("line", x1=0, x2=24, y1=4, y2=4, **key.style)
    return f'<svg viewBox="0 0 24 8" aria-hidden="true">{line}</svg>'
