"""Draws a small image in a terminal, in half blocks or plain characters."""

import numpy as np
from PIL import Image

RAMP = " .:-=+*#%@"  # From black to white.
BLOCKS = " \u2584\u2580\u2588"  # Nothing, the lower half, the upper half, both.
WIDEST = 64  # Columns; wider images are reduced.
RESET = "\x1b[0m"


def draw(image: np.ndarray, *, blocks: bool, colour: bool) -> str:
    """Returns the image in characters, each for two pixels, one above the other.

    Args:
      image: [H, W, 1 or 3] uint8.
      blocks: Whether to use half blocks; else ten plain characters, from dark to light.
      colour: Whether to use colours, by escape sequences of 24 bits.

    >>> print(draw(np.array([[[0], [255]], [[0], [255]]], np.uint8), blocks=False, colour=False))
     @
    """
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if picture.width > WIDEST:
        height = max(1, round(picture.height * WIDEST / picture.width))
        picture = picture.resize((WIDEST, height), Image.Resampling.BOX)
    if picture.height % 2:
        picture = picture.crop((0, 0, picture.width, picture.height + 1))
    if blocks and colour:
        pixels = np.asarray(picture.convert("RGB"))
        lines = [
            "".join(
                f"\x1b[38;2;{_numbers(upper)};48;2;{_numbers(lower)}m\u2580"
                for upper, lower in zip(*rows, strict=True)
            )
            + RESET
            for rows in zip(pixels[::2], pixels[1::2], strict=True)
        ]
    elif blocks:
        upper, lower = (np.asarray(picture.convert("L"))[row::2] > 127 for row in (0, 1))
        lines = ["".join(BLOCKS[code] for code in row) for row in 2 * upper + lower]
    else:
        grey = np.asarray(picture.convert("L"), np.float32)
        codes = (grey[::2] + grey[1::2]) / 2 * len(RAMP) / 256
        lines = ["".join(RAMP[code] for code in row) for row in codes.astype(int)]
    return "\n".join(line.rstrip(" ") for line in lines)


def _numbers(pixel: np.ndarray) -> str:
    return ";".join(map(str, pixel))
