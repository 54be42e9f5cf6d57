"""What a run folder, which may be anybody's, is held to before it is used.

Of a checkpoint the library would take as much memory as it declares, and its process would end
where there is not so much; it would read whatever file a link leads to, and fill in zeros for what
is missing.
"""

import contextlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError

# Arrays may be declared of so many bytes, and so many times those of the files: parameters hardly
# shrink when they are packed, the optimiser's zeros do.
MAX_SLACK_BYTES, MAX_RATIO = 64 << 20, 100
# How much of a description is read: of a network of a thousand layers it is a tenth.
MOST = 16 << 20
DTYPE = re.compile(r"[<|>][biuf][1-8]|bfloat16")


def check_only_files(folder: Path) -> None:
    """Holds a folder to files and folders, however deep: no links, pipes or devices.

    Raises:
      UserError: There is another thing; a link could lead out, and a pipe would be waited for.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:  # Those of a run that is going on come and go.
            if entry.is_dir(follow_symlinks=False):
                check_only_files(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                what = "a link" if entry.is_symlink() else "neither"
                raise UserError(f"{entry.path}: expected a file or a folder, found {what}")


def read_json(path: Path) -> dict[str, Any]:
    """A file's one object.

    Raises:
      UserError: It cannot be read, or is something else.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected an object of JSON, found a {type(values).__name__}")
    return values


def read_records(path: Path) -> list[dict[str, Any]]:
    """The epochs' records of a metrics.jsonl.

    Raises:
      UserError: It is damaged.
    """
    try:
        # A crash may have cut the last line short: only lines with their end count.
        lines = path.read_text("utf-8").split("\n")[:-1]
        records = [json.loads(line) for line in lines]
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


def first_line(error: Exception) -> str:
    """Of what a library says, which may be a page or nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_declared_sizes(folder: Path) -> None:
    """Holds the arrays that a checkpoint declares to the bytes that it has.

    Args:
      folder: Of one checkpoint's arrays.

    Raises:
      ValueError: They are kept in another way than ours are, declared larger than its files could
        hold, or not whole. The library's own errors are ValueErrors too.
      OSError: It cannot be read.
    """
    import tensorstore

    real = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    described = json.loads((folder / "_METADATA").read_bytes())
    if described["use_ocdbt"] is not True or described.get("use_zarr3", False) is not False:
        raise ValueError("expected arrays in one database of zarr 2, found others")
    base = {"driver": "file", "path": f"{folder}/"}
    database = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = {bytes(key).decode() for key in database.list().result()}
    declared = 0
    for name in sorted(key for key in keys if key.endswith("/.zarray")):
        array = json.loads(_value(database, name))
        shape, chunks, dtype = array["shape"], array["chunks"], array["dtype"]
        if not (_are_sizes(shape) and _are_sizes(chunks) and len(shape) == len(chunks)):
            raise ValueError(f"{name}: expected sizes, found {shape!r:.80} in {chunks!r:.80}")
        if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
            raise ValueError(f"{name}: expected numbers, found {dtype!r:.80}")
        if any(chunk > max(size, 1) for size, chunk in zip(shape, chunks, strict=True)):
            raise ValueError(f"{name}: expected pieces of {shape} at most, found {chunks}")
        declared += 8 * math.prod(shape)
        pieces = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
        start = name.removesuffix(".zarray")
        found = sum(key.startswith(start) for key in keys) - 1
        if found != pieces:
            raise ValueError(f"{name}: expected {pieces} pieces, found {found}")
    if declared > MAX_SLACK_BYTES + MAX_RATIO * real:
        raise ValueError(f"declares arrays of {declared:,} bytes, its files have {real:,}")


def _value(database: Any, key: str) -> bytes:
    value = database.read(key).result().value
    if len(value) > MOST:
        raise ValueError(f"{key}: expected at most {MOST:,} bytes, found {len(value):,}")
    return bytes(value)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value > 0 for value in values)
