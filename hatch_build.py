"""The text of the page on PyPI: README.md, whose links and pictures are files of the project.

Once [project.urls] names the repository they lead there. Until then the words stay without links.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)")
PICTURE = re.compile(r"<picture>.*?</picture>\n*|<img [^>]*>\n*", re.DOTALL)
SOURCE = re.compile(r'\b(src|srcset)="([^"]+)"')


def description(readme: str, address: str | None) -> str:
    """README.md as it reads away from the project's folder."""
    if address is None:
        return LINK.sub(r"\1", PICTURE.sub("", readme))
    files = address.replace("https://github.com/", "https://raw.githubusercontent.com/")
    readme = SOURCE.sub(rf'\1="{files}/main/\2"', readme)
    return LINK.sub(rf"[\1]({address}/blob/main/\2)", readme)


class Description(MetadataHookInterface):
    """Gives hatchling the field `readme`, which pyproject.toml declares dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the text."""
        readme = Path(self.root, "README.md").read_text("utf-8")
        text = description(readme, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
