"""The project's address: it stands in pyproject.toml alone, and arrives wherever it is needed."""

import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
from email.message import Message

import address
import pytest
from conftest import ROOT
from published import SOMEONE, with_address

import hatch_build
from jaxnets import __version__
from jaxnets.page import build

COPIES = ("docs/_ext/address.py", "docs/colab.ipynb", "CITATION.cff", "pyproject.toml")
TEXTS = {".py", ".md", ".ipynb", ".toml", ".cff", ".js", ".html", ".css", ".json", ".yaml", ".txt"}
ACCOUNTS = re.compile(r"github(?:\.com|\.io)?/([\w-]+/jaxnets)\b|\b([\w-]+)\.github\.io/jaxnets")


def files():
    """The project's text files, without what is installed or built."""
    folders = ("jaxnets", "docs", "tests", "benchmarks")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found += [*ROOT.glob("*"), *(ROOT / ".ci").glob("*")]
    kept = [p for p in found if p.is_file() and p.suffix in TEXTS | {""} and "_site" not in p.parts]
    return [p for p in kept if "__pycache__" not in p.parts]


def test_the_documents_are_those_of_pyproject_s_address():
    for path, text in address.documents(address.project_address()).items():
        assert path.read_text("utf-8") == text, f"{path}: python docs/_ext/address.py renews it"


def test_no_other_file_names_an_account():
    made = address.documents(None)
    named = {
        path.relative_to(ROOT).as_posix()
        for path in files()
        if ACCOUNTS.search(made.get(path) or path.read_text("utf-8"))
    }
    assert named == {"pyproject.toml"}


def test_one_edit_of_pyproject_renews_the_documents(tmp_path):
    for name in COPIES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    project = tmp_path / "pyproject.toml"
    project.write_text(with_address(project.read_text()))
    subprocess.run([sys.executable, tmp_path / COPIES[0]], check=True)
    cells = json.loads((tmp_path / "docs/colab.ipynb").read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    there = "github/someone/nets/blob/main/docs/colab.ipynb"
    assert f"](https://colab.research.google.com/{there})." in texts[0]
    assert f'\nREPOSITORY = "{SOMEONE}"\n' in texts[2]
    assert f"\nrepository-code: {SOMEONE}\n" in (tmp_path / "CITATION.cff").read_text()
    shutil.copy(ROOT / "pyproject.toml", project)
    subprocess.run([sys.executable, tmp_path / COPIES[0]], check=True)
    for name in COPIES:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_zenodo_the_citation_and_the_changelog_describe_this_version():
    citation = re.sub(r"\s+", " ", (ROOT / "CITATION.cff").read_text("utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    (author,) = zenodo["creators"]
    assert f'title: "{zenodo["title"]}" abstract: >- {zenodo["description"]} authors:' in citation
    assert f'- name: "{author["name"]}" keywords: - {" - ".join(zenodo["keywords"])} ' in citation
    assert f" version: {__version__} " in citation
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert next(version for version in changes if version != "Unreleased") == __version__


def test_no_link_of_the_page_on_pypi_leads_nowhere():
    readme = (ROOT / "README.md").read_text("utf-8")
    text = hatch_build.description(readme, None)
    assert "](" not in text and "<img" not in text and "see [Install]" not in text
    text = hatch_build.description(readme, SOMEONE)
    links = re.findall(rf"\]\({SOMEONE}/blob/main/([^)#]+)", text)
    files = SOMEONE.replace("github.com", "raw.githubusercontent.com")
    pictures = re.findall(rf'src(?:set)?="{files}/main/([^"]+)"', text)
    assert len(links) == text.count("](") > 20 and len(pictures) == text.count("src") > 3
    assert [path for path in links + pictures if not (ROOT / path).exists()] == []


@pytest.mark.oracle
@pytest.mark.parametrize("published", [None, SOMEONE])
def test_the_site_links_to_the_repository_once_there_is_one(monkeypatch, published):
    pytest.importorskip("sphinx_book_theme")
    monkeypatch.setattr(address, "project_address", lambda: published)
    monkeypatch.setattr(sys, "path", sys.path[:])
    conf = runpy.run_path(str(ROOT / "docs/conf.py"), {"tags": Tags()})
    assert conf["html_theme_options"].get("repository_url") == published


class Tags:
    """Sphinx' `tags` of an English site."""

    def has(self, name: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("urls", "expected"),
    [([], None), (["Issues, https://example.org"], None), ([f"Repository, {SOMEONE}"], SOMEONE)],
)
def test_the_page_has_the_address_that_was_installed(monkeypatch, urls, expected):
    metadata = Message()
    for url in urls:
        metadata["Project-URL"] = url
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    assert build._repository() == expected


def test_a_folder_that_is_not_installed_has_no_address(monkeypatch):
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **given: iter(()))
    assert build._repository() is None
