"""`python -m jaxnets predict`: reads the pictures of the command line and prints predictions."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jaxnets.base.display import NOT_FINISHED, line, printable, show, width_of
from jaxnets.base.errors import ERROR, UserError
from jaxnets.base.language import _, said
from jaxnets.data.pictures.decode import FORMATS, BadPictureError, read_picture
from jaxnets.data.pictures.folder import ending_of, note_unread
from jaxnets.predict.predict import BATCH, best_classes, load_predictor

STDIN = "-"
LEVELS = 2  # Levels of subfolders: classes, or parts such as train with their classes.
MAX_STDIN = 1 << 26  # Bytes, kept in memory with the decoded picture.

Best = list[dict[str, Any]]  # The most probable classes: {"label": ..., "probability": ...}.


def answer(
    workdir: str,
    names: Sequence[str],
    *,
    top: int = 5,
    prepare_as: str = "auto",
    engine: str = "jax",
    as_json: bool = False,
) -> bool:
    """Prints predictions for files, folders of pictures and "-" for stdin.

    Pictures that cannot be read are reported on stderr. Returns whether all were read.
    """
    if list(names).count(STDIN) > 1:
        raise UserError("expected - for stdin at most once")
    predictor = load_predictor(workdir, prepare_as, engine)
    if not predictor.finished:
        _report(_(NOT_FINISHED, predictor.step))
    labels = predictor.class_names
    width = max(width_of(printable(label)) for label in labels)
    each = prepare_as == "digits"
    all_good, batch, answers = True, [], []

    def flush() -> None:
        images = [image for _name, lines in batch for line in lines for image in line]
        rows = iter(predictor.probabilities(images))
        for name, lines in batch:
            found = [[best_classes(next(rows), labels, top) for _image in line] for line in lines]
            if as_json:
                answers.append({"image": name, **_to_values(found, each)})
            elif each:
                _print_each(name, found)
            else:
                _print(name, found[0][0], width)
        batch.clear()

    for name, path in _files(names):
        try:
            if isinstance(path, BadPictureError):
                raise path
            batch.append((name, predictor.prepare_each(_read(path, predictor.decode_size))))
        except BadPictureError as error:
            all_good = False
            flush()  # The pictures before it come first.
            _report(f"{_(ERROR)} {name}: {said(error)}")
        if each or len(batch) == BATCH:
            flush()
    flush()
    if as_json:
        print(json.dumps(answers, indent=2))
    return all_good


def _to_values(found: list[list[Best]], each: bool) -> dict[str, Any]:
    """The JSON values of a picture: its classes, or its text and each character's classes."""
    if not each:
        return {"predictions": found[0][0]}
    characters = [
        {"line": number, "predictions": best}
        for number, line in enumerate(found, 1)
        for best in line
    ]
    return {"text": "\n".join(map(_text, found)), "characters": characters}


def _text(line: list[Best]) -> str:
    """The characters of a line; classes with longer names are separated by spaces."""
    labels = [best[0]["label"] for best in line]
    return ("" if all(len(label) == 1 for label in labels) else " ").join(labels)


def _files(names: Sequence[str]) -> Iterator[tuple[str, Path | BadPictureError]]:
    """Yields each picture's name, and its file, or an error if it has none."""
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    unread: Counter[str] = Counter()
    for name in names:
        path, found = Path(name), False
        if name == STDIN or not path.is_dir():
            yield name, path
            continue
        for file in _in_folder(path, endings, unread, LEVELS):
            found = True
            yield file
        if not found:
            yield name, BadPictureError("no pictures in this folder, and none in its folders")
    note_unread(unread)


def _in_folder(
    folder: Path, endings: set[str], unread: Counter[str], levels: int
) -> Iterator[tuple[str, Path | BadPictureError]]:
    """Yields a folder's pictures; if it has none, those of its subfolders, up to this depth."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    except OSError as error:
        yield str(folder), BadPictureError(error.strerror or str(error))
        return
    files = [entry for entry in entries if not entry.is_dir()]
    unread.update(ending_of(file.name) for file in files if file.suffix.lower() not in endings)
    files = [file for file in files if file.suffix.lower() in endings]
    yield from ((str(file), file) for file in files)
    if levels and not files:
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():  # A link may lead back to the folder.
                yield from _in_folder(entry, endings, unread, levels - 1)


def _read(path: Path, side: int) -> Image.Image:
    """Decodes a picture, from stdin if the path is "-"."""
    try:
        content = sys.stdin.buffer.read(MAX_STDIN + 1) if str(path) == STDIN else path
        if isinstance(content, bytes) and len(content) > MAX_STDIN:
            raise BadPictureError("expected at most {} bytes, got more", f"{MAX_STDIN:,}")
        return read_picture(content, side)
    except MemoryError:
        raise BadPictureError("not enough memory to decode it") from None


def _print(name: str, best: Best, width: int) -> None:
    """Prints a table on a terminal, otherwise lines of name, label and probability."""
    is_terminal = sys.stdout.isatty()
    if is_terminal:
        print(printable(name))
    for prediction in best:
        label, probability = printable(prediction["label"]), prediction["probability"]
        if is_terminal:
            print("    " + line([label, f"{probability:.4f}"], [width, 0], "<<"))
        else:
            print(f"{printable(name)}\t{label}\t{probability:.6f}")


def _print_each(name: str, found: list[list[Best]]) -> None:
    """Prints each line of characters with probabilities; on a terminal, each one's classes."""
    is_terminal = sys.stdout.isatty()
    if is_terminal:
        print(printable(name))
    for line_found in found:
        text = printable(_text(line_found))
        if is_terminal:
            print(f"    {text}")
            for best in line_found:
                cells = [f"{printable(one['label'])} {one['probability']:.4f}" for one in best]
                show("    " + "   ".join(cells))
        if not is_terminal:
            sure = [f"{best[0]['probability']:.6f}" for best in line_found]
            print("\t".join([printable(name), text, *sure]))


def _report(line: str) -> None:
    sys.stdout.flush()
    print(printable(line), file=sys.stderr)
