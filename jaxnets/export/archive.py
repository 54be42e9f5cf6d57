"""The archive of a run: a safetensors file that NumPy alone can run.

Its metadata are JSON texts: `layers` (kind, numbers, output shape), `config`, `class_names`,
`image_shape`. Its arrays are float32, with names such as "conv1.kernel".
"""

import json
from collections.abc import Sequence
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
    # The library would write the metadata in a random order.
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
    return _chain(np.asarray(images, np.float32), archive.metadata["layers"], archive.arrays)


def _chain(x: np.ndarray, layers: list[dict], arrays: Arrays) -> np.ndarray:
    for layer in layers:
        x = LAYERS[layer["kind"]](x, layer, arrays)
    return x


def _residual(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    """The chain's output plus the shortcut's; a shortcut without layers is the identity."""
    return _chain(x, layer["chain"], arrays) + _chain(x, layer["shortcut"], arrays)


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
    """[size, old]: line i has the weights of the old pixels around the new pixel's centre."""
    place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(old)), 0).astype(np.float32)


def _normalize(x: Images, layer: dict, arrays: Arrays) -> Images:
    mean, std = (np.array(layer[name], np.float32) for name in ("mean", "std"))
    return (x - mean) / std


def _windows(x: Images, window: Sequence[int], stride: int | Sequence[int]) -> np.ndarray:
    """Every window of the pictures: [B, h, w, C, rows, columns]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, tuple(window), axis=(1, 2))
    down, right = np.broadcast_to(stride, 2)
    return windows[:, ::down, ::right]


def _conv(x: Images, layer: dict, arrays: Arrays) -> Images:
    """out[b, i, j, k] = sum of the window at (i, j) times kernel k, plus the bias of k."""
    kernel, groups = arrays[f"{layer['name']}.kernel"], layer["feature_group_count"]
    pads = np.broadcast_to(layer["padding"], (2, 2))  # (top, bottom), (left, right).
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = _windows(x, layer["kernel_size"], layer["strides"])
    parts = zip(np.split(windows, groups, axis=3), np.split(kernel, groups, axis=3), strict=True)
    out = [np.tensordot(part, k, axes=((4, 5, 3), (0, 1, 2))) for part, k in parts]
    return np.concatenate(out, axis=3) + arrays.get(f"{layer['name']}.bias", np.float32(0))


def _max_pool(x: Images, layer: dict, arrays: Arrays) -> Images:
    return _windows(x, (layer["window"],) * 2, layer["stride"]).max(axis=(4, 5))


def _average_pool(x: Images, layer: dict, arrays: Arrays) -> Images:
    return _windows(x, (layer["window"],) * 2, layer["stride"]).mean(axis=(4, 5))


def _global_average_pool(x: Images, layer: dict, arrays: Arrays) -> np.ndarray:
    return x.mean(axis=(1, 2))


def _adaptive_average_pool(x: Images, layer: dict, arrays: Arrays) -> Images:
    """Cell i is the mean of rows floor(i H / size) to ceil((i + 1) H / size) - 1."""
    for axis in (1, 2):
        old, size = x.shape[axis], layer["size"]
        cells = [range(i * old // size, -(-(i + 1) * old // size)) for i in range(size)]
        x = np.stack([x.take(cell, axis).mean(axis) for cell in cells], axis)
    return x


def _local_response_norm(x: Images, layer: dict, arrays: Arrays) -> Images:
    n = layer["n"]
    squares = np.pad(x * x, ((0, 0),) * (x.ndim - 1) + ((n // 2, (n - 1) // 2),))
    sums = np.lib.stride_tricks.sliding_window_view(squares, n, axis=-1).sum(axis=-1)
    return x * (layer["k"] + layer["alpha"] * sums) ** -layer["beta"]


def _flatten(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return x.reshape(len(x), -1)


def _dense(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    bias = arrays.get(f"{layer['name']}.bias", np.float32(0))
    return x @ arrays[f"{layer['name']}.kernel"] + bias


def _batch_norm(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    scale, bias, mean, var = _of(layer, arrays, "scale", "bias", "mean", "var")
    return scale * (x - mean) / np.sqrt(var + np.float32(layer["epsilon"])) + bias


def _layer_norm(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    scale, bias = _of(layer, arrays, "scale", "bias")
    x = x - x.mean(axis=-1, keepdims=True)
    var = (x * x).mean(axis=-1, keepdims=True)
    return scale * x / np.sqrt(var + np.float32(layer["epsilon"])) + bias


def _of(layer: dict, arrays: Arrays, *names: str) -> list[np.ndarray]:
    return [arrays[f"{layer['name']}.{name}"] for name in names]


def _relu(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return np.maximum(x, 0)


def _leaky_relu(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return np.where(x > 0, x, np.float32(layer["slope"]) * x)


def _sigmoid(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _tanh(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return np.tanh(x)


def _gelu(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    """The form with tanh, not the one with the error function."""
    u = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x**3)
    return x * (1 + np.tanh(u)) / 2


def _softmax(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


LAYERS = {
    "center_crop": _center_crop,
    "enlarge": _enlarge,
    "normalize": _normalize,
    "conv": _conv,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "global_average_pool": _global_average_pool,
    "adaptive_average_pool": _adaptive_average_pool,
    "local_response_norm": _local_response_norm,
    "flatten": _flatten,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "residual": _residual,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
    "softmax": _softmax,
}
