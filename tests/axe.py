"""What axe-core, a program for a browser, finds in a page that some readers could not use.

axe.min.js.gz is axe-core 4.10.3 as npm has it (https://www.npmjs.com/package/axe-core), MPL-2.0;
its source is at https://github.com/dequelabs/axe-core.
"""

import gzip
from pathlib import Path

from browser import Browser

PROGRAM = gzip.decompress(Path(__file__).with_name("axe.min.js.gz").read_bytes()).decode()
RUN = """axe.run().then(({ violations, passes }) => ({
  violations: violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0].html.slice(0, 200)}`),
  passes: passes.length,
}))"""  # noqa: E501


def violations(page: Browser) -> list[str]:
    """Every rule that the page breaks, with one of the elements."""
    page.evaluate(f"{PROGRAM}; 0")
    found = page.evaluate(RUN)
    assert found["passes"] > 20, found  # Else it has seen no page.
    return found["violations"]


def see_dark(page: Browser, dark: bool) -> None:
    """Opens the next pages in the dark theme, or in the light one, without animations."""
    features = {
        "prefers-color-scheme": "dark" if dark else "light",
        "prefers-reduced-motion": "reduce",
    }
    listed = [{"name": name, "value": value} for name, value in features.items()]
    page.call("Emulation.setEmulatedMedia", features=listed)
