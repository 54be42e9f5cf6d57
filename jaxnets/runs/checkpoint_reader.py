"""Reads checkpoints."""

import sys
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxnets.display import one_line
from jaxnets.errors import UserError, first_line
from jaxnets.runs.checkpoints import FORMAT, crc32, form_of, named_leaves
from jaxnets.trees import Tree

# A network of a thousand layers has a header of half as many bytes.
MAX_HEADER_BYTES = 1 << 20
WARNED = 3  # Damaged checkpoints that are named; an untrusted folder may hold thousands.


def read_newest(
    paths: dict[int, Path], like: Tree, *, whole: bool, remove: bool
) -> tuple[int, Tree] | None:
    """Reads the first sound checkpoint: its step and its tree; None without any.

    Args:
      paths: The checkpoints by step, newest first.
      like: The structure to read.
      whole: Whether a checkpoint must hold nothing else, as in `read`.
      remove: Whether to remove the damaged ones before it.

    Raises:
      FileNotFoundError: One is not there any more.
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
                file.unlink()  # What is not read may be sound.
        if len(bad) > WARNED:
            print(f"warning: {len(bad) - WARNED:,} more cannot be restored", file=sys.stderr)
        return step, tree
    for path, error in bad.items():
        raise UserError(f"{path}: cannot be restored: {first_line(error)}")
    return None


def read(path: Path, like: Tree, *, whole: bool = True) -> Tree:
    """Reads a checkpoint as NumPy arrays in the structure of `like`.

    It may come from an untrusted source. Before memory is taken, the library checks the header
    against the file's size, and this function against `like`. A whole checkpoint must hold nothing
    else; otherwise its other parts are not read. ValueError if it is damaged or has other arrays.
    """
    wanted = {name: form_of(leaf) for name, leaf in named_leaves(like).items()}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"expected a header of at most {MAX_HEADER_BYTES:,} bytes, found {length:,}"
        )
    try:
        # Reads: a mapped file that shrinks meanwhile would end the process.
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
