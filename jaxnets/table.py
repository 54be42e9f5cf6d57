"""Aligned columns of text: one printer for every table."""

import itertools
import unicodedata
from collections.abc import Sequence


def width_of(text: str) -> int:
    r"""How many columns of a terminal a text takes.

    >>> width_of("bird"), width_of("鸟"), width_of("e\u0301")  # e and its accent
    (4, 2, 1)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    """One line of a table whose widths are known before its other lines.

    Each column has its character in align, "<" for left or ">" for right. A text that is wider than
    its column shifts what follows; fewer cells than columns leave the last ones empty.

    >>> line(["cnn", "0.99"], widths=[5, 6], align="<>")
    'cnn      0.99'
    """
    padded = []
    for cell, width, side in zip(cells, widths, align, strict=False):
        space = " " * (width - width_of(cell))
        padded.append(cell + space if side == "<" else space + cell)
    return "  ".join(padded).rstrip()


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    r"""The lines of a table, each column as wide as its widest text.

    >>> print("\n".join(table([["model", "loss"], ["cnn", "0.5"]], "<>")))
    model  loss
    cnn     0.5
    """
    columns = itertools.zip_longest(*rows, fillvalue="")
    widths = [max(map(width_of, column)) for column in columns]
    return [line(row, widths, align) for row in rows]
