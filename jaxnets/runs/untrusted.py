"""What a run folder, which may be anybody's, must be before it is used."""

import json
import os
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError

MAX_JSON_BYTES = 64 << 20


def check_only_files(folder: Path) -> None:
    """Checks that a folder holds files and folders only, however deep: no links, pipes or devices.

    Raises:
      UserError: It holds another thing, or cannot be read. A link could lead out of the folder,
        and a pipe would be waited for.
    """
    folders = [str(folder)]
    while folders:
        path = folders.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        what = "a link" if entry.is_symlink() else "neither"
                        raise UserError(f"{entry.path}: expected a file or a folder, found {what}")
        except FileNotFoundError:  # The entries of a run that is being trained come and go.
            continue
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A file's one object.

    Raises:
      UserError: It cannot be read, is larger than MAX_JSON_BYTES, or is something else.
    """
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"expected at most {MAX_JSON_BYTES:,} bytes, found {size:,}")
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected an object of JSON, found a {type(values).__name__}")
    return values


def read_records(path: Path) -> list[dict[str, Any]]:
    """The epochs' records of a metrics.jsonl.

    Raises:
      UserError: It cannot be read or is damaged.
    """
    try:
        # A crash may have cut the last line short: only lines with their end count.
        lines = path.read_text("utf-8").split("\n")[:-1]
        records = [json.loads(line) for line in lines]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: {error}") from error
    for number, record in enumerate(records, start=1):
        if not _is_record(record):
            raise UserError(f"{path}: damaged: expected an epoch's record in line {number}")
    return records


def _is_record(record: Any) -> bool:
    """Whether it has what is read of an epoch's record: whole numbers, and finite ones."""
    if not isinstance(record, dict) or "validation_accuracy" not in record:
        return False
    whole: list[Any] = [record.get(name) for name in ("epoch", "step")]
    finite: list[Any] = [record.get(name) for name in ("seconds", "train_loss", "train_accuracy")]
    if record["validation_accuracy"] is not None:
        finite.append(record["validation_accuracy"])
    return all(type(n) is int for n in whole) and all(
        type(n) in (int, float) and abs(n) < 2**63 for n in (*whole, *finite)
    )
