"""A small writer of SVG: one source for a figure in a page, in an SVG file and in a PNG file.

In a page the colours are CSS variables, so that a figure follows its reader's theme. In a file
they are those of the light theme; `Figure.themed` has both.
"""

import base64
import html
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxnets.base import files
from jaxnets.base.display import printable, width_of
from jaxnets.base.errors import UserError, not_installed
from jaxnets.base.files import output_path

# Colours by name in each theme. c1 to c6 tell series apart; they differ in lightness too, for
# readers who do not tell all hues apart, and each has a contrast of 4.5 or more to the card.
LIGHT = dict(
    page="#f6f7f9",
    card="#ffffff",
    ink="#1b1f26",
    soft="#59616e",
    line="#d5d9e0",
    bad="#a8300b",
    good="#1a6d33",
    c1="#0b5cad",
    c2="#c2410c",
    c3="#0f766e",
    c4="#86198f",
    c5="#6b5900",
    c6="#be185d",
)
DARK = dict(
    page="#14161a",
    card="#1d2026",
    ink="#e6e9ee",
    soft="#a3abb8",
    line="#3a404b",
    bad="#ff9c78",
    good="#7fd494",
    c1="#7ab8ff",
    c2="#ff983e",
    c3="#5fd3c0",
    c4="#d9a2f0",
    c5="#d9c84a",
    c6="#ff8fc0",
)
SERIES = ("c1", "c2", "c3", "c4", "c5", "c6")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # In addition to the colour, for readers who see none.
FONT = 'system-ui, "Segoe UI", Roboto, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", '
FONT += '"DejaVu Sans", sans-serif'
Colour = tuple[int, int, int]
# Above and below zero, on both themes.
ABOVE, BELOW = (232, 113, 10), (47, 127, 232)
TITLE = 30  # Height of the title that a figure has in a separate file.


def escape(text: Any) -> str:
    r"""A text that can neither end an attribute nor begin an element, whatever a file holds.

    >>> print(escape("<b>&\x07"))
    &lt;b&gt;&amp;\x07
    """
    return html.escape(printable(str(text)))


def text_width(text: str, size: float) -> float:
    """The approximate width of a text in pixels, estimated without a font."""
    return 0.57 * size * width_of(text)


class LegendEntry(NamedTuple):
    """The label and the look of a curve; its elements are of the class s and its number."""

    label: str
    style: dict[str, Any]


class Figure:
    """A drawing with a name, a title and a text for readers who cannot see it."""

    def __init__(self, name: str, width: float, height: float, title: str, alt: str):
        self.name, self.width, self.height, self.title, self.alt = name, width, height, title, alt
        self._on_page: list[str] = []  # The elements in a page, which has tips,
        self._in_file: list[str] = []  # and those in a file, which has a legend.
        # Of curves that a page may show or hide, in place of a legend.
        self.keys: list[LegendEntry] = []
        self.legend_height = 0.0

    def __repr__(self) -> str:
        return f"Figure({self.name!r}, {self.width:g} x {self.height:g})"

    def add(self, tag: str, content: str = "", **attributes: Any) -> None:
        """Adds an element; colours are names of LIGHT, and underscores stand for dashes."""
        self.add_all([element(tag, content, **attributes)])

    def add_all(self, elements: Sequence[str]) -> None:
        """Adds elements that `element` made."""
        self._on_page += elements
        self._in_file += elements

    def rect(self, x: float, y: float, width: float, height: float, **attributes: Any) -> None:
        self.add("rect", x=x, y=y, width=max(width, 0), height=max(height, 0), **attributes)

    def line(self, x1: float, y1: float, x2: float, y2: float, **attributes: Any) -> None:
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, **{"stroke": "line", **attributes})

    def text(self, x: float, y: float, text: str, **attributes: Any) -> None:
        """A text whose base line begins (or ends, or has its middle) at a point."""
        given = {"font_size": 12, "fill": "ink", **attributes}
        self.add("text", escape(text), x=x, y=y, **given)

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> None:
        """A picture [h, w], [h, w, 3] or [h, w, 4] uint8, whose pixels stay squares."""
        self.add(
            "image",
            x=x,
            y=y,
            width=width,
            height=height,
            href=data_uri(pixels),
            preserveAspectRatio="none",
            image_rendering="pixelated",
        )

    def array(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        value: np.ndarray,
        *,
        maps: int,
        colours: tuple[Colour, Colour] = (ABOVE, BELOW),
    ) -> None:
        """An array by its signs: squares of its first maps, its rows, or a row in rows of 64."""
        value = np.nan_to_num(value, posinf=0, neginf=0)
        if value.ndim == 3:
            boxes = [(x + n * (height + 2), height, value[..., n]) for n in range(value.shape[2])]
            boxes = boxes[:maps]
        elif value.ndim == 1:
            columns = 64 if value.size > 16 else value.size
            boxes = [(x, width, np.pad(value, (0, -value.size % columns)).reshape(-1, columns))]
        else:
            boxes = [(x, width, value.reshape(-1, value.shape[-1]))]
        largest = float(np.abs(value).max(initial=0))
        for left, wide, table in boxes:
            rows, columns = (max(1, -(-size // 64)) for size in table.shape)  # At most 64 a side.
            pixels = signed_pixels(table[::rows, ::columns], largest, colours)
            self.image(left, y, wide, height, pixels)
            self.rect(left, y, wide, height, fill="none", stroke="line", stroke_width=0.5)

    def tip(self, x: float, y: float, width: float, height: float, shown: str) -> None:
        """Shows elements while the pointer is in a rectangle of a page."""
        area = element("rect", x=x, y=y, width=width, height=height, fill="none")
        tip = element("g", shown, class_="tip")
        self._on_page.append(element("g", area + tip, class_="hit"))

    def legend(self, keys: Sequence["LegendEntry"], height: float, drawn: Sequence[str]) -> None:
        """A legend at the top, for a file; a page has a checkbox for each of its keys."""
        self.keys, self.legend_height = list(keys), height
        self._in_file += drawn

    @classmethod
    def grid(cls, name: str, title: str, rows: Sequence[Sequence["Figure"]]) -> "Figure":
        """One figure of rows of others, each below its own title."""
        width = max(sum(figure.width for figure in row) for row in rows)
        heights = [TITLE + max(figure.height for figure in row) for row in rows]
        alt = " ".join(figure.alt for row in rows for figure in row)
        whole, y = cls(name, width, sum(heights), title, alt), 0.0
        for row, height in zip(rows, heights, strict=True):
            x = 0.0
            for figure in row:
                whole.text(x + 12, y + 20, figure.title, font_weight=600)
                moved = f"translate({x:g},{y + TITLE:g})"
                whole._on_page.append(element("g", "".join(figure._on_page), transform=moved))
                whole._in_file.append(element("g", "".join(figure._in_file), transform=moved))
                x += figure.width
            y += height
        return whole

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the figure into a file, by its ending as SVG or PNG.

        Raises:
          UserError: Another ending, no such folder, or resvg, which draws a PNG, is missing.
        """
        path, text = figure_path(os.fspath(path)), self.standalone()
        with files.replacing(path) as stream:
            stream.write(to_png(text) if path.suffix.lower() == ".png" else text.encode())

    def inline(self) -> str:
        """The figure for a page, which has the legend in HTML."""
        height = self.height - self.legend_height
        box = " ".join(map(_pixels_text, (0, self.legend_height, self.width, height)))
        body = "".join(self._on_page)
        return f'<svg viewBox="{box}" role="img" aria-label="{escape(self.alt)}">{body}</svg>\n'

    def standalone(self) -> str:
        """The figure as an SVG file: with its title, on the light theme's background."""
        return re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], self._file())

    _repr_svg_ = standalone  # In a notebook.

    def themed(self) -> str:
        """The same in its reader's theme; for browsers, which know media queries."""
        return self._file(both_themes())

    def _file(self, style: str = "") -> str:
        """The figure with its title and a background; its colours are still variables."""
        width, height = _pixels_text(self.width), _pixels_text(self.height + TITLE)
        body = "".join(self._in_file)
        # The one is for browsers, the other for resvg and Inkscape.
        body = body.replace(
            'image-rendering="pixelated"',
            'image-rendering="optimizeSpeed" class="pixels"',
        )
        title = element(
            "text", escape(self.title), x=12, y=20, font_size=15, font_weight=600, fill="ink"
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 -{TITLE} {width} {height}" style="max-width:100%;height:auto" '
            f'font-family="{html.escape(FONT)}" role="img">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.alt)}</desc>"
            f"<style>.pixels{{image-rendering:pixelated}}{style}</style>"
            + element("rect", y=-TITLE, width=width, height=height, fill="card")
            + f'<g transform="translate(0,-{TITLE})">{title}</g>{body}</svg>\n'
        )


def both_themes() -> str:
    """The colours as CSS variables, of the reader's theme or of the one in `data-theme`."""
    light, dark = (
        f"color-scheme:{scheme};" + "".join(f"--{name}:{value};" for name, value in theme.items())
        for scheme, theme in (("light", LIGHT), ("dark", DARK))
    )
    return (
        f":root{{{light}}}\n"
        f'@media (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{{dark}}}}}\n'
        f':root[data-theme="dark"]{{{dark}}}\n'
    )


def element(tag: str, content: str = "", **attributes: Any) -> str:
    """An element of SVG; a colour is one of LIGHT's names."""
    written = []
    for name, value in attributes.items():
        if value is None:
            continue
        if isinstance(value, float | int):
            value = _pixels_text(value)
        elif name in ("fill", "stroke") and value in LIGHT:
            value = f"var(--{value})"
        name = name.rstrip("_")
        name = name if name in ("preserveAspectRatio", "viewBox") else name.replace("_", "-")
        written.append(f'{name}="{html.escape(str(value))}"')
    return f"<{tag} {' '.join(written)}" + (f">{content}</{tag}>" if content else "/>")


def _pixels_text(value: float) -> str:
    """A number of pixels with two digits after the point, if it needs them."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def data_uri(pixels: np.ndarray) -> str:
    """A picture as an address that needs no request."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def signed_pixels(
    values: np.ndarray,
    largest: float | None = None,
    colours: tuple[Colour, Colour] = (ABOVE, BELOW),
) -> np.ndarray:
    """Numbers [h, w] as pixels [h, w, 4]: orange above zero, blue below, clear at zero."""
    values = np.nan_to_num(np.asarray(values, np.float32), posinf=0, neginf=0)
    largest = largest or float(np.abs(values).max(initial=0)) or 1.0
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where((values >= 0)[..., None], *colours)
    pixels[..., 3] = np.clip(np.abs(values) / largest, 0, 1) ** 0.7 * 255  # Small ones show too.
    return pixels


def tiled(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Puts pictures [n, h, w, c] in rows and columns, a clear pixel apart."""
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), tiles.dtype)
    for number, tile in enumerate(tiles):
        y, x = number // columns * (height + 1), number % columns * (width + 1)
        sheet[y : y + height, x : x + width] = tile
    return sheet


def figure_path(output: str) -> Path:
    """The path of a figure that may be written; UserError before any work is done."""
    path = output_path(output)
    if (kind := path.suffix.lower()) not in (".svg", ".png"):
        raise UserError("output: expected a figure as .svg or .png, got {}", kind or output)
    if kind == ".png":
        check_png()
    return path


def to_png(svg: str) -> bytes:
    """Draws an SVG file with resvg, twice as large."""
    return _resvg().svg_to_bytes(svg_string=svg, zoom=2, sans_serif_family="DejaVu Sans")


def check_png() -> None:
    """Raises UserError where resvg is missing: before the work is done."""
    _resvg()


def _resvg() -> Any:
    try:
        import resvg_py
    except ImportError:
        raise not_installed("resvg-py", "report") from None
    return resvg_py
