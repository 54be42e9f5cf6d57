"""docs/draw.html, which a reader opens without an installation."""

import re

import play
import pytest
from conftest import ROOT

# Where it is offered: on these pages in the first lines.
HOMES = ("README.md", "docs/zh/README.md", "docs/index.md", "docs/zh/index.md")
CHAPTERS = ("docs/backprop/one-neuron.md", "docs/zh/backprop/one-neuron.md")
LEADS = re.compile(r'(?:\]\(|href="|data=")([^)"]*draw\.html)')


def test_the_drawing_page_has_the_programs_and_texts_of_today():
    page = play.DRAW.read_text("utf-8")
    assert page == play.renewed(page), "run python docs/_ext/play.py"
    assert len(page.encode()) < 1_000_000 and "const PRACTICE = null" not in page


@pytest.mark.parametrize("name", [*HOMES, *CHAPTERS])
def test_every_page_that_offers_it_leads_to_it(name):
    text = (ROOT / name).read_text("utf-8")
    if name in HOMES:
        text = "\n".join(text.splitlines()[:20])
    found = LEADS.findall(text)
    assert found
    for target in found:
        assert ((ROOT / name).parent / target).resolve() == play.DRAW


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 900
