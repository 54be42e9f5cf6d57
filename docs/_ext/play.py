"""Renews docs/draw.html, a page to draw on in one file: `python docs/_ext/play.py`.

The network and its pictures stay, and all around them becomes that of today: the page's programs,
styles and texts. With `--train` the network is trained anew.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from jaxnets.page.build import MEDIA_TYPES, common_files, one_file

DOCS = Path(__file__).resolve().parents[1]
DRAW = DOCS / "draw.html"
OWN = ("run.js", "practice.js")  # What a page has of its run.


def renewed(page: str) -> str:
    """A page with the programs, styles and texts of today."""
    own = {}
    for name in OWN:
        found = re.search(rf'<script data-file="{name}">(.*?)</script>', page, re.DOTALL)
        assert found, name
        own[name] = (MEDIA_TYPES[".js"], found[1].encode())
    return one_file(common_files() | own)


def train(path: Path) -> None:
    """Trains softmax regression and writes its page."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/softmax"
        flags = ["train.py", "--model=softmax", "--epochs=1", f"--workdir={run}"]
        for command in (flags, ["-m", "jaxnets", "page", run, f"--output={path}"]):
            subprocess.run([sys.executable, *command], cwd=DOCS.parent, check=True)


if __name__ == "__main__":
    if "--train" in sys.argv[1:]:
        train(DRAW)
    DRAW.write_text(renewed(DRAW.read_text("utf-8")), "utf-8")
