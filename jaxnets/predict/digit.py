"""Converts a photo or scan of written characters to MNIST's format.

MNIST's digits are scaled to a box of 20 pixels, antialiased, with their aspect ratio kept. Their
centre of mass is the centre of 28 x 28 pixels, white on black. Source: LeCun, Bottou, Bengio and
Haffner 1998, "Gradient-based learning applied to document recognition", section III.A.
"""

from typing import Any

import numpy as np
import scipy as scipy_package
from PIL import Image

from jaxnets.data.pictures.decode import BadPictureError
from jaxnets.predict.characters import MIN_PART, find_characters, parts_of, rules_on_paper

# SciPy loads a part where it is first named, in half a second, and arrays need none.
scipy: Any = scipy_package  # Its functions' types are unions of all possible results.

SIDE, BOX = 28, 20
WORK = 512  # Pixels of the longer side when ink is searched: more would only cost time.
LARGEST, LONGEST = 1_500_000, 10_000  # Pixels of a picture of many characters, and of its side.
FINE = 8  # Strokes are measured and thickened at this many times the box's size.
FEWEST = 40  # A smaller picture holds one character: its pixels are too coarse to separate several.
# Fractions of the shorter side, and of the range from black to white:
THICKEST = 1 / 3  # Thicker parts are paper, table or shadow, not strokes.
UNEVEN = 0.02  # A surface whose median distance from the paper's light is larger does not fit.
MIN_CONTRAST = 0.06  # Fainter marks are not ink ...
MIN_OVER_NOISE = 4  # ... nor are those fewer standard deviations away from the paper.
FAINT = 0.25  # Ink that joins the parts of a stroke.
TIE = 1e-4  # Pixels: a centre half-way between two places must not be placed by rounding noise.
PEN = 2.0  # Pixels in the box: thinner strokes are thickened to it. MNIST's are 2.1 to 4.3 wide.


def to_digit(picture: Image.Image, *, single: bool = False) -> np.ndarray:
    """Scales the ink into the box and centres its mass: [28, 28] uint8, white on black.

    The ink may be dark on light paper or light on dark. Gradients of the light are removed, and
    thin strokes of a pen are thickened. A picture in MNIST's format is at most inverted.

    Args:
      picture: A photo or scan of one character.
      single: Whether several characters are an error. By default all ink counts as one.

    Raises:
      BadPictureError: There is no ink, or there are several characters but `single` is set.
    """
    grey, light = _light_on_dark(picture, WORK)
    if _is_mnist_like(grey):
        return np.asarray(grey)
    ink = _find_ink(grey, light)
    if single and max(grey.size) > FEWEST and (count := _count(ink)) > 1:
        raise BadPictureError("expected one character, found {}: prepare=digits reads each", count)
    parts, sizes = parts_of(ink)
    return _to_format(ink, (sizes >= MIN_PART * sizes.max())[parts] & (parts > 0))


def to_digits(picture: Image.Image) -> list[list[np.ndarray]]:
    """Each character as `to_digit` makes it: lines from the top, each from left to right.

    Raises:
      BadPictureError: There is no ink, or it has more parts than writing has.
    """
    fraction = min(1, LARGEST / (picture.width * picture.height)) ** 0.5
    grey, light = _light_on_dark(picture, min(LONGEST, round(fraction * max(picture.size))))
    if _is_mnist_like(grey):
        return [[np.asarray(grey)]]
    ink = _find_ink(grey, light)
    parts, sizes = parts_of(ink, FAINT)
    return [
        [_to_format(ink[one.box], np.isin(parts[one.box], one.parts)) for one in line]
        for line in find_characters(parts, sizes)
    ]


def _count(ink: np.ndarray) -> int:
    """The number of characters; a broken one hardly ever counts as several.

    Those that cross the frame do not count: they may be enclosed by a larger one.
    """
    height, width = ink.shape
    return sum(
        one.top > 0 and one.left > 0 and one.bottom < height and one.right < width
        for line in find_characters(*parts_of(ink, FAINT), reach=2)
        for one in line
    )


def _light_on_dark(picture: Image.Image, longest: int) -> tuple[Image.Image, np.ndarray]:
    """The picture in grey, reduced and with light ink, and the light on its paper [H, W]."""
    grey = picture.convert("L")
    if max(grey.size) > longest:
        grey.thumbnail((longest, longest), Image.Resampling.BOX)
    step = max(1, min(grey.size) // 128)  # Fewer pixels show the light.
    few = _to_floats(grey.reduce(step))
    light = _light_on_paper(few)
    if not _is_light_on_dark(few, light):
        grey, light = Image.eval(grey, lambda level: 255 - level), 1 - light
    return grey, np.asarray(Image.fromarray(light.astype(np.float32)).resize(grey.size))


def _to_format(ink: np.ndarray, character: np.ndarray) -> np.ndarray:
    """The character's ink in MNIST's format."""
    ink = _crop(ink * scipy.ndimage.binary_dilation(character, np.ones((3, 3)), iterations=2))
    fine = _fit(ink, FINE * BOX)
    if fine.max() <= 0.5:  # The strokes of a large character may be thinner than these pixels.
        fine = _fit(
            scipy.ndimage.grey_dilation(ink, [max(ink.shape) // (FINE * BOX) + 1] * 2), FINE * BOX
        )
    ink = _crop(_thicken(fine))
    return np.rint(255 * _centre(_fit(ink, BOX))).astype(np.uint8)


def _to_floats(grey: Image.Image) -> np.ndarray:
    return np.asarray(grey, np.float32) / 255


def _is_light_on_dark(grey: np.ndarray, light: np.ndarray) -> bool:
    """Whether the ink is lighter than the paper.

    It adds two scores from -1 to 1. The first: do the large differences from the paper go up or
    down? It is reliable on evenly lit paper. The second: are thin parts, such as strokes, lighter
    or darker than their surroundings? It is reliable where a shadow has an edge.
    """
    cubes, size = (grey - light) ** 3, 3
    above = below = 0.0
    while size <= min(grey.shape) * THICKEST:
        window = (size, size)
        above += ((grey - scipy.ndimage.grey_opening(grey, window)) ** 2).sum() / size
        below += ((grey - scipy.ndimage.grey_closing(grey, window)) ** 2).sum() / size
        size *= 2
    scores = [(cubes.sum(), abs(cubes).sum()), (above - below, above + below)]
    return bool(sum(part / max(whole, 1e-9) for part, whole in scores) > 0)


def _light_on_paper(grey: np.ndarray) -> np.ndarray:
    """The paper's light, a quadratic surface [H, W] fitted to the picture's frame.

    It has the least absolute deviations, so that what crosses the frame hardly counts.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    frame = np.maximum(abs(x), abs(y)) > 0.8
    inputs, targets = terms[:, frame][:, ::4], grey[frame][::4]  # A thousand pixels suffice.
    weights = np.ones(len(targets))
    # Reweighted least squares until it hardly moves. The sums are too small for BLAS's threads, so
    # einsum computes them.
    for _ in range(10):
        squares = np.einsum("ip,jp,p->ij", inputs, inputs, weights)
        products = np.einsum("ip,p,p->i", inputs, targets, weights)
        coefficients = np.linalg.lstsq(squares, products)[0]
        errors = abs(targets - np.einsum("i,ip->p", coefficients, inputs))
        weights = 1 / np.maximum(errors, 0.01)
    if np.median(errors) > UNEVEN:
        return np.full(grey.shape, np.median(targets))
    return np.einsum("i,ihw->hw", coefficients, terms)


def _is_mnist_like(grey: Image.Image) -> bool:
    """Whether the ink already fills the box and has its centre of mass in the middle."""
    ink = _to_floats(grey)
    if ink.shape != (SIDE, SIDE) or ink.max() < 0.5:
        return False
    middle = scipy.ndimage.center_of_mass(ink)
    box = max(_crop(ink).shape)
    return abs(box - BOX) <= 2 and max(abs(at - SIDE / 2) for at in middle) <= 1


def _find_ink(grey: Image.Image, light: np.ndarray) -> np.ndarray:
    """The ink of each pixel [H, W], from 0 to 1; the ink is lighter than the paper."""
    smooth = scipy.ndimage.gaussian_filter(_to_floats(grey), min(1, max(grey.size) / WORK)) - light
    # An opening keeps what is wider than strokes, such as the edge of a shadow.
    wide = max(3, round(min(grey.size) * THICKEST))
    height = smooth - scipy.ndimage.grey_opening(smooth, (wide, wide))
    if np.ptp(height) < MIN_CONTRAST:
        raise BadPictureError("no ink found")
    threshold = otsu(height)
    below = height[height <= threshold]
    ink_level, paper_level = np.median(height[height > threshold]), np.median(below)
    noise = 1.48 * np.median(abs(below - paper_level))
    if ink_level - paper_level < max(MIN_CONTRAST, MIN_OVER_NOISE * noise):
        raise BadPictureError("no ink found")
    low = (threshold + paper_level) / 2
    ink = np.clip((height - low) / (ink_level - low), 0, 1)  # Soft at the edges of strokes.
    ink[rules_on_paper(ink > FAINT)] = 0
    if ink.max() <= 0.5:
        raise BadPictureError("no ink found")
    return ink


def otsu(values: np.ndarray) -> float:
    """The threshold between two classes of values with the least variance within them.

    Source: Otsu 1979, "A threshold selection method from gray-level histograms".
    """
    counts, edges = np.histogram(values, 256)
    levels = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), np.cumsum(counts * levels)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    # Its upper edge would be the maximum at the last level, above which there is nothing.
    return float(edges[1:-1][np.nanargmax(between[:-1])])


def _crop(ink: np.ndarray) -> np.ndarray:
    """Cuts out the rectangle around the ink."""
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(ink: np.ndarray, side: int) -> np.ndarray:
    """Scales the longer side to `side` pixels, antialiased."""
    scale = side / max(ink.shape)
    height, width = (max(1, round(size * scale)) for size in ink.shape)
    image = Image.fromarray(ink.astype(np.float32))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized), 0, 1)


def _thicken(ink: np.ndarray) -> np.ndarray:
    """Widens strokes that are thinner than PEN."""
    inside = scipy.ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))
    # Across a stroke of width w the mean distance to its edge is w / 4.
    width = 4 * (inside[inside > 0].mean() - 0.5)
    radius = (PEN * FINE - width) / 2
    if radius < 0.5:
        return ink
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return scipy.ndimage.grey_dilation(
        np.pad(ink, reach), footprint=x * x + y * y <= radius * radius
    )


def _centre(ink: np.ndarray) -> np.ndarray:
    """Places the ink in SIDE x SIDE pixels, with its centre of mass in the middle if it fits."""
    out = np.zeros((SIDE, SIDE))
    top, left = (
        min(max(round(SIDE / 2 - middle - TIE), 0), SIDE - size)
        for middle, size in zip(scipy.ndimage.center_of_mass(ink), ink.shape, strict=True)
    )
    out[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return out
