"""The slides: one source for both languages, and turned by key, click and finger in a browser."""

import re
import shutil

import pytest
from browser import CHROMIUM, Browser

pytest.importorskip("latex2mathml", reason="pip install -e '.[docs]' brings it")
import slides

pytestmark = pytest.mark.oracle
LANGUAGES = pytest.mark.parametrize("language", slides.FILES)
# What there is to look at in a slide.
SHOWN = re.compile(r"<math.*?</math>|<img|<tr>|<li>|<pre>.*?</pre>", re.DOTALL)
WORDS = r"<mtext>.*?</mtext>"
SOURCE = slides.SOURCE.read_text("utf-8")


def sections(language):
    """The slides of a committed page."""
    page = slides.FILES[language].read_text("utf-8")
    return re.findall(r"<section.*?</section>", page, re.DOTALL)


@LANGUAGES
def test_a_page_is_made_of_the_source_and_needs_nothing_else(language):
    page = slides.FILES[language].read_text("utf-8")
    assert page == slides.deck(SOURCE, language), "run python docs/_ext/slides.py"
    assert not re.search(r"(src|href)=.(?!data:)|url\(", page)


def test_both_languages_have_the_same_slides():
    english, chinese = sections("en"), sections("zh")
    assert len(english) == len(chinese) == SOURCE.count("# en: ")
    for ours, theirs in zip(english, chinese, strict=True):
        assert "notes" in ours and "notes" in theirs
        shown = [re.sub(WORDS, "", one) for one in SHOWN.findall(ours)]
        assert shown == [re.sub(WORDS, "", one) for one in SHOWN.findall(theirs)] != [], ours
        assert not re.search(r"[\u4e00-\u9fff]", re.sub(r"<img.*?>", "", ours))
        assert re.search(r"[\u4e00-\u9fff]", theirs)
        for one in (ours, theirs):
            assert not re.search(r"\b(en|zh): |\$|alt=\"\"", one), one


def test_the_lecture_s_program_is_not_called_a_slide():
    """55,000 images and the rate 1e-5 are on no slide of the lecture."""
    for language, said in (("en", "no slide of the lecture prints"), ("zh", "课件上都没有印出")):
        (found,) = [one for one in sections(language) if "1e-5" in one]
        assert "55,000" in found and said in found


@pytest.fixture
def browser(tmp_path):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with Browser(tmp_path / "chromium") as browser:
        yield browser


def opened(browser, path, anchor=""):
    browser.call("Page.navigate", url=path.as_uri() + anchor)
    here = f"location.href.startsWith({path.as_uri()!r})"
    browser.wait(f"{here} && document.querySelector('.running .now') !== null")


def swipe(browser, x, y, to_x, to_y):
    for kind, points in (("touchStart", [(x, y)]), ("touchMove", [(to_x, to_y)]), ("touchEnd", [])):
        touches = [{"x": x, "y": y} for x, y in points]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=touches)
    browser.frame()


@pytest.mark.slow
@LANGUAGES
def test_slides_turn_by_key_click_and_swipe(language, browser, tmp_path):
    path = tmp_path / "slides.html"  # Alone in its folder.
    shutil.copy(slides.FILES[language], path)
    count = len(sections(language))
    browser.resize(390, 800, mobile=True)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    opened(browser, path)

    def number():
        text = browser.evaluate("document.getElementById('count').textContent")
        assert browser.evaluate("document.querySelectorAll('.now').length") == 1
        width = float(browser.evaluate("document.querySelector('#bar i').style.width")[:-1])
        now, all_slides = map(int, text.split(" / "))
        assert all_slides == count and width == pytest.approx(100 * now / count, abs=0.01)
        return now

    assert number() == 1
    for key, code, then in (
        ("ArrowLeft", 37, 1), ("ArrowRight", 39, 2), ("PageDown", 34, 3), ("PageUp", 33, 2),
        ("End", 35, count), ("ArrowRight", 39, count), ("Home", 36, 1),
    ):  # fmt: skip
        browser.key(key, code)
        assert number() == then, key
    browser.key(" ", 32, " ")
    assert number() == 2
    swipe(browser, 300, 400, 100, 410)
    assert number() == 3
    swipe(browser, 100, 400, 300, 410)
    assert number() == 2
    swipe(browser, 200, 600, 230, 300)  # Up and down the page scrolls.
    assert number() == 2
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
    browser.resize(1280, 800)
    browser.click("main", across=0.8)
    assert number() == 3
    browser.click("main", across=0.1)
    assert number() == 2
    browser.click("#next")
    browser.click("#back")
    assert number() == 2
    shown = "getComputedStyle(document.querySelector('.now .notes')).display"
    assert browser.evaluate(shown) == "none"
    browser.key("n", 78, "n")
    assert browser.evaluate(shown) == "block"
    browser.click(".now .notes")  # It may be read and marked.
    assert number() == 2
    browser.click("#notes")
    assert browser.evaluate(shown) == "none"
    others = [url for url in browser.requests() if not url.startswith("data:")]
    assert browser.problems() == [] and others == [path.as_uri()]
    opened(browser, path, "#7")
    browser.wait(f"document.getElementById('count').textContent === '7 / {count}'")


@pytest.mark.slow
@LANGUAGES
def test_every_slide_fits_a_phone_and_a_projector(language, browser):
    opened(browser, slides.FILES[language])
    for width, height, mobile in ((390, 800, True), (1280, 720, False)):
        browser.resize(width, height, mobile=mobile)
        for number in range(len(sections(language))):
            browser.evaluate(f"show({number})")
            wide, high, seen = browser.evaluate(
                "[document.documentElement.scrollWidth, main.scrollHeight, main.clientHeight]"
            )
            assert wide <= width, number + 1
            assert mobile or high <= seen, number + 1  # A phone scrolls.
    browser.call("Emulation.setEmulatedMedia", media="print")
    high = "getComputedStyle(document.querySelectorAll('section')[{}]).display"
    assert browser.evaluate(high.format(5)) == "flex"
