"""The archive of a run: a safetensors file that NumPy alone can run.

Its metadata are texts of JSON: `layers` (kind, numbers, output shape), `config`, `class_names`,
`image_shape`. Its arrays are float32, named as "conv1.kernel".
"""

import json
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

Images = np.ndarray  # [B, H, W, C]
Arrays = dict[str, np.ndarray]


class Archive(NamedTuple):
    """The content of an archive."""

    metadata: dict[str, Any]
    arrays: Arrays


def to_bytes(archive: Archive) -> bytes:
    """The content of an archive's file, the same bytes for the same archive."""
    content = save(archive.arrays)
    begin = 8 + int.from_bytes(content[:8], "little")  # Of the arrays, behind the header.
    # The library would write the metadata in an order of chance.
    texts = {name: json.dumps(value) for name, value in archive.metadata.items()}
    header = json.dumps({"__metadata__": texts, **json.loads(content[8:begin])}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[begin:]


def read(path: str) -> Archive:
    """Reads an archive."""
    with safe_open(path, "numpy") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        return Archive(metadata, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no dict)


def logits(archive: Archive, images: Images) -> np.ndarray:
    """The network's forward pass in NumPy.

    Args:
      archive: What `read` returns.
      images: Pictures [B, H, W, C] of the metadata's image_shape, float32 from 0 to 1.

    Returns:
      The logits [B, K], float32.
    """
    x = np.asarray(images, np.float32)
    for layer in archive.metadata["layers"]:
        x = LAYERS[layer["kind"]](x, layer, archive.arrays)
    return x


def _center_crop(x: Images, layer: dict, arrays: Arrays) -> Images:
    height, width, _ = layer["shape"]
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def _enlarge(x: Images, layer: dict, arrays: Arrays) -> Images:
    """Bilinear interpolation; grey is repeated to three channels."""
    rows, columns = (_interpolation(layer["size"], size) for size in x.shape[1:3])
    x = np.einsum("ih,jw,bhwc->bijc", rows, columns, x, optimize=True)
    return np.broadcast_to(x, (*x.shape[:3], 3))


def _interpolation(size: int, old: int) -> np.ndarray:
    """[size, old]: line i has the weights of the old pixels beside the new pixel's centre."""
    place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(old)), 0).astype(np.float32)


def _normalize(x: Images, layer: dict, arrays: Arrays) -> Images:
    mean, std = (np.array(layer[name], np.float32) for name in ("mean", "std"))
    return (x - mean) / std


def _windows(x: Images, window: tuple[int, int], stride: int) -> np.ndarray:
    """Every window of the pictures: [B, h, w, C, rows, columns]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, window, axis=(1, 2))
    return windows[:, ::stride, ::stride]


def _conv(x: Images, layer: dict, arrays: Arrays) -> Images:
    """out[b, i, j, k] = sum of the window at (i, j) times kernel k, plus the bias of k."""
    kernel, bias = (arrays[f"{layer['name']}.{name}"] for name in ("kernel", "bias"))
    side, groups = (layer["padding"],) * 2, layer["groups"]
    windows = _windows(np.pad(x, ((0, 0), side, side, (0, 0))), layer["window"], layer["stride"])
    parts = zip(np.split(windows, groups, axis=3), np.split(kernel, groups, axis=3), strict=True)
    out = [np.tensordot(part, k, axes=((4, 5, 3), (0, 1, 2))) for part, k in parts]
    return np.concatenate(out, axis=3) + bias


def _max_pool(x: Images, layer: dict, arrays: Arrays) -> Images:
    return _windows(x, (layer["window"],) * 2, layer["stride"]).max(axis=(4, 5))


def _adaptive_average_pool(x: Images, layer: dict, arrays: Arrays) -> Images:
    """Cell i is the mean of rows floor(i H / size) to ceil((i + 1) H / size) - 1."""
    for axis in (1, 2):
        old, size = x.shape[axis], layer["size"]
        cells = [range(i * old // size, -(-(i + 1) * old // size)) for i in range(size)]
        x = np.stack([x.take(cell, axis).mean(axis) for cell in cells], axis)
    return x


def _local_response_norm(x: Images, layer: dict, arrays: Arrays) -> Images:
    n = layer["n"]
    squares = np.pad(x * x, ((0, 0),) * 3 + ((n // 2, (n - 1) // 2),))
    sums = np.lib.stride_tricks.sliding_window_view(squares, n, axis=3).sum(axis=4)
    return x * (layer["k"] + layer["alpha"] * sums) ** -layer["beta"]


def _flatten(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return x.reshape(len(x), -1)


def _dense(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    bias = arrays.get(f"{layer['name']}.bias", np.float32(0))
    return x @ arrays[f"{layer['name']}.kernel"] + bias


def _relu(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return np.maximum(x, 0)


def _sigmoid(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _softmax(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


LAYERS = {
    "center_crop": _center_crop,
    "enlarge": _enlarge,
    "normalize": _normalize,
    "conv": _conv,
    "max_pool": _max_pool,
    "adaptive_average_pool": _adaptive_average_pool,
    "local_response_norm": _local_response_norm,
    "flatten": _flatten,
    "dense": _dense,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}
