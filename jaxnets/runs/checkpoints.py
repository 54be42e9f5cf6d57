"""Checkpoints: when a run saves one, how it is written and read, and which ones are kept.

A checkpoint is one safetensors file, which any tool reads: 8 bytes with the length of a JSON
header, the header with each array's dtype, shape and place, then the arrays without gaps.
Source: https://github.com/huggingface/safetensors#format.
"""

import itertools
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxnets.base.display import one_line
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.files import PARTIAL, replacing
from jaxnets.base.trees import Tree
from jaxnets.metrics import Metrics
from jaxnets.training.step import Checkpoint

FORMAT = {"format": "jaxnets checkpoint", "version": "1"}
NAME = re.compile(r"(0|[1-9][0-9]{0,17})\.safetensors")
# A network of a thousand layers has a header of half as many bytes.
MAX_HEADER_BYTES = 1 << 20
WARNED = 3  # Damaged checkpoints that are named, at most; an untrusted folder may hold thousands.


class CheckpointTimer:
    """Decides when the given steps, epochs or seconds have passed since the last save.

    Steps and epochs are counted from the run's start, so a resumed run saves where an uninterrupted
    one does.
    """

    def __init__(self, number: int, unit: str, steps_per_epoch: int, step: int):
        """Starts at a step; the unit is "steps", "epochs" or "seconds"."""
        self._seconds = float(number) if unit == "seconds" else None
        self._steps = number * (steps_per_epoch if unit == "epochs" else 1)
        self.saved(step)

    def saved(self, step: int) -> None:
        self._step, self._time = step, time.monotonic()

    def due(self, step: int, saving: bool = False) -> bool:
        """Whether to save; an interval in seconds waits while the last save is being written."""
        if self._seconds is not None:
            return not saving and time.monotonic() - self._time >= self._seconds
        return step // self._steps > self._step // self._steps


def all_finite(tree: object) -> bool:
    """Whether no element of any array is infinite or NaN."""
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


def path_of(folder: Path, step: int) -> Path:
    """The file of a step's checkpoint."""
    return folder / f"{step}.safetensors"


def steps_in(folder: Path) -> list[int]:
    """The steps whose checkpoints a folder holds, in ascending order."""
    names = os.listdir(folder) if folder.exists() else []
    return sorted(int(match[1]) for match in map(NAME.fullmatch, names) if match)


def prune(folder: Path, keep: int, records: Sequence[dict[str, Any]]) -> None:
    """Removes the checkpoints that `kept_steps` omits, and the remains of killed saves."""
    kept = {path_of(folder, s).name for s in kept_steps(steps_in(folder), keep, records)}
    for name in os.listdir(folder):
        if NAME.fullmatch(PARTIAL.sub("", name)) and name not in kept:
            (folder / name).unlink(missing_ok=True)


def kept_steps(steps: Sequence[int], keep: int, records: Sequence[dict[str, Any]]) -> set[int]:
    """The last `keep` of the ascending steps, and the most accurate one of those with a record.

    Step 0, which is saved before training, is kept while there is no other.
    """
    steps = [step for step in steps if step] or steps
    scores = {r["step"]: r["validation_accuracy"] for r in records}
    known = [step for step in steps if scores.get(step) is not None]
    best = max(known, key=lambda step: scores[step], default=None)
    return {step for step in steps if step == best or step in steps[-keep:]}


def tree_of(checkpoint: Checkpoint, num_classes: int) -> dict[str, Any]:
    """A checkpoint's arrays: without the key, which the seed determines, and zeros for None."""
    state = checkpoint.state
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "metrics": checkpoint.metrics or Metrics.zero(num_classes),
        "seconds": np.float64(checkpoint.seconds),
        "data_seconds": np.float64(checkpoint.data_seconds),
    }


def named_leaves(tree: object) -> dict[str, Any]:
    """The leaves of a tree by their paths, such as `params/conv1/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    if len(named) != len(leaves):
        raise ValueError("expected a tree whose paths differ")
    return named


def copied(tree: object) -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths, as `write` takes them."""
    return {name: np.array(leaf, order="C") for name, leaf in named_leaves(tree).items()}


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a whole checkpoint or nothing, with each array's CRC-32; arrays are in C order.

    The safetensors library is not used for writing: its killed saves leave files with random names,
    other users cannot read its files, and its error on a full disk has no number.
    """
    # The widest numbers come first: each is at a multiple of its width, as mapped memory requires.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    ends = list(itertools.accumulate((arrays[name].nbytes for name in names), initial=0))
    header: dict[str, Any] = {"__metadata__": {n: crc32(arrays[n]) for n in names} | FORMAT}
    for name, begin, end in zip(names, ends[:-1], ends[1:], strict=True):
        dtype, shape = form_of(arrays[name])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(arrays[name]))


def form_of(array: jax.ShapeDtypeStruct | jax.Array | np.ndarray) -> tuple[str, tuple[int, ...]]:
    """The dtype by its name in a header (F32, BF16, U8, BOOL), and the shape."""
    name, bits = array.dtype.name, 8 * array.dtype.itemsize
    names = {"bool": "BOOL", "bfloat16": "BF16"}
    return names.get(name, f"{name[0].upper()}{bits}"), tuple(array.shape)


def _bytes(array: np.ndarray) -> memoryview:
    """The array's own memory; bfloat16 has no buffer type."""
    return array.reshape(-1).view(np.uint8).data


def crc32(array: np.ndarray) -> str:
    """The CRC-32 of an array's bytes, in hexadecimal digits."""
    return f"{zlib.crc32(_bytes(array)):08x}"


def read_newest(
    paths: dict[int, Path], like: Tree, *, whole: bool, remove: bool
) -> tuple[int, Tree] | None:
    """Reads the first sound checkpoint: its step and its tree; None without any.

    Args:
      paths: The checkpoints by step, newest first.
      like: The structure to read.
      whole: Whether a checkpoint must hold nothing else, as in `read`.
      remove: Whether to remove the damaged ones that are newer.

    Raises:
      FileNotFoundError: A checkpoint no longer exists.
      UserError: All are damaged.
    """
    bad: dict[Path, Exception] = {}
    for step, path in paths.items():
        try:
            tree = read(path, like, whole=whole)
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            bad[path] = error
            continue
        for number, (file, error) in enumerate(bad.items()):
            if number < WARNED:
                line = f"{file}: cannot be restored: {first_line(error)}"
                print(one_line(f"warning: {line}; using step {step}"), file=sys.stderr)
            if remove and not isinstance(error, OSError):
                file.unlink()  # Unread ones may be sound.
        if len(bad) > WARNED:
            print(f"warning: {len(bad) - WARNED:,} more cannot be restored", file=sys.stderr)
        return step, tree
    for path, error in bad.items():
        raise UserError("{}: cannot be restored: {}", path, first_line(error))
    return None


def read(path: Path, like: Tree, *, whole: bool = True) -> Tree:
    """Reads a checkpoint as NumPy arrays in the structure of `like`.

    It may come from an untrusted source. Before memory is taken, the library checks the header
    against the file's size, and this function against `like`. A whole checkpoint must hold nothing
    else; otherwise its other parts are not read. Raises ValueError if it is damaged or has other
    arrays.
    """
    wanted = {name: form_of(leaf) for name, leaf in named_leaves(like).items()}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"expected a header of at most {MAX_HEADER_BYTES:,} bytes, found {length:,}"
        )
    try:
        # Read, not mapped: a mapped file that shrinks meanwhile would end the process.
        checkpoint = safe_open(path, framework="np", backend="pread")
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file: {first_line(error)}") from error
    with checkpoint:
        metadata = checkpoint.metadata() or {}
        if not FORMAT.items() <= metadata.items():
            raise ValueError(f"expected the metadata {FORMAT}, found {metadata!r:.80}")
        parts = {name.split("/")[0] for name in wanted}
        slices = {name: checkpoint.get_slice(name) for name in sorted(checkpoint.keys())}
        found = {
            name: (array.get_dtype(), tuple(array.get_shape()))
            for name, array in slices.items()
            if whole or name.split("/")[0] in parts
        }
        if found != wanted:
            name = min(name for name, _ in found.items() ^ wanted.items())
            raise ValueError(
                f"expected the network that config.json describes, found {name} as "
                f"{found.get(name, 'nothing')} for {wanted.get(name, 'nothing')}"
            )
        arrays = [_read_array(checkpoint, name, metadata.get(name)) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def _read_array(checkpoint: safe_open, name: str, checksum: str | None) -> np.ndarray:
    try:
        array = checkpoint.get_tensor(name)
    except SafetensorError as error:
        raise OSError(first_line(error)) from error
    if checksum != crc32(array):
        raise ValueError(f"{name}: expected the CRC-32 that it was saved with")
    return array
