"""Runs an exported network in a separate process, where Flax cannot be imported.

python -m jaxnets.export.prove FORMAT FILE PAIRS.npz prints the largest difference of a
logit. The pairs are arrays `images0`, `logits0`, `images1`, ...: batches and their logits.
"""

import sys
from collections.abc import Callable

import numpy as np

Forward = Callable[[np.ndarray], np.ndarray]


def main(kind: str, path: str, pairs: str) -> None:
    """Prints the largest difference over all batches."""
    sys.modules["flax"] = None  # type: ignore (an import of it fails)
    forward = {"safetensors": _safetensors, "stablehlo": _stablehlo, "onnx": _onnx}[kind](path)
    with np.load(pairs) as arrays:
        numbers = range(len(arrays.files) // 2)
        found = [forward(arrays[f"images{n}"]) - arrays[f"logits{n}"] for n in numbers]
    print(max(float(np.abs(difference).max()) for difference in found))


def _safetensors(path: str) -> Forward:
    from jaxnets.export import archive

    read = archive.read(path)
    return lambda images: archive.logits(read, images)


def _stablehlo(path: str) -> Forward:
    import jax.export

    with open(path, "rb") as stream:
        network = jax.export.deserialize(bytearray(stream.read()))
    return lambda images: np.asarray(network.call(images))


def _onnx(path: str) -> Forward:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"images": images})[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
