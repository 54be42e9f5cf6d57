"""jaxnets: its own training loop and its own predictor."""

from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from benchmarks.peers.networks import Network, Params
from jaxnets.config.resolve import preset
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import set_up_jax
from jaxnets.networks.create import create_model
from jaxnets.predict.predict import to_predictor
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.training.step import Checkpoint

ENDLESS = 10**5  # Epochs that a config may have at most.


class Jaxnets:
    """A network of jaxnets with given weights."""

    def __init__(self, network: Network, params: Params, gradients="auto", cpu_devices=None):
        self.network, self.params = network, unflatten_dict(params, sep="/")
        self._epochs, self._predictor = None, None
        size = dict(input_size=network.image_shape[0]) if network.model == "alexnet" else {}
        fixed = ("softmax", "alexnet", "resnet20")  # They have no sizes to set.
        hidden = dict(hidden=network.hidden) if network.model not in fixed else {}
        dropout = dict(dropout=network.dropout) if network.model in ("cnn", "alexnet") else {}
        normalize: dict[str, Any] = dict(normalize="none") if network.model == "resnet20" else {}
        self.config = preset(
            network.model,
            **size,
            **hidden,
            **dropout,
            **normalize,
            batch_size=network.batch_size,
            gradients=gradients,
            cpu_devices=cpu_devices,
            epochs=ENDLESS,
            schedule="constant",
            augment="none",
            weight_decay=0.0,
            validation_size=0,
        )

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once; they are the same in every call."""
        if self._epochs is None:
            train, none = Split(images, labels), Split(images[:0], labels[:0])
            data = Dataset("benchmark", self.network.num_classes, train, none, train[:1], "")
            experiment = Experiment.create(self.config, data)
            state = experiment.init_state()
            params = experiment.parallel.replicate(jax.tree.map(np.copy, self.params))
            self._epochs = experiment.epochs(Checkpoint(state.replace(params=params)))
        state, _ = next(self._epochs)
        self.state: Any = jax.block_until_ready(state)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        params = self.state.params if self._epochs is not None else self.params
        model = create_model(self.config, self.network.num_classes)
        return np.asarray(model.apply({"params": params}, images))

    def trained(self) -> TrainedNetwork:
        """The network as it is read from a run's folder."""
        set_up_jax(None, self.config.precision)
        classes, shape = self.network.num_classes, self.network.image_shape
        model, names = create_model(self.config, classes), tuple(map(str, range(classes)))
        return TrainedNetwork(self.config, model, self.params, shape, names, 0, True)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities [N, K] of one batch, by what `jaxnets.load_predictor` returns."""
        if self._predictor is None:
            self._predictor = to_predictor(self.trained())
        return self._predictor.probabilities(images)
