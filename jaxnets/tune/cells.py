"""Cells: the pieces of a search, each with its result in a file.

FOLDER/cells/<digest>.json is named by the digest of everything that determines the result, so any
process may train any cell, and training one twice does no harm.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets.base.errors import UserError
from jaxnets.base.files import mkdir, read_json, write_text
from jaxnets.config.fields import Config
from jaxnets.config.options import name_of
from jaxnets.tune.results import to_json

FOLDER = "cells"
Cell = dict[str, Any]  # Everything that determines a result, as in JSON.


def cell(config: Config | None, checksum: str, **others: Any) -> Cell:
    """The cell of a training.

    Fields with default values are omitted: a field of a later version changes no digest.

    Args:
      config: A network's settings, including the seed.
      checksum: The digest of the data set.
      others: Whatever else determines the result.
    """
    defaults = {name: field.default for name, field in Config.__dataclass_fields__.items()}
    values = {} if config is None else vars(config)
    changed = {n: name_of(x) for n, x in values.items() if x != defaults[n]}
    return json.loads(json.dumps({"config": changed, "data": checksum, **others}))


def digest(of: Cell) -> str:
    """The name of a cell's file."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]


def write(folder: Path, program: Sequence[Cell], results: Sequence[dict[str, Any]]) -> None:
    """Writes the results of the cells that one compiled program has trained."""
    mkdir(folder / FOLDER)
    names = list(map(digest, program))
    for name, of, result in zip(names, program, results, strict=True):
        text = to_json({"of": of, "program": names, "result": result})
        write_text(folder / FOLDER / f"{name}.json", text)


def read(folder: Path) -> dict[str, tuple[Cell, dict[str, Any]]]:
    """The cells that are done, and their results, by their names.

    Cells of one program count only when all of them exist. So cells that a killed process did not
    finish are trained again in the same program; a smaller program's results differ in the last
    bits.

    Raises:
      UserError: A file is damaged, or another cell's.
    """
    found, programs = {}, {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        kept = read_json(path)
        of, result, program = (kept.get(name) for name in ("of", "result", "program"))
        is_whole = isinstance(program, list) and all(isinstance(name, str) for name in program)
        if not (is_whole and isinstance(of, dict) and isinstance(result, dict)):
            raise UserError("{}: damaged: expected a cell", path)
        if digest(of) != path.stem:
            raise UserError("{}: damaged: its content has another digest", path)
        found[path.stem], programs[path.stem] = (of, result), program
    return {name: x for name, x in found.items() if all(n in found for n in programs[name])}
