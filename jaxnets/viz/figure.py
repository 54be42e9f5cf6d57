"""Pictures drawn with matplotlib, which is optional: the extra `compare` brings it."""

import io
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError, not_installed


def create_figure(width: float, height: float) -> Any:
    """An empty figure, its size in inches; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None

    class ShownFigure(Figure):
        """A figure that a notebook shows, also without pyplot."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=100)
            return stream.getvalue()

    return ShownFigure(figsize=(width, height), layout="constrained")


def check_picture(path: str) -> None:
    """Raises UserError if `save` cannot draw into a file: before the work is done."""
    if (figure := create_figure(7, 4)) is None:
        raise not_installed("matplotlib", "compare")
    kinds = figure.canvas.get_supported_filetypes()
    if (kind := Path(path).suffix[1:].lower()) not in kinds:
        raise UserError(f"plot: expected a picture as .png or .svg, got {kind or path!r}")
    file = Path(path).expanduser()
    if file.exists() and not file.is_file():  # Writing to a pipe without a reader would wait.
        raise UserError(f"plot: not a file: {path}")
    if not (folder := file.parent).is_dir():
        raise UserError(f"plot: no such folder: {folder}")


def save(figure: Any, path: str) -> None:
    """Draws a figure into a file, by its ending as PNG, SVG or PDF.

    Raises:
      UserError: The file cannot be written.
    """
    try:
        figure.savefig(Path(path).expanduser(), dpi=150)
    except OSError as error:
        raise UserError(f"plot: cannot write {path}: {error.strerror}") from error
