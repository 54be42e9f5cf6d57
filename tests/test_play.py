"""The pages docs/*.html, which a reader opens without an installation."""

import re

import derive
import play
import pytest
from conftest import ROOT

# Where they are offered: the first one on these pages in the first lines.
HOMES = ("README.md", "docs/zh/README.md", "docs/index.md", "docs/zh/index.md")
CHAPTERS = ("docs/backprop/one-neuron.md", "docs/zh/backprop/one-neuron.md")
WEEKS = ("docs/course/week-1.md", "docs/zh/course/week-1.md")
OFFERED = [(name, play.DRAW) for name in (*HOMES, *CHAPTERS)]
OFFERED += [(name, play.ON_PLANE) for name in (*HOMES, *WEEKS)]


@pytest.mark.parametrize("offered", [play.DRAW, play.ON_PLANE], ids=lambda one: one.path.name)
def test_a_page_has_the_programs_and_texts_of_today(offered):
    page = offered.path.read_text("utf-8")
    assert page == play.renewed(page, offered.kind), "run python docs/_ext/play.py"
    assert len(page.encode()) < 1_000_000 and "const PRACTICE = null" not in page


@pytest.mark.parametrize(("name", "offered"), OFFERED)
def test_every_page_that_offers_one_leads_to_it(name, offered):
    text = (ROOT / name).read_text("utf-8")
    if offered == play.ON_PLANE or name in HOMES:
        text = "\n".join(text.splitlines()[:20])
    found = re.findall(rf'(?:\]\(|href="|data=")([^)"]*{offered.path.name})', text)
    assert found
    for target in found:
        assert ((ROOT / name).parent / target).resolve() == offered.path


@pytest.mark.parametrize("name", HOMES)
def test_the_first_offer_is_to_derive_a_gradient(name):
    text = "\n".join((ROOT / name).read_text("utf-8").splitlines()[:20])
    first = re.search(r'(?:\]\(|href=")([^)"]*(?:draw|plane|derive)\.html)', text)
    assert first and ((ROOT / name).parent / first[1]).resolve() == derive.PAGE


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 900
