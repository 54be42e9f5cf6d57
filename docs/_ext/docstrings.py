"""Shows docstrings as written: reST would join a formula's lines, and read |x| as markup."""

import inspect
import pkgutil
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

HEADING = re.compile(r"[A-Z][A-Za-z ]*:$")  # "Args:", whose indented lines are no formula.
MARKUP = re.compile(
    r"\||(?<=\w)_(?!\w)|(?<=: )[A-Za-z]\.$"
)  # |x|; val_; "x: X.", no list's item X.


def keep_formulas(lines: list[str]) -> list[str]:
    r"""Puts "::" before each indented block that follows a paragraph, and escapes the rest.

    >>> keep_formulas(["Adds.", "", "    z = |x|", "", "Args:", "  x: A row.", "", "  y: |x|."])
    ['Adds.', '', '::', '', '    z = |x|', '', 'Args:', '  x: A row.', '', '  y: \\|x\\|.']
    """
    kept: list[str] = []
    above = ""  # The last line that is neither empty nor indented.
    inside = False
    for line in lines:
        indented = line.startswith(" ")
        begins = indented and not inside and (not kept or not kept[-1].strip())
        if begins and not HEADING.match(above) and not above.startswith(("- ", ">>> ")):
            kept += ["::", ""] if not above.endswith("::") else []
            inside = True
        elif line.strip() and not indented:
            above, inside = line, False
        is_code = inside or line.lstrip().startswith((">>> ", "... "))
        kept.append(line if is_code else MARKUP.sub(r"\\\g<0>", line))
    return kept


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers it before napoleon, which reads the sections; and `Array` by its short name."""

    def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]):
        lines[:] = keep_formulas(lines)

    def shorten(app: Sphinx, what: str, name: str, obj: Any, options: Any, *signature: str | None):
        named = pkgutil.resolve_name(name) if what == "function" else obj
        if inspect.ismethod(named):  # `jaxnets.load`, whose first argument autodoc takes for cls.
            found = inspect.signature(named.__func__)
            kept = [value for key, value in found.parameters.items() if key != "cls"]
            found = found.replace(parameters=kept, return_annotation=found.empty)
            signature = (stringify_signature(found).replace("typing.", ""), signature[1])
        return tuple(text and text.replace("jaxlib._jax.Array", "Array") for text in signature)

    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}
