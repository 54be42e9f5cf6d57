"""jaxnets page: the page's JavaScript against JAX and Python, and the page in a browser."""

import base64
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from browser import Browser
from conftest import ROOT, assert_close, slow
from documents import anchors_of
from pages import (
    BOTH_PASSES,
    STROKES,
    both_passes_in_jax,
    draw,
    needs_browser,
    read,
    run_javascript,
    text_of,
    trained,
)
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage as scipy_ndimage
from served import SoftmaxRun

from jaxnets.base.errors import UserError
from jaxnets.data.pictures.decode import BadPictureError
from jaxnets.page import build
from jaxnets.predict.digit import to_digit
from jaxnets.predict.portable import folded

ndimage: Any = scipy_ndimage  # Its functions' types are unions of all that they may return.

DIGITS = 20
# Every kind of network and layer that the page shows, and every loss.
NETWORKS = {
    "softmax": {},
    "mlp": dict(hidden=(20,)),
    "mlp_functional": dict(hidden=(12, 9), activation="sigmoid"),
    "mlp_sequential": dict(hidden=(9,), activation="softmax", loss="half_mse"),
    "mlp_handwritten": dict(hidden=(15,)),
    "cnn": dict(hidden=(16,)),
    "cnn_bn": {},
    "cnn_tiny": {},
}


# A pass of a convolution compiles for seconds.
@pytest.mark.parametrize("model", [slow(m) if m.startswith("cnn") else m for m in NETWORKS])
def test_both_passes_are_those_of_autodiff(model, mnist, float64):
    network = folded(trained(model, **NETWORKS[model]))
    images = mnist.test.images[:DIGITS].astype(np.float64)
    labels = mnist.test.labels[:DIGITS]
    given = [[images[n].ravel().tolist(), int(labels[n])] for n in range(DIGITS)]
    found = run_javascript(build.page_files(network), BOTH_PASSES, given)
    (losses, values), (d_params, d) = both_passes_in_jax(network, images, labels)
    for n, ours in enumerate(found):
        assert ours["loss"] == pytest.approx(losses[n], rel=1e-4)
        assert_close(read(ours["p"]), jax.nn.softmax(values[-1][n, 0]), 1e-4)
        assert_close([*map(read, ours["values"])], [value[n].ravel() for value in values], 1e-4)
        assert_close([*map(read, ours["d"][1:])], [gradient[n].ravel() for gradient in d], 1e-4)
        for mine, layer in zip(ours["gradients"], network.model.layers, strict=True):
            theirs = d_params.get(getattr(layer, "name", None), {})
            assert {key for key in mine if mine[key]} == set(theirs)
            for key, gradient in theirs.items():
                assert_close(read(mine[key]), gradient[n].ravel(), 1e-4)


# Names of wrong backward passes in page_verdicts.js.
RELU = {"no mask", "the gradient's mask"}
POOL = {"a tie goes to the last", "a tie goes to all", "a tie is shared"}
CONV = {"half a bias", "a kernel a thousandth too large", "a flipped dX"}


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        ("softmax", set()),
        ("mlp", RELU),
        ("mlp_functional", {"no 1 - y"}),
        ("mlp_sequential", set()),
        slow("cnn_tiny", RELU | POOL | CONV),
    ],
)
def test_right_and_wrong_gradients_are_told_apart(model, wrong, mnist):
    """On the black ground all numbers of a pool's window are equal."""
    rng = np.random.default_rng(0)
    images, labels = mnist.test.images.astype(np.float64), mnist.test.labels
    places = rng.random(20).tolist()
    given = [[images[n].ravel().tolist(), int(labels[n]), places] for n in (0, 1)]
    page = build.page_files(folded(trained(model, **NETWORKS[model])))
    program = (ROOT / "tests" / "page_verdicts.js").read_text(encoding="utf-8")
    found = run_javascript(page, program, given)
    assert not found["missed"]
    assert wrong <= {name for name, counts in found["verdicts"].items() if counts["differ"]}
    assert (found["verdicts"]["right"]["kink"] > 20) == (wrong >= POOL)


FILTERS = """
const [width, height, numbers] = DATA, image = picture(width, height, Float32Array.from(numbers));
const some = mapped(image, (value) => (value > 0.6 ? 1 : 0));
const { parts, count } = connectedParts(some), out = {};
for (const [rows, columns] of [[1, 4], [4, 1], [3, 12], [5, 5], [6, 6], [40, 2]]) {
  out[`opening ${rows} ${columns}`] = opening(image, rows, columns).data;
  out[`closing ${rows} ${columns}`] = closing(image, rows, columns).data;
  out[`constant ${rows} ${columns}`] = opening(image, rows, columns, 0).data;
  out[`dilation ${rows} ${columns}`] = dilation(image, rows, columns).data;
}
out.gaussian = gaussian(image, 0.7).data;
out.parts = parts;
out.distances = distances(some);
out.centre = centreOfMass(image);
out.median = [median(image.data), median(image.data.subarray(1))];
for (const [w, h] of [[5, 31], [60, 7], [23, 9]]) {
  out[`resized ${w} ${h}`] = resized(image, w, h).data;
}
for (const [key, value] of Object.entries(out)) out[key] = Array.from(value);
console.log(JSON.stringify(out));
"""


def test_the_filters_are_those_of_scipy_and_pillow():
    image = np.random.default_rng(0).random((31, 23), np.float32)
    image = np.where(image < 0.2, 0, image)
    page = build.page_files(trained("softmax"))
    found = run_javascript(page, FILTERS, [23, 31, image.ravel().tolist()])
    some = image > 0.6
    for name, ours in found.items():
        kind, *sizes = name.split()
        size = tuple(map(int, sizes))
        theirs = {
            "opening": lambda size: ndimage.grey_opening(image, size),
            "closing": lambda size: ndimage.grey_closing(image, size),
            "constant": lambda size: ndimage.grey_opening(image, size, mode="constant"),
            "dilation": lambda size: ndimage.grey_dilation(image, size),
            "gaussian": lambda _: ndimage.gaussian_filter(image, 0.7),
            "parts": lambda _: ndimage.label(some, np.ones((3, 3)))[0],
            "distances": lambda _: ndimage.distance_transform_edt(some),
            "centre": lambda _: ndimage.center_of_mass(image.astype(float)),
            "median": lambda _: [np.median(image), np.median(image.ravel()[1:])],
            "resized": lambda size: Image.fromarray(image).resize(size, Image.Resampling.BICUBIC),
        }[kind](size)
        np.testing.assert_allclose(ours, np.ravel(theirs), rtol=1e-6, atol=2e-7, err_msg=name)


def drawings():
    """Grey pictures of characters: pens, papers, light, noise, ruled paper; some hold no ink."""
    rng = np.random.default_rng(0)
    strokes = [
        [(140, 40), (140, 240)],  # 1
        [(70, 60), (210, 60), (120, 240)],  # 7
        [(90, 80), (190, 70), (200, 130), (90, 200), (90, 230), (210, 230)],  # 2
        [(60, 60), (60, 150), (220, 150), (200, 40), (200, 250)],  # 4, up to the margin
    ]
    for number, points in enumerate(strokes):
        for width in (3, 10, 24, 34):
            image = Image.new("L", (280, 280), 255)
            ImageDraw.Draw(image).line(points, fill=0, width=width, joint="curve")
            yield f"pen {width}, {number}", np.asarray(image.filter(ImageFilter.GaussianBlur(1)))
    small = Image.new("L", (280, 280), 20)
    ImageDraw.Draw(small).ellipse((30, 30, 80, 90), outline=230, width=9)
    yield "a small light ring, not in the middle", np.asarray(small)
    y, x = np.mgrid[:200, :330]
    photo = Image.new("L", (330, 200), 255)
    ImageDraw.Draw(photo).line([(120, 60), (200, 60), (150, 150)], fill=60, width=8)
    levels = np.asarray(photo) * (0.5 + x / 700 + y / 900) + rng.normal(0, 3, x.shape)
    yield "a photo", np.clip(levels, 0, 255).astype(np.uint8)
    ruled = np.full((280, 280), 240, np.uint8)
    ruled[30::40] = ruled[31::40] = 60
    lines = Image.fromarray(ruled)
    ImageDraw.Draw(lines).line([(90, 60), (190, 60), (120, 230)], fill=30, width=14)
    yield "ruled paper", np.asarray(lines)
    sloping = lines.rotate(2, Image.Resampling.BICUBIC, fillcolor=240)
    yield "sloping ruled paper", np.asarray(sloping)
    y, x = np.mgrid[:282, :300]  # A third of the shorter side is even.
    shadow = Image.fromarray(np.where(x + y / 5 > 170, 150, 235).astype(np.uint8))
    ImageDraw.Draw(shadow).line([(60, 60), (130, 60), (80, 200)], fill=20, width=12)
    yield "the edge of a shadow", np.asarray(shadow.filter(ImageFilter.GaussianBlur(2)))
    yield "nothing", np.full((280, 280), 255, np.uint8)
    yield "dust", np.clip(rng.normal(128, 2, (60, 90)), 0, 255).astype(np.uint8)


PREPARATIONS = """
console.log(JSON.stringify(DATA.map(([width, height, bytes, ruled]) => {
  const data = Uint8Array.from(Buffer.from(bytes, "base64"));
  const found = toDigit({ width, height, data }, ruled);
  return found && Array.from(found);
})));
"""


@pytest.mark.slow
def test_a_drawing_is_prepared_as_in_python():
    names, pictures = zip(*drawings(), strict=True)
    given = [
        [*image.shape[::-1], base64.b64encode(image.tobytes()).decode(), "pen 24" not in name]
        for name, image in zip(names, pictures, strict=True)
    ]
    found = run_javascript(build.page_files(trained("softmax")), PREPARATIONS, given)
    for name, image, ours in zip(names, pictures, found, strict=True):
        try:
            theirs = to_digit(Image.fromarray(image)).ravel().astype(int)
        except BadPictureError:
            assert ours is None, name
            continue
        assert ours is not None, name
        assert np.abs(np.array(ours) - theirs).max() <= 1, name


HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp\x1b[2J",
)


def test_what_a_page_holds_of_a_run_is_never_markup():
    network = trained("softmax", class_names=HOSTILE)
    page = build.page_files(network)
    script = page["run.js"][1].decode()
    assert "<" not in script and "\u202e" not in script and "\x1b" not in script
    names = run_javascript(page, "console.log(JSON.stringify(RUN.classNames))")
    assert names[:2] == [*HOSTILE[:2]] and names[2] == "\\u202egnp\\x1b[2J"
    for name, (_, content) in page.items():
        if name.endswith(".js"):  # Texts are set as text, not as markup.
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write", str(content)
            )
    html = page["index.html"][1].decode()
    assert not re.search(r"<style|<script(?! src=)| on\w+=| style=", html)


def test_one_file_runs_only_its_own_programs():
    page = build.page_files(trained("softmax"))
    html = build.one_file(page)
    assert not re.search(r"<link|<script src|<img|@import|url\(", html)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html)
    assert policy and policy[1].startswith("default-src 'none'; ")
    digests = re.findall(r"'sha256-([^']+)'", policy[1])
    parts = re.findall(r"<(style|script) data-file=[^>]+>(.*?)</\1>", html, re.DOTALL)
    assert len(digests) == len(parts) == html.count("<script") + html.count("<style")
    for digest, (_, text) in zip(digests, parts, strict=True):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() == digest
    assert {f"{name}: {kind}" for name, (kind, _) in page.items()} >= {
        "index.html: text/html; charset=utf-8",
        "page.css: text/css; charset=utf-8",
        "run.js: text/javascript; charset=utf-8",
    }


def test_many_weights_are_in_float16_and_the_difference_is_told():
    network = trained("mlp", hidden=(600,))
    page = build.page_files(network)
    program = "const n = readNetwork(RUN); console.log(JSON.stringify([RUN.dtype,"
    program += "[...n.layers[1].kernel.slice(0, 900)]]))"
    dtype, weights = run_javascript(page, program)
    kernel = np.ravel(network.params["hidden1"]["kernel"])[:900]
    assert dtype == "float16"
    np.testing.assert_array_equal(weights, kernel.astype(np.float16).astype(np.float64))
    halves = np.array([0, 1, -1.5, 65504, 2**-24, 3 * 2**-24, 2**-14, -0.1], np.float16)
    read = run_javascript(
        page, "console.log(JSON.stringify(DATA.map(fromFloat16)))", halves.view(np.uint16).tolist()
    )
    np.testing.assert_array_equal(read, halves.astype(float))
    huge = {
        name: {key: 1e6 * x for key, x in layer.items()} for name, layer in network.params.items()
    }
    script = build.run_script(dataclasses.replace(network, params=huge))
    assert '"dtype": "float32"' in script


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(model="alexnet_small", input_size=28),
            "the page cannot hold enlarge: it has no layer enlarge",
        ),
        (
            dict(image_shape=(28, 30, 1)),
            "expected a run on square images of at most 96 x 96 pixels, got 28 x 30",
        ),
        (dict(hidden=(6000,)), "expected at most 4,000,000 parameters, mlp has 4,770,010"),
        (dict(class_names=["x"] * 101), "expected a run with at most 100 classes, got 101"),
        (dict(loss="squared_error"), "tells classes apart"),
    ],
)
def test_a_network_that_the_page_cannot_show_is_refused(changes, message):
    model, shape = changes.pop("model", "mlp"), changes.pop("image_shape", (28, 28, 1))
    network = dataclasses.replace(trained(model, **changes), image_shape=shape)
    with pytest.raises(UserError, match=message):
        build.page_files(network)


@pytest.fixture(scope="module")
def softmax_run(tmp_path_factory):
    """A run folder of softmax regression."""
    run = SoftmaxRun(tmp_path_factory.mktemp("runs") / "softmax", names=("a", "b", "<b>"))
    run.folder.close()
    return run.path


def test_the_command_writes_one_file_and_says_what_it_holds(
    softmax_run, run_command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    outcome = run_command("page", softmax_run)
    assert outcome.status == 0, outcome
    size = (tmp_path / "page.html").stat().st_size
    assert outcome.out == f"page.html: {size / 1e6:.2f} MB, float32 weights; open it in a browser\n"
    outcome = run_command("page", softmax_run, "-o", "other.html", "--json")
    assert json.loads(outcome.out) == {
        "page": "other.html", "bytes": size, "weights": "float32", "largest_difference": 0,
        "pictures": 0, "trains": False, "points": False,
    }  # fmt: skip
    assert (tmp_path / "other.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    assert sorted(os.listdir()) == ["other.html", "page.html"]


def test_a_damaged_run_is_refused_in_a_line(softmax_run, run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(softmax_run, "damaged")
    for path in Path("damaged/checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    outcome = run_command("page", "damaged", "--output=old.html")
    assert outcome.status != 0 and outcome.err.count("\n") <= 2 and "Traceback" not in outcome.err
    config = json.loads((softmax_run / "config.json").read_text())
    Path("damaged/config.json").write_text(json.dumps(config | {"class_names": ["a"]}))
    run_command("page", "damaged").assert_refused("class_names as 2 to")
    assert not Path("old.html").exists()


def test_every_derivation_that_the_page_links_to_exists():
    page = build.page_files(trained("softmax"))
    sums = page["sums.js"][1].decode()
    pages = dict(re.findall(r'([A-Z]+) = "([\w-]+\.md)"', sums))
    links = set(re.findall(r"\$\{([A-Z]+)\}#([a-z-]+)", sums))
    links = {(pages[name], anchor) for name, anchor in links}
    links |= set(re.findall(r'"([\w-]+\.md)#([a-z-]+)"', sums))
    assert len(links) > 10
    for module in re.findall(r'"(\w+\.py)"', sums):
        assert (ROOT / "jaxnets" / "backprop" / module).exists()
    for page, anchor in links:
        assert anchor in anchors_of(ROOT / "docs" / "backprop" / page), (page, anchor)
    table = re.search(r"CHINESE_ANCHORS = \{(.*?)\}", sums, re.DOTALL)
    assert table
    chinese = dict(re.findall(r'"([\w-]+)": "([\w-]+)"', table[1]))
    assert set(chinese) == {anchor for _, anchor in links}
    for page, anchor in links:
        assert chinese[anchor] in anchors_of(ROOT / "docs" / "zh" / "backprop" / page), anchor


def test_both_languages_say_the_same_things():
    page = build.page_files(trained("softmax"))
    texts = page["texts.js"][1].decode().replace('"use strict";', "").split("\nlet language")[0]
    program = "const kinds = (texts) => Object.entries(texts).map(([key, text]) =>"
    program += "[key, [...text.matchAll(/{\\w+}/g)].map(String).sort()]);"
    program += "console.log(JSON.stringify([kinds(TEXTS.en), kinds(TEXTS.zh)]))"
    english, chinese = run_javascript(page, texts + program)
    assert english == chinese and len(english) > 80
    used = "".join(content.decode() for _, content in page.values())
    for key, _ in english:
        key = key.removesuffix("_picture")  # Said by runs that are not on characters.
        stem = key.split("_")[0]
        assert f'"{key}"' in used or f'say("{key}"' in used or f"say(`{stem}_" in used, key


def test_numbers_have_one_format_everywhere():
    page = build.page_files(trained("softmax"))
    cases = {
        "0": [0], "0.0001235": [0.00012346], "12.35": [12.349], "18063": [18063.4],
        "1.000·10⁵": [99999.6], "−1.235·10⁻⁷": [-1.2348e-7], "190": [190.3, 2],
    }  # fmt: skip
    texts = page["texts.js"][1].decode()
    stubs = "const navigator = {}, document = { documentElement: { dataset: {} } };"
    program = f"{stubs}\n{texts}"
    program += "console.log(JSON.stringify(DATA.map((given) => digits(...given))))"
    assert run_javascript(page, program, list(cases.values())) == list(cases)
    for name, (_, content) in page.items():
        assert name == "texts.js" or not re.search(rb"toPrecision|toExponential", content), name


# In a browser


@pytest.fixture(scope="module")
def cnn_page(run_python, tmp_path_factory):
    """The page of a CNN that saw 12,000 of MNIST's images once."""
    folder = tmp_path_factory.mktemp("page")
    flags = ["--model=cnn", "--epochs=1", "--limit=12000", "--dropout=0", "--augment=none"]
    outcome = run_python("train.py", *flags, f"--workdir={folder / 'run'}")
    assert outcome.status == 0, outcome
    build.write_page(str(folder / "run"), str(folder / "cnn.html"))
    return folder / "cnn.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chromium, cnn_page):
    """The page, newly opened in a window of 1280 x 900; at the end nothing may have gone wrong."""
    chromium.resize(1280, 900)
    chromium.events.clear()
    chromium.open(cnn_page)
    yield chromium
    assert not chromium.problems()
    assert chromium.requests() == [cnn_page.as_uri()]


@pytest.mark.slow
@needs_browser
def test_digits_drawn_with_the_mouse_are_recognized(page):
    page.evaluate("addEventListener && (window.seen = [])")
    page.evaluate("document.addEventListener('drawing', (e) => seen.push(e.detail.pixels?.length))")
    for name in STROKES:
        draw(page, name)
        assert text_of(page, "#answer").startswith(f"The network says {name}: p = ")
        bars = page.evaluate(
            "[...document.querySelectorAll('#bars span')].map((e) => +e.innerText)"
        )
        assert sum(bars) == pytest.approx(1, abs=1e-3) and max(bars) == bars[int(name)]
        drawn = "[...document.querySelectorAll('[data-view=y] figcaption')].every((e) =>"
        assert page.evaluate(f"{drawn} e.innerText.includes('largest'))")
        page.click("#clear")
        page.frame()
        assert text_of(page, "#answer") == "Nothing drawn yet."
    sizes = page.evaluate("seen")
    assert sizes[-1] is None and 784 in sizes


@pytest.mark.slow
@needs_browser
def test_the_strip_runs_backwards_and_a_cell_shows_its_sum(page):
    draw(page, "7")
    assert page.evaluate("[...document.querySelectorAll('.behind figure')].every((e) => e.hidden)")
    page.click("#labels label:nth-child(3) input")
    p = page.evaluate("state.pass.p[2]")
    loss = float(text_of(page, "#loss").rpartition("= ")[2].replace("−", "-"))
    assert loss == pytest.approx(-math.log(p), rel=1e-3)
    assert page.evaluate("[...document.querySelectorAll('.behind figure')].every((e) => !e.hidden)")
    views = page.evaluate(
        "[...document.querySelectorAll('.behind figure')].map((e) => e.dataset.view)"
    )
    assert {"dx", "dW", "db", "mask", "winners", "dz"} == set(views)
    page.click('[data-layer="0"] [data-view="y"] canvas', 0.06, 0.13)
    rows = page.evaluate("[...document.querySelectorAll('#cell-sum tr')].map((e) => e.innerText)")
    numbers = [[number(cell) for cell in row.split("\t")[1:]] for row in rows[1:]]
    assert len(numbers) == 9 + 2  # Nine products, the bias, the sum.
    assert all(a * b == pytest.approx(ab, rel=2e-3, abs=1e-4) for a, b, ab in numbers[:9])
    whole = sum(row[-1] for row in numbers[:-1])
    assert whole == pytest.approx(numbers[-1][0], rel=1e-2, abs=2e-3)
    assert number(text_of(page, "#cell-title").rpartition("= ")[2]) == numbers[-1][0]


def number(text):
    """A number as the page shows it: 1.235·10⁻⁷."""
    mantissa, _, exponent = text.replace("−", "-").replace(",", "").partition("·10")
    return float(mantissa) * 10.0 ** int(
        unicodedata.normalize("NFKC", exponent or "0").replace("−", "-")
    )


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    ("layer", "view"),
    [(0, "dW"), (3, "dW"), (3, "db"), (3, "dx"), (7, "dW"), (10, "dx"), (11, "dz")],
)
def test_a_checked_gradient_agrees_with_the_central_difference(page, layer, view):
    draw(page, "7")
    page.click("#labels label:nth-child(3) input")
    values = f"Array.from(viewsOf({layer}).find(([name]) => name === '{view}')[2]())"
    sizes = np.abs(page.evaluate(values))
    for index in np.argsort(-sizes)[:10]:  # The network's last bits say which have a kink nearby.
        page.evaluate(f"showCell({layer}, '{view}', {index}, mapOf({layer}, '{view}'))")
        page.click("#check")
        found = text_of(page, "#check-result")
        assert found.startswith(("They agree: ", "There is a kink")), text_of(page, "#cell")
        if found.startswith("They agree: "):
            return
    raise AssertionError("ten kinks")


@pytest.mark.slow
@needs_browser
def test_a_kink_is_named_in_both_languages(page):
    draw(page, "7")
    page.click("#labels label:nth-child(3) input")
    kink = "checkDerivative(state, { n: 0, array: 'value', index }, d).verdict === 'kink'"
    index = page.evaluate(f"state.back.d[0].findIndex((d, index) => {kink})")
    page.evaluate(f"showCell(0, 'dx', {index}, mapOf(0, 'dx'))")
    page.click("#check")
    assert text_of(page, "#check-result").startswith("There is a kink within ε: ")
    page.click("#language")
    assert text_of(page, "#check-result").startswith("ε 以内有不可导点：")
    page.click("#language")


@pytest.mark.slow
@needs_browser
def test_a_step_moves_the_probability_and_is_undone(page):
    draw(page, "7")
    assert page.evaluate("document.querySelector('#step').disabled")
    page.click("#labels label:nth-child(3) input")
    before = page.evaluate("Array.from(state.pass.p)")
    choose = "document.querySelector('#rate').value = {}"
    page.evaluate(choose.format("0.001"))
    page.click("#step")
    after = page.evaluate("Array.from(state.pass.p)")
    assert after[2] > before[2] and "The loss fell" in text_of(page, "#moved")
    page.evaluate(choose.format("10"))  # Far too large: every picture is a 2 now.
    page.click("#step")
    assert "this step was too large" in text_of(page, "#moved")
    page.click("#step")  # The loss is 0 already, and most examples are wrong.
    assert "hardly moved" not in text_of(page, "#moved")
    assert page.evaluate("document.querySelector('#moved .bad') !== null")
    page.click("#undo")
    page.click("#undo")
    assert page.evaluate("Array.from(state.pass.p)") == after
    page.click("#undo")
    assert page.evaluate("Array.from(state.pass.p)") == before
    assert page.evaluate("document.querySelector('#undo').disabled")
    page.click("#step")
    page.click("#step")
    page.click("#reset")
    assert page.evaluate("Array.from(state.pass.p)") == before
    assert page.evaluate("byId('reset').disabled && byId('undo').disabled")
    page.wait("document.querySelectorAll('#curve polyline').length === 2")


@pytest.mark.slow
@needs_browser
def test_a_sum_names_its_derivation_or_links_to_it(page):
    place = "docs/backprop/convolution.md#convolution"
    page.evaluate("RUN.repository = null")
    draw(page, "1")
    page.click('[data-layer="0"] [data-view="y"] canvas', 0.06, 0.13)
    assert text_of(page, "#cell-link") == f"The derivation, in the project's folder: {place}"
    assert not page.evaluate("byId('cell-link').hasAttribute('href')")
    page.evaluate("RUN.repository = 'https://github.com/someone/nets'; renderCell()")
    assert text_of(page, "#cell-link") == "The derivation"
    assert (
        page.evaluate("byId('cell-link').href")
        == f"https://github.com/someone/nets/blob/main/{place}"
    )


@pytest.mark.slow
@needs_browser
def test_both_languages_both_themes_and_a_phone(page):
    draw(page, "1")
    page.click("#labels label:nth-child(2) input")
    colours = set()
    for _ in range(2):
        said = page.evaluate("byId('theme').ariaLabel")
        assert said == page.evaluate("byId('theme').title")
        page.click("#theme")
        assert page.evaluate("byId('theme').ariaLabel") != said
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    page.evaluate("delete document.documentElement.dataset.theme")
    for scheme in ("light", "dark"):  # What the system asks for.
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=features)
        colours.remove(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    page.call("Emulation.setEmulatedMedia", features=[])
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert text_of(page, "#answer").startswith("网络认为是 1")
    assert text_of(page, "#private") == "你画的内容不会离开本页。"
    for kind, place in (
        ("dense", "docs/zh/backprop/lecture-network.md#全连接层"),
        ("conv", "docs/zh/backprop/convolution.md#卷积"),
    ):
        assert page.evaluate(f"derivation(EXPLANATIONS.{kind}.anchor)") == place
    half_width = page.evaluate(
        "[...document.querySelectorAll('figcaption, h3, h4')].map((e) => e.innerText)"
        ".filter((t) => /[,;:] /.test(t))"
    )
    assert not half_width
    english = page.evaluate(
        "[...document.querySelectorAll('h2, h3, h4, p, button:not(#language), figcaption')]"
        ".map((e) => e.innerText).filter((t) => /\\b(the|and|of|is|network)\\b/i.test(t))"
    )
    assert not english
    page.resize(360, 740, mobile=True)
    page.click('[data-layer="0"] [data-view="dW"] canvas')
    for _ in range(2):
        wide = page.evaluate(
            "[document.documentElement.scrollWidth, ...[...document.querySelectorAll("
            "'main *, #cell *')].map((e) => e.getBoundingClientRect().right)]"
        )
        assert max(wide) <= 361
        page.click("#language")
    page.click("#cell-close")
    page.click("#clear")
    x, y = page.place("#paper", 0.3, 0.5)
    draw_line = [("touchStart", x), ("touchMove", x + 30), ("touchMove", x + 90)]
    for kind, at in draw_line:
        page.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": at, "y": y}])
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.frame()
    page.frame()
    assert page.evaluate("strokes.length === 1 && state.pass !== null")


@pytest.mark.slow
@needs_browser
def test_a_picture_is_opened_and_what_is_none_refused(page, tmp_path):
    y, x = np.mgrid[:600, :800]
    photo = Image.fromarray((235 - x / 20 - y / 30).astype(np.uint8)).convert("RGB")
    ImageDraw.Draw(photo).line([(250, 150), (520, 150), (380, 480)], (40, 30, 90), 30, "curve")
    photo.save(tmp_path / "seven.jpg")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("L", (99, 99), 200).save(tmp_path / "empty.png")

    def choose(name):
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / name)])

    choose("seven.jpg")
    page.wait("state.pass !== null")
    page.frame()
    assert text_of(page, "#answer").startswith("The network says 7: ")
    choose("bad.png")
    page.wait("document.querySelector('#problem').innerText.startsWith('The browser cannot show')")
    choose("empty.png")
    page.wait("document.querySelector('#problem').innerText === 'There is no ink to see.'")
    assert text_of(page, "#answer") == "Nothing drawn yet."
    draw(page, "1")  # A stroke puts the picture away.
    assert text_of(page, "#answer").startswith("The network says 1: ")
    assert text_of(page, "#problem") == ""


@pytest.mark.slow
@needs_browser
def test_the_keyboard_suffices(page):
    page.evaluate("document.querySelector('#paper').focus()")
    for _ in range(12):
        page.key("ArrowUp", 38)
    page.key(" ", 32, " ")
    for _ in range(24):
        page.key("ArrowDown", 40)
    page.key(" ", 32, " ")
    page.frame()
    assert text_of(page, "#answer").startswith("The network says 1: ")
    reached = []
    for _ in range(40):  # From one element to the next, as Tab does it.
        page.key("Tab", 9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
        if reached[-1] == "label":
            break
    assert reached[:3] == ["clear", "example", "file"] and reached[-1] == "label"
    page.key(" ", 32, " ")
    assert page.evaluate("state.label") == 0 and text_of(page, "#loss").startswith("L = ")
    page.evaluate("document.querySelector('[data-layer=\"0\"] [data-view=y] canvas').focus()")
    for key, code in (("ArrowRight", 39), ("ArrowRight", 39), ("ArrowDown", 40), ("Enter", 13)):
        page.key(key, code)
    assert "z[1, 1, 0] = " in text_of(page, "#cell-title") + text_of(page, "#live")
    assert page.evaluate("document.activeElement.id") == "cell-title"
    page.key("Escape", 27)
    assert page.evaluate("document.activeElement.closest('[data-layer]').dataset.layer") == "0"
    assert page.evaluate("document.querySelector('#cell').hidden")
    names = page.evaluate(
        "[...document.querySelectorAll('button, select, input, canvas[tabindex]')].filter((e) =>"
        "!e.innerText && !e.ariaLabel && !e.labels?.length).length"
    )
    assert names == 0


@pytest.mark.slow
@needs_browser
def test_the_tour_walks_through_both_passes_and_pauses(page):
    page.click("#tour-start")
    page.wait("!byId('tour').hidden")
    assert page.evaluate("photo.truth === state.label && state.pass.p[state.label] < 0.9")
    texts = []
    for _ in range(20):
        texts.append(text_of(page, "#tour-text"))
        if page.evaluate("document.querySelector('#tour-next').disabled"):
            break
        page.click("#tour-next")
    assert len(texts) == len(set(texts)) == 11
    assert re.search(r"\d+ of them are not 0", texts[0]) and "η = 0.01" in texts[-1]
    before, after = map(float, re.findall(r"(?:from|to) (0\.\d+)", texts[-1]))
    assert after - before > 0.01
    page.click("#tour-end")
    assert page.evaluate("document.activeElement.id") == "tour-start"
    page.click("#clear")
    draw(page, "1")
    page.click("#tour-start")
    page.wait("!byId('tour').hidden")
    assert not page.evaluate("isSure()")


@pytest.mark.slow
@needs_browser
def test_where_p_is_almost_1_another_class_is_offered(page):
    draw(page, "1")
    page.click("#labels label:nth-child(2) input")
    page.evaluate("byId('rate').value = '0.03'")
    while page.evaluate("byId('sure').hidden"):  # p grows with every step.
        page.evaluate("takeStep()")
    other = page.evaluate("nextBest()")
    page.click("#other")
    assert page.evaluate("state.label") == other != 1
    assert page.evaluate("byId('sure').hidden && document.activeElement.name === 'label'")


@pytest.mark.slow
@needs_browser
def test_the_contents_stay_in_sight_and_lead_to_each_layer(page):
    links = page.evaluate("[...document.querySelectorAll('#index a')].map((a) => a.innerText)")
    assert links[:4] == ["Draw", "Truth", "The picture", "conv1"]
    assert len(links) == page.evaluate("cards.length") + 4 and links[-2:] == ["One step", "Train"]
    for mobile, size in ((False, (1280, 900)), (True, (390, 844))):
        page.resize(*size, mobile=mobile)
        page.evaluate("document.querySelector('#index a[href=\"#layer-7\"]').focus()")
        page.key("Enter", 13, "\r")
        page.wait("document.querySelector('#index [aria-current]')?.hash === '#layer-7'")
        boxes = "[byId('index'), byId('layer-7')].map((e) => e.getBoundingClientRect().toJSON())"
        bar, card = page.evaluate(boxes)
        assert bar["top"] == 0 and bar["height"] < 60 <= card["top"] + 1 < 200
        assert page.evaluate("scrollY > 500")
        page.evaluate("scrollTo(0, 0)")


@pytest.mark.slow
@needs_browser
def test_markup_in_class_names_is_text_in_the_browser(chromium, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(build.one_file(build.page_files(trained("softmax", class_names=HOSTILE))))
    chromium.events.clear()
    chromium.open(path)
    chromium.evaluate("window.alert = () => { window.attacked = true; }")
    draw(chromium, "1")
    chromium.click("#labels label:nth-child(1) input")
    chromium.click("#step")
    assert text_of(chromium, "#labels label span") == HOSTILE[0]
    assert chromium.evaluate("window.attacked === undefined && !document.querySelector('img')")
    assert not chromium.problems() and chromium.requests() == [path.as_uri()]
    injected = "document.body.append(Object.assign(document.createElement('script'),"
    chromium.evaluate(f"{injected} {{ textContent: 'window.attacked = true' }}))")
    assert chromium.evaluate("window.attacked === undefined")  # The policy forbids it.
