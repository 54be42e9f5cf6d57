"""Training until the test accuracy is reached: a line of JSON after each epoch.

    python -m benchmarks.peers.until NAME [--images=N] [--epochs=N] [--target=0.995] [--mnist=DIR]

NAME is `keras` or `pytorch`, each the MNIST example of its library, or a way of the same network:
the recipe of `cnn` without shifts, ten epochs. A line holds the epoch, the accuracy on the test
images and the CPU seconds since the process began; the reader of the line takes the time. Sources:
keras.io/examples/vision/mnist_convnet, github.com/pytorch/examples/tree/main/mnist.
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers.networks import draw_params, network_of
from benchmarks.peers.ways import TRAINING, named
from jaxnets.data.datasets import Dataset
from jaxnets.data.load import load_dataset

SAME_EPOCHS = 10


def keras_example(data: Dataset, epochs: int) -> Iterator[float]:
    """Keras's example: 34,826 parameters, Adam, dropout 0.5, a tenth held back, 15 epochs."""
    import keras

    layers: Any = keras.layers
    train, test = data.train, data.test
    y_train, y_test = (keras.utils.to_categorical(part.labels, 10) for part in (train, test))
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    for _ in range(epochs or 15):
        model.fit(train.images, y_train, batch_size=128, validation_split=0.1, verbose=0)  # pyright: ignore
        yield model.evaluate(test.images, y_test, verbose=0)[1]  # pyright: ignore


def pytorch_example(folder: str, count: int | None, epochs: int) -> Iterator[float]:
    """PyTorch's example: 1,199,882 parameters, Adadelta, dropout, batches of 64, 14 epochs.

    On a CPU it does not shuffle. Its images come one by one through torchvision's transforms, from
    the unpacked files that torchvision keeps in the folder. With a count, only so many of each part
    are used.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader  # pyright: ignore[reportMissingImports]
    from torchvision import datasets, transforms  # pyright: ignore[reportMissingImports]

    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        """Two convolutions, a pool, two dense layers."""

        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
            self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
            self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
            x = torch.flatten(self.dropout1(x), 1)
            x = self.dropout2(F.relu(self.fc1(x)))
            return F.log_softmax(self.fc2(x), dim=1)

    torch.manual_seed(1)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    parts: list[Any] = [
        datasets.MNIST(folder, train=train, transform=transform) for train in (True, False)
    ]
    if count:
        parts = [torch.utils.data.Subset(part, range(count)) for part in parts]
    train_loader = DataLoader(parts[0], batch_size=64)
    test_loader = DataLoader(parts[1], batch_size=1000)
    model = Net()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for _ in range(epochs or 14):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            F.nll_loss(model(images), labels).backward()
            optimizer.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += int((model(images).argmax(dim=1) == labels).sum())
        yield correct / len(parts[1])
        scheduler.step()


def same_network(name: str, data: Dataset, epochs: int) -> Iterator[float]:
    """The network and recipe of `cnn`, one cycle, without shifts and weight decay."""
    network, way, epochs = network_of("cnn"), named(TRAINING, name), epochs or SAME_EPOCHS
    count = len(data.train) - len(data.train) % network.batch_size
    module, _, kind = way.place.partition(":")
    peer = getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)(
        network,
        draw_params(network),
        **way.options,
        cycle_steps=epochs * count // network.batch_size,
    )
    train, test = data.train[:count], data.test
    for _ in range(epochs):
        peer.epoch(train.images, train.labels)
        batches = np.array_split(np.arange(len(test)), max(1, len(test) // 1000))
        answers = [peer.predict(test.images[rows]).argmax(axis=1) for rows in batches]
        yield float(np.mean(np.concatenate(answers) == test.labels))


def main() -> None:
    """Trains until the target is reached or the epochs end."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int, default=0, help="by default the example's own")
    parser.add_argument("--target", type=float, default=0.995)
    parser.add_argument("--mnist", help="torchvision's folder with MNIST, for its example")
    flags = parser.parse_args()
    if flags.name == "pytorch":
        epochs = pytorch_example(flags.mnist, flags.images, flags.epochs)
    else:
        data = load_dataset("mnist", validation_size=0).limited(flags.images)
        if flags.name == "keras":
            epochs = keras_example(data, flags.epochs)
        else:
            epochs = same_network(flags.name, data, flags.epochs)
    for epoch, accuracy in enumerate(epochs, start=1):
        line = {"epoch": epoch, "accuracy": accuracy, "cpu": time.process_time()}
        print(json.dumps(line), flush=True)
        if accuracy >= flags.target:
            break
    os._exit(0)  # The time does not include a library's shutdown.


if __name__ == "__main__":
    main()
