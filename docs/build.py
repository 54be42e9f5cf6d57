"""Builds the site in both languages: `python docs/build.py [FOLDER]`, by default docs/_site.

A warning is an error, and so is a link that leads nowhere. Needs `pip install -e '.[docs]'`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent


def build(site: Path) -> int:
    """Builds the English site and, below it, the Chinese one; returns the worse exit status."""
    shutil.rmtree(site, ignore_errors=True)
    worst = 0
    for source, target, tags in ((DOCS, site, []), (DOCS / "zh", site / "zh", ["-t", "zh"])):
        options = ["-W", "--keep-going", "-q", "-j", "auto", "-b", "html", "-c", str(DOCS), *tags]
        options += ["-d", str(site / ".doctrees" / source.name)]
        command = [sys.executable, "-m", "sphinx", *options, str(source), str(target)]
        worst = max(worst, subprocess.run(command).returncode)
    shutil.rmtree(site / ".doctrees")
    if not worst:
        print(site / "index.html")
    return worst


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1] if len(sys.argv) > 1 else DOCS / "_site").resolve()))
