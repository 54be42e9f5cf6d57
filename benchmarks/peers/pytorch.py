"""PyTorch as in its tutorials: nn.Sequential, an optimizer, zero_grad, backward, step.

The batches are rows of one tensor in a random order, which is faster than a DataLoader.
"""

from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from benchmarks.peers.networks import (
    ALEXNET,
    CHANNELS,
    EPSILON,
    MOMENTUM,
    RESNET20,
    Network,
    Params,
)

nn, F = torch.nn, torch.nn.functional
NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def convolution(inputs: int, features: int, window: int = 3, stride: int = 1) -> list[Any]:
    """A convolution of resnet20 and its batch norm, whose running variance is the unbiased one."""
    conv = nn.Conv2d(inputs, features, window, stride, window // 2, bias=False)
    return [conv, nn.BatchNorm2d(features, EPSILON, 1 - MOMENTUM)]


class Block(nn.Module):
    """A residual block."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        first, second = convolution(inputs, features, 3, stride), convolution(features, features)
        self.chain = nn.Sequential(*first, nn.ReLU(), *second)
        shortcut = convolution(inputs, features, 1, stride) if stride > 1 else []
        self.shortcut = nn.Sequential(*shortcut)  # Without layers it returns its input.

    def forward(self, x: Any) -> Any:
        return F.relu(self.chain(x) + self.shortcut(x))


def build(network: Network) -> Any:
    """The network from torch.nn's layers; alexnet is torchvision's."""
    classes, p = network.num_classes, network.dropout
    if network.model == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, CHANNELS[0], 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(CHANNELS[0], CHANNELS[1], 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(5 * 5 * CHANNELS[1], network.hidden[0]),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(network.hidden[0], classes),
        )
    if network.model == "alexnet":
        layers, channels = [], 3
        for features, window, stride, padding, pool in ALEXNET:
            layers += [nn.Conv2d(channels, features, window, stride, padding), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if pool else []
            channels = features
        layers += [nn.AdaptiveAvgPool2d(6), nn.Flatten()]
        inputs = 6 * 6 * channels
        for units in network.hidden:
            layers += [nn.Dropout(p), nn.Linear(inputs, units), nn.ReLU()]
            inputs = units
        return nn.Sequential(*layers, nn.Linear(inputs, classes))
    if network.model == "resnet20":
        layers, channels = [*convolution(3, 16), nn.ReLU()], 16
        for features, stride in RESNET20:
            layers.append(Block(channels, features, stride))
            channels = features
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        return nn.Sequential(*layers)
    layers, inputs = [nn.Flatten()], int(np.prod(network.image_shape))
    for units in network.hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def set_params(model: Any, params: Params) -> None:
    """Gives the layers their weights; after a convolution a dense layer's rows are permuted."""
    layers = [layer for layer in model.modules() if hasattr(layer, "weight")]
    channels = 0
    for layer, arrays in zip(layers, params.values(), strict=True):
        others = dict(arrays)
        kernel = others.pop("kernel", None)
        if kernel is not None:
            if kernel.ndim == 4:
                channels, weight = kernel.shape[3], kernel.transpose(3, 2, 0, 1)
            else:
                if channels:  # [H, W, C] in a row in Flax, [C, H, W] here.
                    rows = kernel.reshape(-1, channels, kernel.shape[1]).swapaxes(0, 1)
                    kernel, channels = rows.reshape(kernel.shape), 0
                weight = kernel.T
            layer.weight.data = torch.from_numpy(weight.copy())
        for name, array in others.items():
            getattr(layer, NAMES[name]).data = torch.from_numpy(array.copy())


class PyTorch:
    """A network of PyTorch with given weights."""

    def __init__(
        self, network: Network, params: Params, channels_last=False, compiled=False, cycle_steps=0
    ):
        self.network = network
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        model = build(network)
        set_params(model, params)
        self.model = model = model.to(memory_format=self.memory)
        self.run = torch.compile(model) if compiled else model
        rate, parameters = network.learning_rate, model.parameters()
        if network.optimizer == "rmsprop":
            self.optimizer = torch.optim.RMSprop(parameters, rate, alpha=0.9, eps=1e-7)
        else:
            options: dict[str, Any] = dict(momentum=network.momentum, nesterov=network.nesterov)
            self.optimizer = torch.optim.SGD(parameters, rate, **options)
        self.scheduler: Any = None
        if cycle_steps:
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, rate, total_steps=cycle_steps, cycle_momentum=False
            )
        self.data: Any = None

    def images(self, images: np.ndarray) -> Any:
        """Images [N, H, W, C] as a tensor [N, C, H, W]."""
        tensor = torch.from_numpy(images.transpose(0, 3, 1, 2))
        return tensor.contiguous(memory_format=self.memory)

    def loss(self, logits: Any, labels: Any) -> Any:
        """The mean loss of a batch."""
        if self.network.loss == "mse":
            return F.mse_loss(logits.softmax(dim=1), F.one_hot(labels, 10).float())
        return F.cross_entropy(logits, labels)

    def epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Trains on the images once; they are the same in every call."""
        if self.data is None:
            self.data = self.images(images), torch.from_numpy(labels).long()
        x, y = self.data
        self.model.train()
        for rows in torch.randperm(len(y)).split(self.network.batch_size):
            loss = self.loss(self.run(x[rows]), y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's logits [N, K]."""
        self.model.eval()
        with torch.inference_mode():
            return self.run(self.images(images)).numpy()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities [N, K] of one batch."""
        self.model.eval()
        with torch.inference_mode():
            return self.run(self.images(images)).softmax(dim=1).numpy()
