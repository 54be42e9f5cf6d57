"""The living formulas of the chapters: lit, opened and changed by the reader; plain without it."""

import re

import axe
import derive
import living
import numpy as np
import pytest
from browser import Browser
from conftest import ROOT
from documents import FENCE
from pages import needs_browser, shown_numbers

from jaxnets.course.formulas.layers import LAYERS

DOCS = ROOT / "docs"
BOX = r'<div class="living" data-layer="(\w+)" data-gradient="([^"]+)">\n\n(.*?)</div>'
CHAPTERS = {
    "lecture-network": ["dense"],
    "losses": ["softmax", "softmax_cross_entropy"],
    "convolution": ["conv"],
    "pooling": ["max_pool", "average_pool"],
    "norms-dropout": ["batch_norm_whole"],
    "attention": ["attention"],
}


def boxes(page, folder="backprop"):
    text = (DOCS / folder / f"{page}.md").read_text("utf-8")
    return re.findall(BOX, text, re.DOTALL)


@pytest.mark.parametrize("folder", ["backprop", "zh/backprop"])
@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_shows_the_formulas_that_its_pairs_have(page, folder):
    assert [layer for layer, *_rest in boxes(page, folder)] == CHAPTERS[page]
    for layer, names, text in boxes(page, folder):
        ((_margin, _language, plain),) = FENCE.findall(text)
        formulas = [LAYERS[layer].gradients[name].text for name in names.split()]
        assert plain.splitlines() == formulas


def test_the_scripts_of_the_chapters_do_not_meet_those_of_the_site():
    script = living.script()
    assert script.startswith('"use strict";\n(() => {') and script.rstrip().endswith("})();")
    assert "fetch(" not in script and "import " not in script


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """All boxes of the chapters on one page, with a global `_` as Sphinx's own script has."""
    folder = tmp_path_factory.mktemp("living")
    found = "".join(map(part, CHAPTERS))
    style = derive.style("formulas.css", living.STYLE)
    phone = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = '<html lang="en" data-content_root="../"><meta charset="utf-8"><title>x</title>'
    text = (
        f"<!doctype html>{head}{phone}<style>{style}</style><main><h1>x</h1>{found}</main>"
        f"<script>const _ = 1;</script><script>{living.script()}</script></html>"
    )
    (folder / "page.html").write_text(text, "utf-8")
    with Browser(folder / "chromium") as page:
        page.resize(1280, 900)
        page.call("Page.navigate", url=(folder / "page.html").as_uri())
        page.wait("document.querySelectorAll('.living.alive .cells').length > 20")
        yield page
        assert not page.problems()


def part(name):
    return "".join(
        f'<div class="living" data-layer="{layer}" data-gradient="{names}"><pre>{text}</pre></div>'
        for layer, names, text in boxes(name)
    )


def box(layer):
    return f"document.querySelector('.living[data-layer={layer}]')"


def array(page, layer, name):
    cells = f"[...{box(layer)}.querySelectorAll('[data-name={name}] .cells > *')]"
    return shown_numbers(page, cells)


@needs_browser
def test_an_index_lights_in_the_formula_the_arrays_and_the_line(page):
    page.evaluate(f"{box('dense')}.querySelector('.chip[data-letter=b]').focus()")
    all_lit = f"[...{box('dense')}.querySelectorAll('.lit')]"
    lit = all_lit + ".filter((one) => one.matches('{}')).length"
    assert page.evaluate(lit.format("math *")) == 5  # Σ_b X_bd dZ_bk, and the names X_bd, dZ_bk.
    assert page.evaluate(lit.format("code span")) == 2
    assert page.evaluate(lit.format(".axis")) == 2
    line = page.evaluate(f"{box('dense')}.querySelector('pre').innerText")
    assert line == 'dW = np.einsum("bd,bk->dk", X, dZ)'
    x, y = page.place(".living[data-layer=dense] code [data-letter=k]")
    page.mouse("mouseMoved", x, y, 0)
    page.wait(f"{lit.format('.axis')} === 2 && {lit.format('code span')} === 2")
    assert page.evaluate(lit.format("code [data-letter=k]")) == 2


@needs_browser
def test_an_entry_opens_and_everything_follows_a_number(page):
    shape = [2, 3]
    p, dp = (array(page, "softmax", name).reshape(shape) for name in ("p", "dp"))
    wanted = p * (dp - (p * dp).sum(1, keepdims=True))
    np.testing.assert_allclose(array(page, "softmax", "dx").reshape(shape), wanted, atol=0.05)
    page.evaluate(f"{box('softmax')}.querySelectorAll('.own button')[1].click()")
    total = f"{box('softmax')}.querySelector('.sum .total .number').innerText"
    before = float(page.evaluate(total).replace("−", "-"))
    assert before == pytest.approx(wanted[0, 1], abs=0.05)
    page.evaluate(f"{box('softmax')}.querySelector('[data-name=x] input').focus()")
    page.call("Input.insertText", text="9")
    p = array(page, "softmax", "p").reshape(shape)
    assert p[0, 0] > 0.98
    assert abs(float(page.evaluate(total).replace("−", "-"))) < 0.05


@needs_browser
def test_every_gradient_of_a_chapter_is_drawn_on_a_phone(page):
    page.resize(390, 844, mobile=True)
    strange = page.evaluate("""[...document.querySelectorAll(".living")].flatMap((box) => {
      const tabs = [...box.querySelectorAll(".tabs button")], found = [];
      for (const tab of tabs.length ? tabs : [box]) {
        tab.click();
        box.querySelector(".own .cells button").click();
        const text = box.innerText, name = `${box.dataset.layer} ${tab.ariaLabel ?? ""}`;
        const isWhole = box.querySelector(".sum .total") && !/undefined|NaN|\\[object/.test(text);
        if (!isWhole) found.push(name);
      }
      return found;
    })""")
    assert strange == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    link = "document.querySelector('.how a').getAttribute('href')"
    assert page.evaluate(link) == "../derive.html#dense"
    page.resize(1280, 900)


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_living_formulas_are_for_everybody(page, dark):
    axe.see_dark(page, dark)
    page.evaluate(f"{box('dense')}.querySelector('.chip').click()")
    page.evaluate(f"{box('conv')}.querySelector('.own button').click()")
    assert axe.violations(page) == []
