"""The exercises that a student has passed: a small text file in the folder of the student's files.

Each line is an exercise's name, so a student can remove a tick by hand. Any other text in the file
is kept.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxnets.base.display import one_line
from jaxnets.base.errors import UserError
from jaxnets.base.files import write_text
from jaxnets.base.language import _
from jaxnets.course.exercises.catalogue import EXERCISES
from jaxnets.course.exercises.files import read_source

FILE = "exercises-passed.txt"


def passed_in(folder: Path) -> set[str]:
    """The exercises that are ticked in a folder; one line on stderr if the file is unreadable."""
    try:
        return EXERCISES.keys() & _lines(_read(folder / FILE))
    except (OSError, UserError) as error:
        _note(_("note: no ticks are shown: {}", error))
        return set()


def tick(folder: Path, names: Sequence[str]) -> None:
    """Notes in a folder that exercises are passed.

    A failure here does not undo a passed check: one line on stderr says that the tick was not kept.
    """
    path = folder / FILE
    try:
        text = _read(path)
        new = [name for name in names if name not in _lines(text)]
        if new:
            before = text + "\n" if text and not text.endswith("\n") else text
            write_text(path, before + "".join(f"{name}\n" for name in new))
    except (OSError, UserError) as error:
        _note(_("note: the tick was not kept: {}", error))


def _read(path: Path) -> str:
    return read_source(str(path)) if path.is_symlink() or path.exists() else ""


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


def _note(text: str) -> None:
    print(one_line(text), file=sys.stderr, flush=True)
