"""Only NumPy: dense networks, forward and backward written out, as in a first course."""

import numpy as np

from benchmarks.peers.networks import Network, Params


class NumPy:
    """A dense network in NumPy with given weights."""

    def __init__(self, network: Network, params: Params):
        self.network, self.rng = network, np.random.default_rng(0)
        self.kernels = [layer["kernel"].copy() for layer in params.values()]
        self.biases = [layer["bias"].copy() for layer in params.values()]
        self.squares = [np.zeros_like(x) for x in (*self.kernels, *self.biases)]

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """Every layer's input, and the logits last."""
        outputs = [x]
        for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            z = outputs[-1] @ kernel + bias
            is_last = number + 1 == len(self.kernels)
            outputs.append(z if is_last else np.maximum(z, 0))
        return outputs

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once."""
        x, y = images.reshape(len(images), -1), np.eye(10, dtype=np.float32)[labels]
        for rows in self.rng.permutation(len(y)).reshape(-1, self.network.batch_size):
            self.step(x[rows], y[rows])

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        """One step of the optimizer."""
        *inputs, logits = self.forward(x)
        p = softmax(logits)
        d = p - y
        if self.network.loss == "mse":
            d = 2 * p * (d - (d * p).sum(axis=1, keepdims=True)) / y.shape[1]
        d /= np.float32(len(y))
        d_kernels, d_biases = [], []
        for number in reversed(range(len(self.kernels))):
            d_kernels.insert(0, inputs[number].T @ d)
            d_biases.insert(0, d.sum(axis=0))
            if number:
                d = d @ self.kernels[number].T * (inputs[number] > 0)
        params = [*self.kernels, *self.biases]
        gradients = [*d_kernels, *d_biases]
        rate = np.float32(self.network.learning_rate)
        for param, gradient, square in zip(params, gradients, self.squares, strict=True):
            if self.network.optimizer == "rmsprop":
                square *= np.float32(0.9)
                square += np.float32(0.1) * gradient * gradient
                gradient = gradient / np.sqrt(square + np.float32(1e-7))
            param -= rate * gradient

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        return self.forward(images.reshape(len(images), -1))[-1]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities [N, K] of one batch."""
        return softmax(self.logits(images))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Each row's probabilities."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
