"""The project's address, and the files that repeat it: `python docs/_ext/address.py` writes them.

It is in pyproject.toml, under [project.urls], once the project is published. The site reads it
there, and the drawing page in what pip has installed. Two files are read far from pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLAB = "https://colab.research.google.com/"
# The lines about the address, by their beginnings: of the notebook's JSON and of CITATION.cff.
ON_COLAB = re.compile(r'^    "\*On Colab\*: .*$', re.MULTILINE)
REPOSITORY = re.compile(r'^    "REPOSITORY = .*$', re.MULTILINE)
CITED = re.compile(r"^repository-code: .*\n", re.MULTILINE)


def project_address() -> str | None:
    """The project's address on GitHub; None until it is published."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def documents(address: str | None) -> dict[Path, str]:
    """The files that repeat an address, as they read with this one."""
    colab, citation = ROOT / "docs" / "colab.ipynb", ROOT / "CITATION.cff"
    way = f"upload this notebook to [Colab]({COLAB}), and a wheel of jaxnets (*Install* says how)."
    if address:
        site = address.replace("https://github.com/", f"{COLAB}github/")
        way = f"[open this notebook]({site}/blob/main/docs/colab.ipynb)."
    notebook = colab.read_text("utf-8")
    notebook = ON_COLAB.sub(rf'    "*On Colab*: {way}\\n",', notebook)
    notebook = REPOSITORY.sub(rf'    "REPOSITORY = \\"{address or ""}\\"\\n",', notebook)
    cited = CITED.sub("", citation.read_text("utf-8"))
    return {colab: notebook, citation: cited + (f"repository-code: {address}\n" if address else "")}


if __name__ == "__main__":
    for path, text in documents(project_address()).items():
        path.write_text(text, "utf-8")
