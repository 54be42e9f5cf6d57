"""The file that a command writes."""

from pathlib import Path

from jaxnets.errors import UserError


def output_path(output: str) -> Path:
    """The path of a file that may be written; UserError before any work is done."""
    path = Path(output).expanduser()
    if path.exists() and not path.is_file():
        raise UserError(f"output: expected a file, {output} is none")
    if not path.parent.is_dir():
        raise UserError(f"output: no such folder: {path.parent}")
    return path
