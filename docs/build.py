"""Builds the site in both languages: `python docs/build.py [FOLDER]`, by default docs/_site.

A warning is an error, and so is a link that leads nowhere. Needs `pip install -e '.[docs]'`. The
site's folder lite/ runs notebooks in the reader's browser (_ext/lite.py).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import lite  # noqa: E402


def build(site: Path) -> int:
    """Builds the English site and, below it, the Chinese one; returns the worse exit status."""
    worst = 0
    # MyST-NB leaves the notebooks' pictures next to its output.
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder)
        for source, name, tags in ((DOCS, "en", []), (DOCS / "zh", "zh", ["-t", "zh"])):
            options = ["-W", "--keep-going", "-q", "-j", "auto", "-b", "html", "-c", str(DOCS)]
            options += ["-d", str(built / "doctrees" / name), *tags]
            command = [sys.executable, "-m", "sphinx", *options, str(source), str(built / name)]
            worst = max(worst, subprocess.run(command).returncode)
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(built / "en", site)
        shutil.move(built / "zh", site / "zh")
    worst = max(worst, lite.build(site))
    if not worst:
        print(site / "index.html")
    return worst


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1] if len(sys.argv) > 1 else DOCS / "_site").resolve()))
