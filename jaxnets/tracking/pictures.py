"""The pictures that trackers show, drawn with Pillow, which every run has."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxnets.display import printable

MAX_NAMED = 20  # Classes whose names and counts can be read in a matrix.
RIGHT, WRONG = (31, 95, 176), (196, 78, 0)  # Blue and orange differ for colour-blind eyes too.
LONGEST = 14  # Characters of a name.
TILE, COLUMNS = 112, 4  # The side in pixels of a sample, and how many stand in a row.


def confusion_picture(confusion: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The confusion matrix [K, K] as pixels [H, W, 3] uint8: rows are labels, columns predictions.

    A cell's colour is its share of the row: blue on the diagonal, orange elsewhere. The root of the
    share is drawn, so that few mistakes among many images are seen.
    """
    count, named = len(confusion), len(confusion) <= MAX_NAMED
    cell = 38 if named else max(2, 720 // count)
    shown = [_shown(name) for name in names] if named else []
    margin = 30 + max((int(_font().getlength(name)) for name in shown), default=0)
    picture = Image.new("RGB", (margin + count * cell + 10, margin + count * cell + 10), "white")
    draw = ImageDraw.Draw(picture)
    shares = np.sqrt(confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1))
    for row, column in np.ndindex(count, count):
        share, (x, y) = shares[row, column], (margin + column * cell, margin + row * cell)
        colour = RIGHT if row == column else WRONG
        fill = tuple(round(255 + (part - 255) * share) for part in colour)
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=fill)
        if named and (number := int(confusion[row, column])):
            ink, middle = "white" if share > 0.6 else "black", (x + cell / 2, y + cell / 2)
            draw.text(middle, _short_number(number), ink, _font(), anchor="mm")
    for place, name in enumerate(shown):
        middle = margin + (place + 0.5) * cell
        draw.text((margin - 6, middle), name, "black", _font(), anchor="rm")
        _draw_upwards(picture, name, (round(middle), margin - 6))
    draw.text((margin, 4), "prediction", "black", _font())
    _draw_upwards(picture, "label", (10, margin + round(_font().getlength("label"))))
    return np.asarray(picture)


def sample_picture(
    images: Sequence[np.ndarray], labels: Sequence[str], predictions: Sequence[str]
) -> np.ndarray:
    """Images [H, W, C] in a grid of pixels [H, W, 3] uint8, each with its label and prediction.

    A prediction that does not begin with the label is orange.
    """
    text = 34
    rows = -(-len(images) // COLUMNS)
    size = (COLUMNS * (TILE + 8) + 8, rows * (TILE + text + 8) + 8)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for place, (image, label, prediction) in enumerate(
        zip(images, labels, predictions, strict=True)
    ):
        row, column = divmod(place, COLUMNS)
        x, y = 8 + column * (TILE + 8), 8 + row * (TILE + text + 8)
        picture.paste(_tile(image), (x, y))
        name, _, probability = prediction.rpartition(" ")
        draw.text((x, y + TILE + 2), f"label {_shown(label)}", "black", _font())
        found = f"{_shown(name)} {probability}"
        colour = RIGHT if name == label else WRONG
        draw.text((x, y + TILE + 16), found, colour, _font())
    return np.asarray(picture)


def _tile(image: np.ndarray) -> Image.Image:
    if image.dtype != np.uint8:
        image = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    pixels = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (TILE, TILE), Image.Resampling.NEAREST
    )


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def _shown(name: str) -> str:
    """A name that the font can draw, and that fits."""
    name = printable(name)
    name = name.encode("latin-1", "replace").decode("latin-1")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 2]}.."


def _short_number(number: int) -> str:
    """A count in at most four characters: 12345 is 12k."""
    return str(number) if number < 10_000 else f"{number // 1000}k"


def _draw_upwards(picture: Image.Image, text: str, start: tuple[int, int]) -> None:
    """Draws a text from below to above, its line centred at start's x."""
    width = int(_font().getlength(text)) + 2
    strip = Image.new("RGB", (width, 16), "white")
    ImageDraw.Draw(strip).text((0, 8), text, "black", _font(), anchor="lm")
    picture.paste(strip.rotate(90, expand=True), (start[0] - 8, start[1] - width))
