"""Flax and optax as in Flax's MNIST example: a linen module, a jitted step, a loop."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from flax.traverse_util import unflatten_dict

from benchmarks.peers.networks import (
    ALEXNET,
    CHANNELS,
    EPSILON,
    MOMENTUM,
    RESNET20,
    Network,
    Params,
)


class TrainState(train_state.TrainState):
    """Flax's, and the running statistics of the batch norms."""

    batch_stats: Any


def convolution(
    x: Any, features: int, name: str, train: bool, window: int = 3, stride: int = 1
) -> Any:
    """In the call of a module: a convolution of resnet20 and its batch norm."""
    shape, norm = (window, window), name.replace("conv", "norm")
    x = nn.Conv(features, shape, stride, window // 2, use_bias=False, name=name)(x)
    return nn.BatchNorm(not train, momentum=MOMENTUM, epsilon=EPSILON, name=norm)(x)


class Block(nn.Module):
    """A residual block."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        features, stride = self.features, self.stride
        y = nn.relu(convolution(x, features, "chain_conv1", train, 3, stride))
        y = convolution(y, features, "chain_conv2", train)
        if stride > 1:
            x = convolution(x, features, "shortcut_conv1", train, 1, stride)
        return nn.relu(x + y)


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
        elif network.model == "resnet20":
            x = nn.relu(convolution(x, 16, "conv1", train))
            for number, (features, stride) in enumerate(RESNET20, start=1):
                x = Block(features, stride, name=f"residual{number}")(x, train)
            x = x.mean((1, 2))
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
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = state.apply_fn(
            variables, images, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        batch_stats = updates.get("batch_stats", {})
        if loss == "mse":
            return jnp.square(nn.softmax(logits) - jax.nn.one_hot(labels, 10)).mean(), batch_stats
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), batch_stats

    grads, batch_stats = jax.grad(mean_loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=batch_stats)


def variables_of(params: Params) -> dict[str, Any]:
    """The weights as Flax keeps them: the statistics apart, and each block with its own layers."""
    found: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for layer, arrays in params.items():
        *block, rest = layer.split("/", 1)
        for name, array in arrays.items():
            kind = "batch_stats" if name in ("mean", "var") else "params"
            found[kind][*block, rest.replace("/", "_"), name] = array
    return {kind: unflatten_dict(arrays) for kind, arrays in found.items()}


class Flax:
    """A network of Flax with given weights."""

    def __init__(self, network: Network, params: Params, cycle_steps=0):
        self.network, self.rng = network, np.random.default_rng(0)
        model: Any = Model(network)
        rate: Any = network.learning_rate
        if cycle_steps:
            rate = optax.cosine_onecycle_schedule(cycle_steps, rate)
        if network.optimizer == "rmsprop":
            tx = optax.rmsprop(rate, decay=0.9, eps=1e-7)
        else:
            tx = optax.sgd(rate, network.momentum or None, network.nesterov)
        # Every other library draws first weights when it builds a network.
        blank = jnp.ones((1, *network.image_shape), jnp.float32)
        jax.jit(model.init, static_argnames="train")(jax.random.key(0), blank, train=False)
        self.state = TrainState.create(
            apply_fn=model.apply, tx=tx, **jax.device_put(variables_of(params))
        )
        self._predict = jax.jit(lambda variables, x: nn.softmax(model.apply(variables, x, False)))

    @property
    def variables(self) -> dict[str, Any]:
        """Weights and statistics."""
        return {"params": self.state.params, "batch_stats": self.state.batch_stats}

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once."""
        order = self.rng.permutation(len(labels)).reshape(-1, self.network.batch_size)
        for rows in order:
            batch = images[rows], labels[rows]
            self.state = train_step(self.state, *batch, jax.random.key(0), self.network.loss)
        jax.block_until_ready(self.state)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        return np.asarray(self.state.apply_fn(self.variables, images, train=False))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities [N, K] of one batch."""
        return np.asarray(self._predict(self.variables, images))
