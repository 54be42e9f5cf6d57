"""Keras as in its guides: Sequential, compile, fit. KERAS_BACKEND chooses what it runs on."""

from typing import Any

import keras
import numpy as np

from benchmarks.peers.networks import (
    ALEXNET,
    CHANNELS,
    EPSILON,
    MOMENTUM,
    RESNET20,
    Network,
    Params,
)

layers: Any = keras.layers


def convolution(features: int, window: int = 3, stride: int = 1) -> list[Any]:
    """A convolution of resnet20, padded by half its window, and its batch norm."""
    made: list[Any] = [layers.ZeroPadding2D(window // 2)] if stride > 1 and window > 1 else []
    padded = "valid" if stride > 1 else "same"
    made.append(layers.Conv2D(features, window, stride, padded, use_bias=False))
    return [*made, layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)]


class Block(layers.Layer):
    """A residual block."""

    def __init__(self, features: int, stride: int):
        super().__init__()
        first, second = convolution(features, 3, stride), convolution(features)
        self.chain = keras.Sequential([*first, layers.ReLU(), *second])
        shortcut = convolution(features, 1, stride) if stride > 1 else [layers.Identity()]
        self.shortcut = keras.Sequential(shortcut)

    def call(self, x: Any) -> Any:
        return keras.ops.relu(self.chain(x) + self.shortcut(x))


def build(network: Network) -> Any:
    """The network; `logits` is its last layer with weights."""
    made: list[Any] = [keras.Input(network.image_shape)]
    if network.model == "cnn":
        for features in CHANNELS:
            made += [layers.Conv2D(features, 3, activation="relu"), layers.MaxPooling2D(2)]
        made += [layers.Flatten(), layers.Dense(network.hidden[0], activation="relu")]
        made.append(layers.Dropout(network.dropout))
    elif network.model == "alexnet":
        for features, window, stride, padding, pool in ALEXNET:
            if stride > 1:  # Keras's "same" pads by a different rule there.
                made.append(layers.ZeroPadding2D(padding))
            padded = "valid" if stride > 1 else "same"
            made.append(layers.Conv2D(features, window, stride, padded, activation="relu"))
            made += [layers.MaxPooling2D(3, 2)] if pool else []
        made.append(layers.Flatten())
        for units in network.hidden:
            made += [layers.Dropout(network.dropout), layers.Dense(units, activation="relu")]
    elif network.model == "resnet20":
        made += [*convolution(16), layers.ReLU()]
        made += [Block(features, stride) for features, stride in RESNET20]
        made.append(layers.GlobalAveragePooling2D())
    else:
        made.append(layers.Flatten())
        made += [layers.Dense(units, activation="relu") for units in network.hidden]
    made.append(layers.Dense(network.num_classes, name="logits"))
    if network.loss == "mse":
        made.append(layers.Softmax())
    return keras.Sequential(made)


class Keras:
    """A network of Keras with given weights."""

    def __init__(self, network: Network, params: Params, steps_per_execution=1, cycle_steps=0):
        self.network, self.model = network, build(network)
        self.labels: Any = None
        self.model.set_weights([x for layer in params.values() for x in layer.values()])
        rate: Any = network.learning_rate
        if cycle_steps:
            rise = round(0.3 * cycle_steps)
            rate = keras.optimizers.schedules.CosineDecay(
                rate / 25, cycle_steps - rise, warmup_target=rate, warmup_steps=rise
            )
        if network.optimizer == "rmsprop":
            optimizer: Any = keras.optimizers.RMSprop(rate)
        else:
            optimizer = keras.optimizers.SGD(rate, network.momentum, network.nesterov)
        loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(
            optimizer=optimizer,
            loss="mse" if network.loss == "mse" else loss,
            steps_per_execution=steps_per_execution,
        )

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once; the labels are the same in every call."""
        if self.labels is None:
            mse = self.network.loss == "mse"
            self.labels = keras.utils.to_categorical(labels, 10) if mse else labels
        self.model.fit(images, self.labels, self.network.batch_size, epochs=1, verbose=0)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        logits = keras.Model(self.model.inputs[0], self.model.get_layer("logits").output)
        return np.asarray(logits.predict_on_batch(images))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Outputs [N, K] of one batch."""
        return np.asarray(self.model.predict_on_batch(images))
