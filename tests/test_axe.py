"""Reports, the pages of runs and those that need no installation, by axe-core, in both themes."""

import axe
import play
import pytest
from browser import Browser
from pages import needs_browser, trained

from jaxnets.data.datasets import Split
from jaxnets.page import build

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def page(tmp_path):
    with Browser(tmp_path / "chromium") as page:
        yield page


def violations(page):
    """What axe finds on a phone and on a wide screen, which the page then has."""
    found = []
    for width in (390, 1280):
        page.resize(width, 900, mobile=width == 390)
        page.frame()
        found += [f"{width} px: {one}" for one in axe.violations(page)]
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_of_a_network_with_both_passes_is_for_everybody(page, mnist, tmp_path, dark):
    images = (255 * mnist.train.images[:40]).astype("uint8")
    files = build.page_files(trained("cnn", hidden=(8,)), Split(images, mnist.train.labels[:40]))
    (tmp_path / "page.html").write_text(build.one_file(files))
    axe.see_dark(page, dark)
    page.open(tmp_path / "page.html")
    assert violations(page) == []
    page.evaluate("byId('example').selectedIndex = 3")
    page.evaluate("byId('example').dispatchEvent(new Event('change'))")
    page.wait("state.pass !== null")
    page.evaluate("chooseLabel(3)")
    page.evaluate("showCell(0, 'y', 0, mapOf(0, 'y'), false)")
    page.evaluate("byId('train-step').click()")
    page.wait("trained && trained.steps === 1")
    page.frame()
    assert violations(page) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", [play.DRAW.path, play.ON_PLANE.path], ids=lambda path: path.stem)
def test_a_page_without_an_installation_is_for_everybody(page, path, dark):
    axe.see_dark(page, dark)
    page.open(path)
    assert violations(page) == []
    if path == play.ON_PLANE.path:
        page.click("#train-step")
        page.click(".units button")
        page.click("#language")
        assert violations(page) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_report_is_for_everybody(page, train_tiny, run_command, tmp_path, dark):
    for name in ("first", "second"):
        assert train_tiny("softmax", f"--workdir={tmp_path / name}").status == 0
    axe.see_dark(page, dark)
    for names in (["first"], ["first", "second"]):
        runs = [tmp_path / name for name in names]
        assert run_command("report", *runs, f"--output={tmp_path / 'report.html'}").status == 0
        page.open(tmp_path / "report.html")
        page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert violations(page) == []
