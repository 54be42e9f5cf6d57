"""scikit-learn's MLPClassifier: dense networks, sgd or adam, always the logarithmic loss."""

import warnings
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier  # pyright: ignore[reportMissingImports]

from benchmarks.peers.networks import Network, Params


class ScikitLearn:
    """A dense network of scikit-learn with given weights; adam stands for RMSprop."""

    def __init__(self, network: Network, params: Params):
        self.network = network
        create: Any = MLPClassifier  # Its stubs know no number as batch_size.
        self.model = create(
            hidden_layer_sizes=network.hidden,
            solver="sgd" if network.optimizer == "sgd" else "adam",
            alpha=0.0,
            batch_size=network.batch_size,
            learning_rate_init=network.learning_rate,
            momentum=network.momentum,
            nesterovs_momentum=network.nesterov,
            random_state=0,
        )
        # It draws its weights in the first call; those given take their places.
        inputs = int(np.prod(network.image_shape))
        few = np.zeros((network.num_classes, inputs), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The batch is larger than these images.
            self.model.partial_fit(few, np.arange(10), classes=np.arange(10))
        for place, layer in enumerate(params.values()):
            self.model.coefs_[place][...] = layer["kernel"]
            self.model.intercepts_[place][...] = layer["bias"]

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once."""
        self.model.partial_fit(images.reshape(len(images), -1), labels)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The logarithms of its probabilities [N, K]: logits but for a constant in each row."""
        return self.model.predict_log_proba(images.reshape(len(images), -1))
