"""Checkpoints: one safetensors file each, which any tool reads.

The first 8 bytes are the length of a header of JSON. The header has each array's dtype, shape and
place; the arrays follow without gaps. Source: https://github.com/huggingface/safetensors#format.

Files are written and read here rather than by that library: it copies all arrays once more to
write them, and maps the file to read it, so that a file that shrinks meanwhile ends the process.
"""

import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.runs.atomic import replacing

FORMAT = {"format": "jaxnets checkpoint", "version": "1"}
NAME = re.compile(r"(0|[1-9][0-9]{0,17})\.safetensors")
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": "f8", "F32": "f4", "BF16": jnp.bfloat16, "I64": "i8", "I32": "i4", "I16": "i2",
        "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
    }.items()
}  # fmt: skip
# A network of a thousand layers has a header of half as many bytes.
MAX_HEADER_BYTES = 1 << 20
MAX_RANK, MAX_SIZE = 32, 2**48


def path_of(folder: Path, step: int) -> Path:
    """The file of a step's checkpoint."""
    return folder / f"{step}.safetensors"


def steps_in(folder: Path) -> list[int]:
    """The steps whose checkpoints a folder holds, in ascending order.

    Raises:
      ValueError: It holds those of an older version, which are folders.
      OSError: It cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    steps = sorted(int(match[1]) for match in map(NAME.fullmatch, names) if match)
    old = [name for name in names if name.isdecimal()]
    if old and not steps:
        raise ValueError(
            f"expected files STEP.safetensors, found {old[0]}: an older version of jaxnets saved "
            "it with Orbax; resume with that version, or train anew with --overwrite"
        )
    return steps


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, as `params/conv1/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    if len(named) != len(leaves):
        raise ValueError("expected a tree whose paths differ")
    return named


# Writing


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a whole checkpoint or nothing, with each array's CRC-32.

    Args:
      path: The new file.
      arrays: The arrays by name, in C order.

    Raises:
      OSError: The file could not be written.
    """
    # The widest numbers first: each lies at a multiple of its width, as mapped memory needs.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    ends = list(itertools.accumulate((arrays[name].nbytes for name in names), initial=0))
    header: dict[str, Any] = {
        "__metadata__": {**{name: _crc32(arrays[name]) for name in names}, **FORMAT}
    }
    for name, begin, end in zip(names, ends[:-1], ends[1:], strict=True):
        dtype, shape = _form(arrays[name])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(arrays[name]))


def _form(array: Any) -> tuple[str, tuple[int, ...]]:
    """The dtype, by its name in a header, and the shape."""
    names = [name for name, dtype in DTYPES.items() if dtype == array.dtype]
    return names[0], tuple(array.shape)


def _bytes(array: np.ndarray) -> memoryview:
    """The array's own memory; of bfloat16, which has no buffer of its own, too."""
    return array.reshape(-1).view(np.uint8).data


def _crc32(array: np.ndarray) -> str:
    return f"{zlib.crc32(_bytes(array)):08x}"


def prune(folder: Path, keep: int, records: Sequence[dict[str, Any]]) -> None:
    """Removes the checkpoints that `kept_steps` leaves out, and what killed saves have left."""
    kept = {path_of(folder, s).name for s in kept_steps(steps_in(folder), keep, records)}
    for name in os.listdir(folder):
        if NAME.fullmatch(name.removesuffix(".partial")) and name not in kept:
            (folder / name).unlink(missing_ok=True)


def kept_steps(steps: Sequence[int], keep: int, records: Sequence[dict[str, Any]]) -> set[int]:
    """The last `keep` of the steps, and the one of the best validation accuracy.

    Args:
      steps: The checkpoints' steps, in ascending order.
      keep: How many stay, beside the best.
      records: The epochs' records; a step in the middle of an epoch has none.
    """
    scores = {r["step"]: r["validation_accuracy"] for r in records}
    known = [step for step in steps if scores.get(step) is not None]
    best = max(known, key=lambda step: scores[step], default=None)
    return {step for step in steps if step == best or step in steps[-keep:]}


# Reading


def read(path: Path, like: Any, *, whole: bool = True) -> Any:
    """Reads a checkpoint, which may be anybody's.

    The header is compared with the file's real size and with `like` before memory is taken.

    Args:
      path: The file.
      like: The structure, shapes and dtypes that are wanted.
      whole: Whether the file must hold nothing else; otherwise other parts of it are left unread.

    Returns:
      NumPy arrays in the structure of `like`.

    Raises:
      ValueError: The file is damaged or has other arrays; the message says what was expected.
      RecursionError: Its header is nested too deeply.
      OSError: It cannot be read.
    """
    wanted = {name: _form(leaf) for name, leaf in named_leaves(like).items()}
    with path.open("rb") as file:
        entries, checksums, start = _read_header(file)
        parts = {name.split("/")[0] for name in wanted}
        found = {n: e.form for n, e in entries.items() if whole or n.split("/")[0] in parts}
        if found != wanted:
            name = min(found.items() ^ wanted.items())[0]
            raise ValueError(
                f"expected the network that config.json describes, found {name} as "
                f"{found.get(name, 'nothing')} for {wanted.get(name, 'nothing')}"
            )
        arrays = []
        for name in wanted:
            array = _read_array(file, start, entries[name])
            if checksums.get(name) != _crc32(array):
                raise ValueError(f"{name}: expected the CRC-32 that it was saved with")
            arrays.append(array)
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


class Entry(NamedTuple):
    """An array's bytes, counted from the header's end, and its `_form`."""

    begin: int
    end: int
    form: tuple[str, tuple[int, ...]]


def _read_array(file: BufferedReader, start: int, entry: Entry) -> np.ndarray:
    dtype, shape = entry.form
    array = np.empty(shape, DTYPES[dtype])
    file.seek(start + entry.begin)
    if file.readinto(_bytes(array)) != array.nbytes:
        raise ValueError("the file became shorter while it was read")
    return array


def _read_header(file: BufferedReader) -> tuple[dict[str, Entry], dict[str, Any], int]:
    """The arrays' entries, their checksums, and where the first array begins."""
    size = os.fstat(file.fileno()).st_size
    length, most = int.from_bytes(file.read(8), "little"), min(size - 8, MAX_HEADER_BYTES)
    if length > most or size < 8:
        raise ValueError(f"expected a header of at most {most:,} bytes, found {length:,}")
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not FORMAT.items() <= metadata.items():
        raise ValueError(f"expected the metadata {FORMAT}, found {metadata!r:.80}")
    entries = {name: _parse_entry(name, fields) for name, fields in header.items()}
    position = 0
    for name, (begin, end, (dtype, shape)) in sorted(entries.items(), key=lambda item: item[1]):
        expected = position, position + DTYPES[dtype].itemsize * math.prod(shape)
        if (begin, end) != expected:
            raise ValueError(f"{name}: expected the bytes {expected}, found {(begin, end)}")
        position = end
    if (found := size - 8 - length) != position:
        raise ValueError(f"expected {position:,} bytes of arrays, found {found:,}")
    return entries, metadata, 8 + length


def _parse_entry(name: str, fields: Any) -> Entry:
    match fields:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if (
            dtype in DTYPES
            and len(shape) <= MAX_RANK
            and all(type(n) is int and 0 <= n < MAX_SIZE for n in (*shape, begin, end))
        ):
            return Entry(begin, end, (dtype, tuple(shape)))
    raise ValueError(f"{name}: expected a dtype, a shape and two offsets, found {fields!r:.80}")
