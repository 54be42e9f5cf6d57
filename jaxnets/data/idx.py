"""IDX files, the format of MNIST and of the data sets made in its image.

A file is a big-endian header (magic number 0x0000 0x08 rank, then one 32-bit size per dimension)
followed by unsigned bytes. Source: Y. LeCun, "The MNIST database", section "File formats".
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from jaxnets.errors import UserError

UNSIGNED_BYTE = 0x08
CHUNK = 1 << 20


def read_idx(path: Path, rank: int, sha256: str | None = None) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzip.

    Args:
      path: The file; gzip is recognised by its first two bytes, not by its name.
      rank: The number of dimensions that the file must have: 3 for images, 1 for labels.
      sha256: The digest that the file as it lies on the disk must have, if known.

    Returns:
      A uint8 array with the dimensions of the header.

    Raises:
      UserError: The file is missing, unreadable, truncated, too long, of another form, or its
        digest differs.
    """
    try:
        if sha256 is not None:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != sha256:
                raise UserError(f"{path}: damaged: expected SHA-256 {sha256}, found {digest}")
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            return _parse(path, stream, rank)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(path: Path, stream, rank: int) -> np.ndarray:
    """Reads the header and exactly as many bytes as it promises."""
    size = 4 + 4 * rank
    header = stream.read(size)
    if len(header) < size:
        raise UserError(f"{path}: expected an IDX header of {size} bytes, found {len(header)}")
    zeros, kind, dimensions = struct.unpack(">HBB", header[:4])
    if zeros != 0 or kind != UNSIGNED_BYTE or dimensions != rank:
        raise UserError(
            f"{path}: expected an IDX file of unsigned bytes with {rank} dimension(s) "
            f"(magic number {UNSIGNED_BYTE << 8 | rank:#06x}), found {header[:4].hex()}"
        )
    shape = struct.unpack(f">{rank}I", header[4:])
    if 0 in shape:
        raise UserError(f"{path}: empty: its header gives the shape {shape}")
    # Read in pieces: a header may promise more than the machine has memory for.
    wanted, pieces, found = math.prod(shape), [], 0
    while found <= wanted and (piece := stream.read(CHUNK)):
        pieces.append(piece)
        found += len(piece)
    if found != wanted:
        came = "more" if found > wanted else f"{found}"
        raise UserError(f"{path}: its header promises {shape}, {wanted} bytes; it holds {came}")
    return np.frombuffer(b"".join(pieces), np.uint8).reshape(shape)
