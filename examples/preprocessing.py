"""How the size of the pixels affects the learning rate: bytes, [0, 1], and standardized.

    python examples/preprocessing.py     about a minute on one core

Softmax regression learns from the first 10,000 training images of MNIST, two epochs of SGD in
batches of 100. The weights begin at 0, so that all forms begin with the same outputs. The pixels
come as bytes, divided by 255, or standardized: minus their mean, divided by their standard
deviation, both of the training images. Each number is the accuracy on the validation images, the
mean of three seeds.
"""

import flax.linen as nn
import numpy as np

import jaxnets
from jaxnets import Chain, flatten
from jaxnets.models.alexnet_layers import Normalize

RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SEEDS = range(3)


def pixel_forms(images):
    """For each form, what it subtracts from pixels in [0, 1] and by what it then divides."""
    return {
        "bytes": Normalize((0.0,), (1 / 255,)),
        "[0, 1]": Normalize((0.0,), (1.0,)),
        "standardized": Normalize((float(images.mean()),), (float(images.std()),)),
    }


def accuracy(form, data, rate, seed):
    """The validation accuracy of softmax regression after two epochs at a learning rate."""
    network = jaxnets.Network(
        Chain([form, flatten, nn.Dense(10, kernel_init=nn.initializers.zeros, name="logits")]),
        data,
        optimizer="sgd",
        learning_rate=rate,
        schedule="constant",
        batch_size=100,
        epochs=2,
        seed=seed,
    )
    return network.fit(verbose=0)["val_accuracy"][-1]


def main():
    """Prints a row for each form of the pixels, a column for each rate."""
    data = jaxnets.load_dataset("mnist").limited(10_000)
    print(f"{'pixels':12}", *(f"{rate:7g}" for rate in RATES))
    for name, form in pixel_forms(data.train.images).items():
        means = [np.mean([accuracy(form, data, rate, seed) for seed in SEEDS]) for rate in RATES]
        print(f"{name:12}", *(f"{mean:7.3f}" for mean in means), flush=True)


if __name__ == "__main__":
    main()
