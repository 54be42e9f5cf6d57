"""HTML from Jinja2 templates, whose texts are in the language of `speaking`."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jaxnets.base.display import printable
from jaxnets.base.language import _, spoken


def environment(package: str) -> Environment:
    """The templates in a package's folder templates; what they show is escaped."""
    made = Environment(
        loader=PackageLoader(package),
        extensions=["jinja2.ext.i18n"],
        autoescape=True,
        finalize=_without_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["ext.i18n.trimmed"] = True
    extension: Any = made  # The extension gives it this method.
    extension.install_gettext_callables(_, _plural, newstyle=True)
    made.globals["space"] = _space
    return made


def _without_controls(value: object) -> object:
    """A text without control characters: it may come from a stranger's file."""
    return printable(value) if type(value) is str else value


def _plural(one: str, many: str, count: int) -> str:
    return _(one if count == 1 else many)


def _space() -> str:
    """What separates two sentences: nothing in Chinese."""
    return "" if spoken() == "zh" else " "
