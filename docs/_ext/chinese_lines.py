"""Joins the lines of a Chinese paragraph: a browser shows the end of a source line as a space."""

import re
from typing import Any

from docutils import nodes

CHINESE = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
ENDS, BEGINS = re.compile(f"{CHINESE}$"), re.compile(CHINESE)


def join(doctree: nodes.Node) -> None:
    """Removes the end of each line between two Chinese characters."""
    for end in [text for text in doctree.findall(nodes.Text) if text == "\n"]:
        around = end.parent
        at = next(number for number, child in enumerate(around) if child is end)  # Not an equal.
        before = "".join(child.astext() for child in around[:at])
        after = "".join(child.astext() for child in around[at + 1 :])
        if ENDS.search(before) and BEGINS.match(after):
            del around[at]


def setup(app: Any) -> dict[str, bool]:
    """Registers the join with Sphinx."""
    app.connect("doctree-read", lambda _app, doctree: join(doctree))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
