"""Flax and optax as in Flax's MNIST example: a linen module, a jitted step, a loop."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from benchmarks.peers.networks import ALEXNET, CHANNELS, Network, Params


class Model(nn.Module):
    """Any of the networks."""

    network: Network

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        network = self.network
        names = [f"hidden{number}" for number, _ in enumerate(network.hidden, start=1)]
        if network.model == "cnn":
            for number, features in enumerate(CHANNELS, start=1):
                x = nn.relu(nn.Conv(features, (3, 3), padding="VALID", name=f"conv{number}")(x))
                x = nn.max_pool(x, (2, 2), (2, 2))
            names = ["hidden"]
        elif network.model == "alexnet":
            for number, (features, window, stride, padding, pool) in enumerate(ALEXNET, start=1):
                shape, name = (window, window), f"conv{number}"
                x = nn.relu(nn.Conv(features, shape, stride, padding, name=name)(x))
                x = nn.max_pool(x, (3, 3), (2, 2)) if pool else x
            names = ["dense6", "dense7"]
        x = x.reshape(len(x), -1)
        for name, units in zip(names, network.hidden, strict=True):
            if network.model == "alexnet":
                x = nn.Dropout(network.dropout, deterministic=not train)(x)
            x = nn.relu(nn.Dense(units, name=name)(x))
        if network.model == "cnn":
            x = nn.Dropout(network.dropout, deterministic=not train)(x)
        return nn.Dense(network.num_classes, name="logits")(x)


@functools.partial(jax.jit, static_argnames="loss")
def train_step(state: TrainState, images: Any, labels: Any, key: Any, loss: str) -> TrainState:
    """One step of the optimizer."""

    def mean_loss(params: Any) -> Any:
        rngs = {"dropout": jax.random.fold_in(key, state.step)}
        logits = state.apply_fn({"params": params}, images, train=True, rngs=rngs)
        if loss == "mse":
            return jnp.square(nn.softmax(logits) - jax.nn.one_hot(labels, 10)).mean()
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return state.apply_gradients(grads=jax.grad(mean_loss)(state.params))


class Flax:
    """A network of Flax with given weights."""

    def __init__(self, network: Network, params: Params, cycle_steps=0):
        self.network, self.rng = network, np.random.default_rng(0)
        rate: Any = network.learning_rate
        if cycle_steps:
            rate = optax.cosine_onecycle_schedule(cycle_steps, rate)
        if network.optimizer == "rmsprop":
            tx = optax.rmsprop(rate, decay=0.9, eps=1e-7)
        else:
            tx = optax.sgd(rate, network.momentum or None, network.nesterov)
        apply: Any = Model(network).apply
        self.state = TrainState.create(apply_fn=apply, params=jax.device_put(params), tx=tx)
        self._predict = jax.jit(lambda params, x: nn.softmax(apply({"params": params}, x, False)))

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once."""
        order = self.rng.permutation(len(labels)).reshape(-1, self.network.batch_size)
        for rows in order:
            batch = images[rows], labels[rows]
            self.state = train_step(self.state, *batch, jax.random.key(0), self.network.loss)
        jax.block_until_ready(self.state)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        logits: Any = self.state.apply_fn({"params": self.state.params}, images, train=False)
        return np.asarray(logits)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities [N, K] of one batch."""
        return np.asarray(self._predict(self.state.params, images))
