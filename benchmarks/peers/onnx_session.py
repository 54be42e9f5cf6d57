"""ONNX Runtime on the file that `jaxnets export --format=onnx` writes."""

from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]

from benchmarks.peers.networks import Network, Params
from benchmarks.peers.ours import Jaxnets
from jaxnets.export.export import content_of


class OnnxRuntime:
    """A network in ONNX Runtime with given weights; it only predicts."""

    def __init__(self, network: Network, params: Params):
        self.session: Any = onnxruntime.InferenceSession(
            content_of(Jaxnets(network, params).trained(), "onnx"),
            providers=["CPUExecutionProvider"],
        )
        self.name = self.session.get_inputs()[0].name

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        return self.session.run(None, {self.name: images})[0]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits [N, K] of one batch."""
        return self.logits(images)
