"""`python -m jaxnets predict`: reads the pictures of the command line and prints predictions."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxnets.data.pictures.decode import FORMATS, BadPictureError, read_picture
from jaxnets.errors import UserError, printable
from jaxnets.serving.digit import WORK
from jaxnets.serving.drawing import draw
from jaxnets.serving.predict import BATCH, load_predictor
from jaxnets.table import line, width_of

STDIN = "-"
MAX_STDIN = 1 << 28  # Bytes, as many as the largest picture has in RGB.


def answer(
    workdir: str,
    names: Sequence[str],
    *,
    top: int = 5,
    prepare_as: str = "auto",
    as_json: bool = False,
    show: bool = False,
) -> bool:
    """Predicts pictures and prints the predictions.

    Args:
      workdir: The run folder.
      names: Files, folders of pictures, or "-" for stdin.
      top: The number of classes to print for each picture.
      prepare_as: "auto", "digit" or "picture", as in `load_predictor`.
      as_json: Whether to print JSON.
      show: Whether to draw the image that the network sees.

    Returns:
      Whether every picture could be read; the others are reported on stderr.

    Raises:
      UserError: The run folder or the names are wrong.
    """
    if list(names).count(STDIN) > 1:
        raise UserError("expected - for stdin at most once")
    predictor = load_predictor(workdir, prepare_as)
    if not predictor.finished:
        _report(f"note: the run is not finished: its parameters are those of step {predictor.step}")
    printer = _Printer(predictor.class_names, top, as_json)
    all_good, batch = True, []

    def flush() -> None:
        if not batch:
            return
        probabilities = predictor.probabilities(np.stack([image for _, image in batch]))
        for (name, image), row in zip(batch, probabilities, strict=True):
            printer.prediction(name, row, predictor.seen(image) if show else None)
        batch.clear()

    side = WORK if predictor.as_digits else predictor.image_shape[0]
    for name, path in _files(names):
        try:
            if isinstance(path, BadPictureError):
                raise path
            batch.append((name, predictor.prepare(_read(path, side))))
        except BadPictureError as error:
            all_good = False
            flush()  # The pictures before it come first.
            _report(f"error: {name}: {error}")
        if len(batch) == BATCH:
            flush()
    flush()
    printer.close()
    return all_good


def _files(names: Sequence[str]) -> Iterator[tuple[str, Path | BadPictureError]]:
    """Yields each picture's name, and its file or why there is none."""
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    for name in names:
        path = Path(name)
        if name == STDIN or not path.is_dir():
            yield name, path
            continue
        try:
            files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in endings]
        except OSError as error:
            yield name, BadPictureError(error.strerror or str(error))
            continue
        files = [file for file in files if not file.name.startswith(".")]
        if not files:
            yield name, BadPictureError("no pictures in this folder")
        yield from ((str(file), file) for file in files)


def _read(path: Path, side: int) -> Image.Image:
    """Decodes a picture, from stdin if the path is "-"."""
    try:
        if str(path) != STDIN:
            return read_picture(path, side)
        content = sys.stdin.buffer.read(MAX_STDIN + 1)
        if len(content) > MAX_STDIN:
            raise BadPictureError(f"expected at most {MAX_STDIN:,} bytes, got more")
        return read_picture(content, side)
    except MemoryError:
        raise BadPictureError("not enough memory to decode it") from None


class _Printer:
    """Prints a table on a terminal, else lines of name, label and probability, or JSON."""

    def __init__(self, class_names: Sequence[str], top: int, as_json: bool):
        self._labels, self._top = class_names, top
        self._shown = [printable(name) for name in class_names]
        self._width = max(map(width_of, self._shown))
        self._json: list[dict[str, Any]] | None = [] if as_json else None
        self._is_terminal = sys.stdout.isatty()

    def prediction(self, name: str, probabilities: np.ndarray, seen: np.ndarray | None) -> None:
        """Prints the most probable classes, of equals the first; draws `seen` if given."""
        best = np.argsort(-probabilities, kind="stable")[: self._top]
        if self._json is not None:
            predictions = [
                {"label": self._labels[k], "probability": float(probabilities[k])} for k in best
            ]
            self._json.append({"image": name, "predictions": predictions})
            return
        if self._is_terminal:
            print(printable(name))
        if seen is not None:
            print(self._drawing(seen))
        for k in best:
            if self._is_terminal:
                cells = [self._shown[k], f"{probabilities[k]:.4f}"]
                print("    " + line(cells, [self._width, 0], "<<"))
            else:
                print(f"{printable(name)}\t{self._shown[k]}\t{probabilities[k]:.6f}")

    def _drawing(self, image: np.ndarray) -> str:
        blocks = (sys.stdout.encoding or "").lower().startswith("utf")
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        return draw(image, blocks=blocks, colour=self._is_terminal and not plain)

    def close(self) -> None:
        """Prints the JSON, which is one list."""
        if self._json is not None:
            print(json.dumps(self._json, indent=2))


def _report(line: str) -> None:
    sys.stdout.flush()
    print(printable(line), file=sys.stderr)
