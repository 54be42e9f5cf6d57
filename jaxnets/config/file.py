"""Reads flags from a file: TOML, or the config.json of a run."""

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets.base.errors import UserError, first_line
from jaxnets.base.files import read_json
from jaxnets.base.words import right_name
from jaxnets.config.fields import SINGLE_PROCESS, Config
from jaxnets.config.options import Options, option, parse
from jaxnets.config.resolve import preset
from jaxnets.config.unknown import field_words, unknown_flag

MAX_BYTES = 1 << 20  # Of TOML.
# Fields of config.json that belong to the run that wrote it: where it was kept, and how it began.
OF_THE_RUN = ("workdir", "overwrite", "resume", *SINGLE_PROCESS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigFile(Options):
    """The flag that goes with those of Config."""

    config: str | None = option(
        None, "file with flags, TOML or a run's config.json; flags on the line win", metavar="FILE"
    )


def read_flags(path: str, over: Sequence[str] = ()) -> dict[str, Any]:
    """The flags in a file, by their names, as `parse_flags` returns them.

    Args:
      path: A TOML file whose keys are flags (`batch_size = 32`, `hidden = [128, 64]`), the
        config.json of a run, or its run folder. TOML may come through a pipe, as `<(command)` and
        /dev/stdin are.
      over: The fields that are searched over, as "hidden=4,8": the file does not set these.

    Raises:
      UserError: The file is missing, is not TOML or JSON, or holds something else.
    """
    if not path:
        raise UserError("config: expected a file, got an empty name")
    file = Path(path).expanduser()
    if file.is_dir():
        file /= "config.json"
    is_json = file.suffix.lower() == ".json"
    values = read_json(file) if is_json else _read_toml(file)
    try:
        given = _of_run(values) if is_json else _parsed(values)
    except UserError as error:
        raise UserError("config: {}: {}", file, error) from None
    searched = {right_name(text.partition("=")[0], given) for text in over}
    return {name: value for name, value in given.items() if name not in searched}


def _read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file, or of a pipe."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)  # A pipe may never end.
        if len(text) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        return tomllib.loads(text.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            "config: expected a TOML file, found {}: {}", file, first_line(error)
        ) from error


def _parsed(values: dict[str, Any]) -> dict[str, Any]:
    """TOML's values as those of Config: a text as on the command line, a list as a tuple."""
    fields, given = Config.__dataclass_fields__, {}
    for key, value in values.items():
        if (name := right_name(key, fields)) is None:
            raise unknown_flag(key, field_words(fields))
        if isinstance(value, str):
            value = parse(fields[name], value)
        given[name] = tuple(value) if isinstance(value, list) else value
    preset(**given)  # It raises if a value is out of range.
    return given


def _of_run(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of Config in a config.json, which also describes the machine and the data."""
    if "model" not in values:
        raise UserError("expected that of a run, found no model in it")
    names = [field.name for field in dataclasses.fields(Config) if field.name in values]
    given = {name: values[name] for name in names if name not in OF_THE_RUN}
    lists = [name for name, x in given.items() if isinstance(x, list) and name != "layers"]
    given |= {name: tuple(given[name]) for name in lists}
    Config(**given)  # It raises if a value is out of range.
    if given.get("schedule") != "plateau":
        given.pop("patience", None)
    return given
