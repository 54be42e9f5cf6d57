"""How a checkpoint is read; a run that is not resumed reads none and does not load this."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxnets.errors import first_line
from jaxnets.runs.checkpoints import FORMAT, crc32, form_of, named_leaves

# A network of a thousand layers has a header of half as many bytes.
MAX_HEADER_BYTES = 1 << 20


def read(path: Path, like: Any, *, whole: bool = True) -> Any:
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


def _read_array(checkpoint: Any, name: str, checksum: str | None) -> np.ndarray:
    try:
        array = checkpoint.get_tensor(name)
    except SafetensorError as error:
        raise OSError(first_line(error)) from error
    if checksum != crc32(array):
        raise ValueError(f"{name}: expected the CRC-32 that it was saved with")
    return array
