"""HTML and text from Jinja2 templates, in the language of `speaking`."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from jaxnets.base.display import printable
from jaxnets.base.errors import UserError
from jaxnets.base.files import output_path
from jaxnets.base.language import _, spoken

# In the head of each file that jaxnets writes, which may therefore be replaced.
GENERATOR = '<meta name="generator" content="jaxnets">'
HEAD = 1000  # Bytes of a file that are searched for it.


def environment(package: str) -> Environment:
    """The templates in a package's folder templates; what those of HTML show is escaped."""
    made = Environment(
        loader=PackageLoader(package),
        extensions=["jinja2.ext.i18n"],
        autoescape=select_autoescape(),
        finalize=_without_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["ext.i18n.trimmed"] = True
    extension: Any = made  # The extension gives it this method.
    extension.install_gettext_callables(_, _plural, newstyle=True)
    made.globals |= {"space": _space, "generator": GENERATOR}
    return made


def digest_of(inlined: str) -> str:
    """A style or script within a page, as the page's content-security policy allows it.

    Source: W3C, Content Security Policy Level 3, section 2.3.1 (hash-source).
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(inlined.encode()).digest()).decode()}'"


def html_path(output: str) -> Path:
    """The path of an HTML file that may be written: a new or empty one, or one that jaxnets wrote.

    Raises:
      UserError: Another program's file is there, or nothing can be written there.
    """
    path = output_path(output)
    if path.exists():
        with path.open("rb") as stream:
            head = stream.read(HEAD)
        if head and GENERATOR.encode() not in head:
            raise UserError(
                "output: {} was not written by jaxnets; --output=FILE takes another name", output
            )
    return path


def _without_controls(value: object) -> object:
    """A text without control characters: it may come from a stranger's file."""
    return printable(value) if type(value) is str else value


def _plural(one: str, many: str, count: int) -> str:
    return _(one if count == 1 else many)


def _space() -> str:
    """What separates two sentences: nothing in Chinese."""
    return "" if spoken() == "zh" else " "
