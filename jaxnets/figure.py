"""Pictures drawn with matplotlib, which is optional: the extra `compare` brings it."""

from pathlib import Path
from typing import Any

from jaxnets.errors import UserError


def create_figure(width: float, height: float) -> Any:
    """An empty figure, its size in inches; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(width, height), layout="constrained")


def check_picture(path: str) -> None:
    """Raises UserError if `save` cannot draw into a file: before the work is done."""
    if (figure := create_figure(7, 4)) is None:
        raise UserError("plot: expected matplotlib, found none: pip install 'jaxnets[compare]'")
    kinds = figure.canvas.get_supported_filetypes()
    if (kind := Path(path).suffix[1:].lower()) not in kinds:
        raise UserError(f"plot: expected a picture as .png or .svg, got {kind or path!r}")
    if not (folder := Path(path).expanduser().parent).is_dir():
        raise UserError(f"plot: expected a folder that exists, found none at {folder}")


def save(figure: Any, path: str) -> None:
    """Draws a figure into a file, by its ending as PNG, SVG or PDF.

    Raises:
      UserError: The file cannot be written.
    """
    try:
        figure.savefig(Path(path).expanduser(), dpi=150)
    except OSError as error:
        raise UserError(f"plot: cannot write {path}: {error.strerror}") from error
