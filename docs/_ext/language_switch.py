"""Each page links to itself in the other language, or else to the other language's home."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]


def exists(page: str, chinese: bool) -> bool:
    """Whether a page is there in a language."""
    folder = DOCS / "zh" if chinese else DOCS
    return any((folder / f"{page}{ending}").exists() for ending in (".md", ".ipynb"))


def other_language(app: Sphinx, page: str, template: str, context: dict[str, Any], *rest: Any):
    """Sets what the template needs: address, language and name of the other page."""
    to_chinese = app.config.language == "en"
    target = page if exists(page, to_chinese) else "index"
    up = "../" * page.count("/")
    context["other_address"] = f"{up}zh/{target}.html" if to_chinese else f"../{up}{target}.html"
    context["other_language"] = "zh-CN" if to_chinese else "en"
    context["other_name"] = "中文" if to_chinese else "English"


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers it with Sphinx."""
    app.connect("html-page-context", other_language)
    return {"parallel_read_safe": True}
