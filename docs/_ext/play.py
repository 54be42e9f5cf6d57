"""Renews docs/draw.html and docs/plane.html, each the page of a run: `python docs/_ext/play.py`.

The networks and their data stay, and all around them becomes that of today: the page's programs,
styles and texts. With `--train` the networks are trained anew.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from jaxnets.page.build import (
    MEDIA_TYPES,
    OWN_SCRIPTS,
    PICTURES,
    PLANE,
    Kind,
    common_files,
    one_file,
)

DOCS = Path(__file__).resolve().parents[1]


class Play(NamedTuple):
    """A page, and how its network is trained."""

    path: Path
    kind: Kind
    flags: tuple[str, ...]


DRAW = Play(DOCS / "draw.html", PICTURES, ("--model=softmax", "--epochs=1"))
ON_CIRCLES = ("--model=mlp_functional", "--hidden=8", "--dataset=circles")
ON_PLANE = Play(DOCS / "plane.html", PLANE, ON_CIRCLES)


def renewed(page: str, kind: Kind) -> str:
    """A page with the programs, styles and texts of today."""
    own = {}
    for name in OWN_SCRIPTS:
        found = re.search(rf'<script data-file="{name}">(.*?)</script>', page, re.DOTALL)
        assert found, name
        own[name] = (MEDIA_TYPES[".js"], found[1].encode())
    return one_file(common_files(kind) | own, kind=kind)


def train(play: Play) -> None:
    """Trains the network of a page, and writes the page."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        flags = ["train.py", *play.flags, f"--workdir={run}"]
        for command in (flags, ["-m", "jaxnets", "page", run, f"--output={play.path}"]):
            subprocess.run([sys.executable, *command], cwd=DOCS.parent, check=True)


if __name__ == "__main__":
    for each in (DRAW, ON_PLANE):
        if "--train" in sys.argv[1:]:
            train(each)
        each.path.write_text(renewed(each.path.read_text("utf-8"), each.kind), "utf-8")
