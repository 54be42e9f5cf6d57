"""How fast the page of a run is in headless Chromium: `python benchmarks/page.py RUN`.

It draws a spiral with the mouse, a move at a time. For each move the page measures the time from
the pen's event until the new probabilities and activations are drawn, and then, with a true class
chosen, the time of the backward pass until its gradients are drawn. Last, it measures from the
pen's event until the frame is painted, with and without training in the page's worker.
"""

import os
import statistics
import sys
import tempfile
from math import cos, sin
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser

from jaxnets.page.build import write_page

WARM, MOVES = 40, 200  # Chromium compiles what has run often.
# A message that is sent in a frame's callback arrives when the frame has been painted.
PAINTED = """
window.painted = [];
addEventListener("pointermove", ({ timeStamp }) => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => painted.push(performance.now() - timeStamp);
  port2.postMessage(null);
}), true);
"""


def main(run: str) -> None:
    """Prints the page's size, requests and median times."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "page.html"
        print(write_page(run, str(page)).text())
        with Browser(Path(folder) / "profile") as browser:
            browser.resize(1280, 900)
            browser.open(page)
            print("requests:", browser.requests() == [page.as_uri()] and "none but the file itself")
            forward, _ = _draw(browser)
            both = _draw(browser, label=0)
            browser.evaluate(PAINTED)
            still, training = _to_paint(browser), None
            if browser.evaluate("!byId('train').hidden"):
                browser.click("#train-start")
                browser.wait("trained && trained.steps > 10")
                training = _to_paint(browser)
    for name, times in (
        ("pen to probabilities and activations", forward),
        ("the same, a true class chosen", both[0]),
        ("backward pass and its heat maps", both[1]),
    ):
        deciles = statistics.quantiles(times, n=10)
        print(f"{name}: median {statistics.median(times):.1f} ms, 90 % below {deciles[-1]:.1f} ms")

    for name, times in (("pen to paint", still), ("pen to paint while it trains", training)):
        if times:
            (*_, last) = statistics.quantiles(times, n=20)
            text = f"{name}: median {statistics.median(times):.1f} ms, 95 % below {last:.1f} ms"
            print(f"{text} (load {os.getloadavg()[0]:.1f})")


def _to_paint(browser: Browser) -> list[float]:
    """The milliseconds from each move of the pen until its frame is painted."""
    browser.evaluate("painted.length = 0")
    _draw(browser)
    browser.frame()
    return browser.evaluate("painted")[-MOVES:]


def _draw(browser: Browser, label: int | None = None) -> tuple[list[float], list[float]]:
    """The milliseconds of each move, forward and backward, as the page measures them."""
    browser.click("#clear")
    left, top = browser.place("#paper", 0, 0)
    found, x, y = [], left, top
    for n in range(WARM + MOVES):
        angle, radius = n / 12, 40 + n / 3
        x, y = left + 160 + radius * sin(angle), top + 160 + radius * cos(angle)
        browser.mouse("mouseMoved" if n else "mousePressed", x, y)
        browser.frame()
        if n == 0 and label is not None:
            browser.evaluate(f"chooseLabel({label})")
        found.append(browser.evaluate("[state.time.forward, state.time.backward ?? 0]"))
    browser.mouse("mouseReleased", x, y, 0)
    forward, backward = zip(*found[WARM:], strict=True)
    return list(forward), list(backward)


if __name__ == "__main__":
    main(sys.argv[1])
