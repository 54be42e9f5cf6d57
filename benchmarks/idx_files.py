"""Writes IDX files for the benchmarks (jaxnets/data/idx.py has the format, and reads them)."""

import struct

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of numbers from 0 to 255 as an IDX file's content."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()
