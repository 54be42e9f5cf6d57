"""docs/derive.html: formulas are typed and judged, the numbers are those of NumPy."""

import re

import axe
import derive
import numpy as np
import pytest
from browser import Browser
from pages import needs_browser, shown_numbers, text_of

from jaxnets.course.exercises.catalogue import EXERCISES

ENTER, TAB, DOWN = ("Enter", 13, "\r"), ("Tab", 9), ("ArrowDown", 40)
FOCUSED = "document.activeElement.id"


def test_the_page_is_that_of_today_and_small():
    text = derive.PAGE.read_text("utf-8")
    assert text == derive.page(), "run python docs/_ext/derive.py"
    assert len(text.encode()) <= 300_000
    assert "default-src 'none'" in text and "http-equiv" in text


def test_every_text_of_the_scripts_is_there_in_both_languages():
    data = derive.read()
    scripts = "".join(path.read_text("utf-8") for path in derive.SCRIPTS.glob("*.js"))
    asked = set(re.findall(r'say\("(\w+)"', scripts))
    asked |= set(re.findall(r'data-(?:text|label)="(\w+)"', derive.page()))
    assert len(asked) > 30 and asked <= set(data["texts"])
    lessons = data["lessons"]
    pairs = [*data["texts"].values(), *(one[key] for one in lessons for key in ("name", "group"))]
    assert all(len(pair) == 2 and all(pair) for pair in pairs)
    assert len(derive.sentences()) > 30 and derive.sentences() == [*derive.chinese()]


def test_every_lesson_has_its_formulas_and_its_exercise():
    formulas = derive.formulas()
    for lesson in derive.read()["lessons"]:
        assert set(lesson["sizes"]) == set(formulas[lesson["layer"]]["sizes"])
        assert lesson.get("exercise", "dense") in EXERCISES


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as page:
        page.resize(1280, 900)
        yield page
        assert not page.problems() and set(page.requests()) == {derive.PAGE.as_uri()}


def opened(page, *, forget=True):
    """Opens the page, at first without any progress."""
    for _ in range(1 + forget):
        page.call("Page.navigate", url=derive.PAGE.as_uri())
        page.wait("document.readyState === 'complete' && !!document.querySelector('#own .cells')")
        if forget:
            page.evaluate("localStorage.clear()")


def typed(page, text):
    """Types a formula in place of the one that is there."""
    page.evaluate("document.querySelector('#formula').focus()")
    page.evaluate("document.querySelector('#formula').select()")
    page.call("Input.insertText", text=text)


def array(page, name):
    """The numbers of an array as they are shown."""
    cells = f"[...document.querySelectorAll('[data-name={name}] .cells > *')]"
    numbers = shown_numbers(page, cells)
    columns = page.evaluate(
        f"document.querySelector('[data-name={name}] .cells').style.getPropertyValue('--columns')"
    )
    return numbers.reshape(-1, int(columns))


@needs_browser
def test_a_newcomer_derives_with_the_keyboard_alone(page):
    opened(page)
    for _ in range(9):
        if page.evaluate(FOCUSED) == "formula":
            break
        page.key(*TAB)
    assert page.evaluate(FOCUSED) == "formula"
    page.call("Input.insertText", text="X_bd dZ_bk")
    assert page.evaluate("document.querySelector('#formula').value") == "dW_dk = X_bd dZ_bk"
    assert page.evaluate("document.querySelector('.down.lit') === null")
    said = "b is on the right but neither summed nor on the left"
    page.wait(f"document.querySelector('#verdict').textContent === '{said}'")  # Without Enter.
    assert page.evaluate("document.querySelector('#verdict').ariaLive") == "polite"
    typed(page, "dW_kd = Σ_b X_bd dZ_bk")
    page.key(*ENTER)
    assert text_of(page, "#verdict") == "this is dWᵀ: its first index is d"
    typed(page, "sum_b X_bd dZ_bk")  # The right side alone.
    assert page.evaluate("document.querySelectorAll('#drawn munder').length") == 1
    assert "?" in text_of(page, "#own")
    page.key(*ENTER)
    assert text_of(page, "#verdict").startswith("Right.")
    assert text_of(page, "#numpy") == "dW = X.T @ dZ"
    assert text_of(page, "#exercise") == "jaxnets exercise new dense"
    X, dZ = array(page, "X"), array(page, "dZ")
    np.testing.assert_array_equal(array(page, "dW"), X.T @ dZ)
    np.testing.assert_array_equal(array(page, "Z"), X @ array(page, "W") + array(page, "b"))

    page.evaluate("document.querySelector('#own .cells button').focus()")
    page.key(*DOWN)
    page.key(*ENTER)
    assert "dW[1, 0]" in text_of(page, "#sum")
    assert text_of(page, "#sum .total").split()[-1] == f"{X[:, 1] @ dZ[:, 0]:g}".replace("-", "−")
    used = "[...document.querySelectorAll('[data-name=X] .cells > *')]"
    used += ".map((one) => one.matches('.used'))"
    assert page.evaluate(used) == [False, True, False] * 2

    page.evaluate("document.querySelectorAll('[data-name=X] input')[1].focus()")
    page.call("Input.insertText", text="7")
    X[0, 1] = 7
    np.testing.assert_array_equal(array(page, "dW"), X.T @ dZ)
    assert text_of(page, "#sum .total").split()[-1] == f"{X[:, 1] @ dZ[:, 0]:g}".replace("-", "−")

    page.evaluate("document.querySelector('#formula').focus()")
    page.key(*ENTER)  # It is right: on to the next one.
    assert text_of(page, "#ask") == "Your formula for db"
    assert page.evaluate(FOCUSED) == "formula"


@needs_browser
def test_an_index_lights_its_axes_while_it_is_typed_and_pointed_at(page):
    opened(page)
    page.evaluate("document.querySelector('#formula').focus()")
    typed(page, "dW_dk = Σ_b X_bd dZ_b")
    lit = (
        "[...document.querySelectorAll('.axis.lit')].map((one) => "
        "`${one.closest('figure').dataset.name} ${one.innerText[0]}`).sort().join()"
    )
    assert page.evaluate(lit) == "X b,Z b,dZ b"
    typed(page, "dW_dk = Σ_b X_bd dZ_bk")
    assert page.evaluate(lit) == "W k,Z k,b k,dW k,dZ k"
    page.evaluate("document.querySelector('.chip[data-letter=d]').focus()")
    assert page.evaluate(lit) == "W d,X d,dW d"
    x, y = page.place("#drawn [data-letter=b]")
    page.mouse("mouseMoved", x, y, 0)
    page.wait(f"{lit} === 'X b,Z b,dZ b'")


# Every formula of a lesson is typed, and the first entry of each gradient is opened.
DERIVED = """(layer) => {
  const find = (selector) => document.querySelector(selector), found = [];
  find("#layer").value = layer;
  find("#layer").dispatchEvent(new Event("change"));
  for (let n = 0; n < document.querySelectorAll("#gradients button").length; n++) {
    document.querySelectorAll("#gradients button")[n].click();
    find("#answer").click();
    const right = find("#formula").value;
    find("#forget").click();
    find("#layer").value = layer;
    find("#layer").dispatchEvent(new Event("change"));
    document.querySelectorAll("#gradients button")[n].click();
    find("#formula").value = right;
    find("#formula").dispatchEvent(new Event("input"));
    find("#check").click();
    find("#own .cells button").click();
    found.push([
      find("#verdict").className, document.documentElement.scrollWidth,
      find("#own .cells button").innerText, find("#sum .total .number").innerText,
      document.querySelectorAll("#gradients button")[n].innerText.includes("✓"),
      document.body.innerText.match(/undefined|NaN|\\[object/)?.[0] ?? "",
    ]);
  }
  return found;
}"""


def number(text):
    return float(text.replace("−", "-"))


@needs_browser
def test_every_lesson_works_on_a_phone(page):
    opened(page)
    page.resize(390, 844, mobile=True)
    for lesson in derive.read()["lessons"]:
        for verdict, width, shown, total, ticked, strange in page.evaluate(
            f"({DERIVED})('{lesson['layer']}')"
        ):
            assert (verdict, width, ticked, strange) == ("good", 390, True, ""), lesson["layer"]
            assert number(shown) == pytest.approx(number(total), abs=0.0051), lesson["layer"]
    page.resize(1280, 900)


@needs_browser
def test_progress_language_and_theme_are_kept(page):
    opened(page)
    typed(page, "dW_dk = Σ_b X_bd dZ_bk")
    page.click("#check")
    assert text_of(page, "#progress").startswith("1 of ")
    page.click("#language")
    page.click("#theme")
    opened(page, forget=False)
    assert text_of(page, "#progress").startswith("完成 1 / ")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("#gradients button:nth-child(1)")
    typed(page, "dW_dk = X_bd dZ_bk")
    page.click("#check")
    assert text_of(page, "#verdict") == derive.chinese()[
        "{} is on the right but neither summed nor on the left"
    ].replace("{}", "b")
    words = page.evaluate("document.body.innerText")
    english = set(re.findall(r"[A-Za-z]{3,}", words)) - {"English", "Enter", "sum", "Dense"}
    assert not english & {"the", "Next", "Layer", "arrays", "Show", "progress", "formula"}
    page.click("#forget")
    assert text_of(page, "#progress").startswith("完成 0 / ")


@needs_browser
def test_the_page_works_without_a_store(page):
    blocked = "Object.defineProperty(window, 'localStorage', { get() { throw new Error(); } })"
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source=blocked)["identifier"]
    try:
        opened(page, forget=False)
        typed(page, "dW_dk = Σ_b X_bd dZ_bk")
        page.click("#check")
        assert text_of(page, "#verdict").startswith("Right")
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
        opened(page, forget=False)


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_for_everybody(page, dark):
    opened(page)
    axe.see_dark(page, dark)
    for width, layer in ((1280, "dense"), (390, "attention")):
        page.resize(width, 900, mobile=width == 390)
        assert axe.violations(page) == []
        page.evaluate(f"({DERIVED})('{layer}')")
        page.evaluate("document.querySelector('.chip').click()")
        assert axe.violations(page) == []
