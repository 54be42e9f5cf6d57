"""Finds the characters in the ink of a picture, and groups them into lines.

A character is a connected part of the ink together with the fragments near it: the bar of a 5, the
pieces of a broken stroke. Characters that touch are one part, and count as one character.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy as scipy_package

from jaxnets.data.pictures.decode import BadPictureError

# SciPy loads a part where it is first named, in half a second, and arrays need none.
scipy: Any = scipy_package  # Its functions' types are unions of all possible results.

MIN_PART = 0.05  # A connected part with a smaller share of the largest one's area is dirt,
MIN_STROKE = 0.25  # unless it is at least this long, compared with the longest one.
MAX_PARTS = 1_000  # A photo of anything else may have thousands.
# Fractions of a character's height:
WHOLE = 0.45  # A lower part is a fragment,
MAX_LIFT = 0.3  # which is at most this far away from the rest.
MIN_HEIGHT = 0.3  # A lower character is a dash or dirt.
# Two parts are pieces of one character if they share this much of the narrower one's width, and
# their gap is at most this fraction of the height of both. Two characters in a column are higher
# than this many times their width.
MIN_COMMON = 0.4
MAX_GAP, MAX_GAP_IF_FLAT = 0.1, 0.3
FLAT = 1.7
# Fractions of the picture's width: the length of the pieces of pixel rows that make up a ruled line
# (it may slope), its least length, and its greatest thickness.
PIECE, CROSSES, THIN = 1 / 24, 0.6, 0.02


@dataclasses.dataclass(frozen=True)
class Character:
    """The numbers of a character's parts, and the box around them in pixels."""

    parts: tuple[int, ...]
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def box(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def united(self, other: "Character") -> "Character":
        """Both as one."""
        return Character(
            self.parts + other.parts,
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


def parts_of(ink: np.ndarray, least: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the connected parts of ink [H, W] in [0, 1] from 1, and counts the pixels of each.

    Ink above `least` connects, and pixels above 0.5 count. A part that crosses the picture's frame,
    such as the edge of the paper, has the count 0. So has the paper, which has the number 0.
    """
    parts, count = scipy.ndimage.label(ink > least, np.ones((3, 3)))
    sizes = np.bincount(parts[ink > 0.5], minlength=count + 1)
    inner = sizes.copy()
    inner[np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])] = 0
    # Otherwise the writing itself crosses the frame.
    return parts, inner if inner.sum() > sizes.max() / 4 else sizes


def find_characters(
    parts: np.ndarray, sizes: np.ndarray, reach: float = 1
) -> list[list[Character]]:
    """The characters among the parts: lines from the top, each from left to right.

    Args:
      parts: [H, W] int, the number of each pixel's part.
      sizes: The pixels of each part, as `parts_of` counts them.
      reach: A factor by which the pieces of a character may be farther apart than usual, and less
        above each other.

    Raises:
      BadPictureError: There are more than MAX_PARTS parts.
    """
    found = [
        Character((number,), y.start, y.stop, x.start, x.stop)
        for number, (y, x) in enumerate(scipy.ndimage.find_objects(parts), 1)
        if sizes[number]
    ]
    lengths = np.array([max(one.height, one.width) for one in found])
    large = np.array([sizes[one.parts[0]] for one in found]) >= MIN_PART * sizes.max()
    kept = large | (lengths >= MIN_STROKE * lengths[large].max())
    found = [one for one, keep in zip(found, kept, strict=True) if keep]
    if len(found) > MAX_PARTS:
        raise BadPictureError("expected writing, found {} parts of ink", f"{len(found):,}")

    found.sort(key=lambda one: one.height)
    ink = np.cumsum([sizes[one.parts[0]] for one in found])
    # Half of the ink is in higher parts: dirt and fragments hardly count.
    height = found[int(np.searchsorted(ink, ink[-1] / 2))].height
    whole = {one.parts[0]: one for one in found}
    for gap, a, b in sorted(_gaps(parts, found, reach * MAX_LIFT * height)):
        one, other = whole[a], whole[b]
        if one is not other and _is_one(one, other, gap, height, reach):
            both = one.united(other)
            whole |= dict.fromkeys(both.parts, both)
    return _lines(
        one
        for one in dict.fromkeys(whole.values())
        if one.height >= MIN_HEIGHT * height and max(one.height, one.width) >= WHOLE * height
    )


def _gaps(
    parts: np.ndarray, found: list[Character], largest: float
) -> Iterator[tuple[float, int, int]]:
    """The pixels between two parts, with their numbers, where these are near each other."""
    edges, trees = [], []
    for one in found:
        mask = parts[one.box] == one.parts[0]
        edges.append(np.argwhere(mask & ~scipy.ndimage.binary_erosion(mask)) + (one.top, one.left))
        trees.append(scipy.spatial.KDTree(edges[-1]))
    for a, one in enumerate(found):
        for b, other in enumerate(found[:a]):
            below = max(one.top, other.top) - min(one.bottom, other.bottom)
            beside = max(one.left, other.left) - min(one.right, other.right)
            if max(below, beside) <= largest:
                gap = float(trees[a].query(edges[b])[0].min())
                yield gap, one.parts[0], other.parts[0]


def _is_one(one: Character, other: Character, gap: float, height: float, reach: float) -> bool:
    """Whether two groups of parts are pieces of one character."""
    if min(one.height, other.height) < WHOLE * height:
        return gap <= reach * MAX_LIFT * height
    common = min(one.right, other.right) - max(one.left, other.left)
    if common < MIN_COMMON / reach * min(one.width, other.width):
        return False
    both = one.united(other)
    flat = both.height <= FLAT * both.width
    return gap <= reach * (MAX_GAP_IF_FLAT if flat else MAX_GAP) * both.height


def _lines(found: Iterable[Character]) -> list[list[Character]]:
    """Appends each character to the line whose last character is next to it; lines may slope."""
    lines: list[list[Character]] = []
    for one in sorted(found, key=lambda one: one.left + one.right):

        def common(line: list[Character], one: Character = one) -> float:
            last = line[-1]
            shared = min(one.bottom, last.bottom) - max(one.top, last.top)
            return shared / min(one.height, last.height)

        nearest = max(lines, key=common, default=None)
        if nearest is not None and common(nearest) > MIN_COMMON:
            nearest.append(one)
        else:
            lines.append([one])
    return sorted(lines, key=lambda line: sum(one.top + one.bottom for one in line) / len(line))


def rules_on_paper(ink: np.ndarray) -> np.ndarray:
    """The mask [H, W] bool of ink [H, W] bool that belongs to ruled or squared paper.

    Its lines are two or more that cross the picture. Strokes that cross them stay.
    """
    across = _rules_across(ink)
    return across | _rules_across((ink & ~across).T).T


def _rules_across(ink: np.ndarray) -> np.ndarray:
    """The ruled lines from left to right."""
    width = ink.shape[1]
    piece = max(3, round(PIECE * width))
    pieces = scipy.ndimage.grey_opening(ink, (1, piece))
    lines, _ = scipy.ndimage.label(
        scipy.ndimage.grey_closing(pieces, (3, 3 * piece)), np.ones((3, 3))
    )
    rules, count = np.zeros_like(ink), 0
    for number, (y, x) in enumerate(scipy.ndimage.find_objects(lines), 1):
        heights = (pieces[y, x] & (lines[y, x] == number)).sum(axis=0)
        thickness = int(np.median(heights[heights > 0]))
        if len(heights) >= CROSSES * width and thickness <= THIN * width:
            box = slice(max(0, y.start - thickness - 3), y.stop + thickness + 3), x
            strokes = scipy.ndimage.grey_opening(ink[box], (thickness + 3, 1), mode="constant")
            rules[box] |= scipy.ndimage.grey_dilation(pieces[box], (3, 3)) & ~strokes
            count += 1
    return rules if count > 1 else np.zeros_like(ink)
