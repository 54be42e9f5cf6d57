"""Records README's animation of the drawing page: `python docs/img/record_page.py RUN`.

RUN is a run of `python train.py --model=cnn --epochs=2 --workdir=RUN`. A headless Chromium opens
its page and draws a 3 with the mouse, says what it is, looks at the layers and opens a number. The
pictures go to docs/_static, from where README and the site's home show them: an animation and a
still, each light and dark, in English and Chinese.
"""

import base64
import io
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from browser import Browser  # noqa: E402

from jaxnets.page.build import write_page  # noqa: E402

FOLDER = ROOT / "docs" / "_static"
THEMES = {"light": "", "dark": "-dark"}
LANGUAGES = {"en": "", "zh": ".zh"}
WINDOW, SIZE = (1040, 640), (780, 480)  # The browser's, and that of the pictures.
DIGIT, PAPER, PEN = "3", 280, 4  # What is drawn; the paper's side in its units; points a frame.
QUALITY = 70  # Of the animation's WebP.


class Frame(NamedTuple):
    """A picture, and for how many milliseconds it is shown."""

    image: Image.Image
    milliseconds: int


class Recorder:
    """Takes pictures of one page."""

    def __init__(self, browser: Browser):
        self.browser, self.frames = browser, list[Frame]()

    def take(self, milliseconds: int) -> None:
        """Keeps what is on the screen now."""
        self.browser.frame()
        data = self.browser.call("Page.captureScreenshot", format="png")["data"]
        image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        image = image.resize(SIZE, Image.Resampling.LANCZOS)
        self.frames.append(Frame(image, milliseconds))

    def scroll_to(self, selector: str, pictures: int = 5) -> None:
        """Scrolls until an element stands at the top, in some pictures."""
        start, end = self.browser.evaluate(
            "(() => { const e = document.querySelector(" + repr(selector) + ");"
            "const most = document.documentElement.scrollHeight - innerHeight;"
            "const above = byId('index').offsetHeight + 12, {top} = e.getBoundingClientRect();"
            "return [scrollY, Math.min(most, scrollY + top - above)]; })()"
        )
        for n in range(1, pictures + 1):
            part = n / pictures
            at = start + (end - start) * part * part * (3 - 2 * part)
            self.browser.evaluate(f"scrollTo({{top: {at}, behavior: 'instant'}})")
            self.take(60)


def record(page: Path, theme: str, language: str, profile: Path) -> tuple[list[Frame], Image.Image]:
    """The animation's pictures in a theme and a language, and the one that stands for it."""
    with Browser(profile) as browser:
        browser.resize(*WINDOW)
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        features: list[dict[str, Any]] = [{"name": "prefers-color-scheme", "value": theme}]
        browser.call("Emulation.setEmulatedMedia", features=features)
        browser.open(page)
        if language == "zh":
            browser.click("#language")
        recorder = Recorder(browser)
        recorder.scroll_to("#draw", 1)
        recorder.take(700)
        for stroke in browser.evaluate(f"EXAMPLES[{DIGIT}].map(rounded)"):
            points = list(zip(stroke[::2], stroke[1::2], strict=True))
            box = browser.evaluate(
                "(({left, top, width}) => [left, top, width])"
                "(byId('paper').getBoundingClientRect())"
            )
            at = [(box[0] + x / PAPER * box[2], box[1] + y / PAPER * box[2]) for x, y in points]
            browser.mouse("mousePressed", *at[0])
            for number, (x, y) in enumerate(at[1:], start=1):
                browser.mouse("mouseMoved", x, y)
                if number % PEN == 0:
                    recorder.take(70)
            browser.mouse("mouseReleased", *at[-1], 0)
        recorder.take(1400)
        recorder.scroll_to("#truth")
        browser.click(f"#labels label:nth-child({int(DIGIT) + 1})")
        browser.evaluate(  # The gradients come in from below.
            "Promise.all(document.getAnimations().map((one) => one.finished)).then(() => 0)"
        )
        recorder.take(1200)
        still = recorder.frames[-1].image
        recorder.scroll_to(".card:nth-child(2)")
        recorder.take(1500)
        browser.click(".card:nth-child(2) canvas", 0.31, 0.35)
        recorder.scroll_to(".card:nth-child(2)", 1)
        recorder.take(3000)
        assert not browser.problems()
        return recorder.frames, still


def main(run: str) -> None:
    """Writes the pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        page = folder / "page.html"
        write_page(run, str(page))
        for (theme, dark), (language, end) in itertools.product(THEMES.items(), LANGUAGES.items()):
            frames, still = record(page, theme, language, folder / f"{theme}{end}")
            animation = FOLDER / f"page{dark}{end}.webp"
            images = [frame.image for frame in frames]
            images[0].save(
                animation, save_all=True, append_images=images[1:], loop=0, quality=QUALITY,
                duration=[frame.milliseconds for frame in frames], method=6, minimize_size=True,
            )  # fmt: skip
            still.save(FOLDER / f"page-still{dark}{end}.webp", quality=85, method=6)
            print(f"{animation}: {len(frames)} pictures, {animation.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
