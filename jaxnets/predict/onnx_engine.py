"""ONNX Runtime computes the logits in JAX's place: one picture takes it less time."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnets.base.errors import not_installed
from jaxnets.predict import portable
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.pixels import to_float


def onnx_logits(trained: TrainedNetwork) -> Callable[[np.ndarray], np.ndarray]:
    """The network in ONNX Runtime, on the CPU: images [B, H, W, C] -> logits [B, K] float32.

    Raises:
      UserError: A package is missing, or ONNX cannot hold a layer.
    """
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise not_installed(name, "export")
    import onnxruntime

    from jaxnets.predict import onnx_file

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # A second thread wakes up later than one picture is done.
    content = onnx_file.to_bytes(portable.portable_network(trained), {})
    session: Any = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])

    def logits(images: np.ndarray) -> np.ndarray:
        pixels = to_float(images).astype(np.float32, copy=False)
        return session.run([onnx_file.OUTPUT], {onnx_file.INPUT: pixels})[0]

    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Each class's probability, [B, K]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
