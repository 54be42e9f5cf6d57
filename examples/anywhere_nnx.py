"""The lecture's CNN in Flax NNX, whose gradient nnx.grad takes from jaxnets's derivations.

python examples/anywhere_nnx.py
"""

import optax
from flax import nnx

from jaxnets import as_function, load_dataset

conv, max_pool, relu = as_function("conv"), as_function("max_pool"), as_function("relu")
dense, cross_entropy = as_function("dense"), as_function("softmax_cross_entropy")


def params_of(layer):
    """The arrays of an NNX layer, by the names that the derivations use."""
    return {"kernel": layer.kernel[...], "bias": layer.bias[...]}


class CNN(nnx.Module):
    """NNX makes and keeps the parameters; the derivations compute with them."""

    def __init__(self, rngs):
        he = nnx.initializers.he_normal()
        self.conv1 = nnx.Conv(1, 32, (3, 3), kernel_init=he, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), kernel_init=he, rngs=rngs)
        self.hidden = nnx.Linear(1600, 256, kernel_init=he, rngs=rngs)
        self.logits = nnx.Linear(256, 10, kernel_init=he, rngs=rngs)

    def __call__(self, images):
        """The logits [B, 10] of images [B, 28, 28, 1] from 0 to 1."""
        x = images
        for layer in (self.conv1, self.conv2):
            x = relu(conv(params_of(layer), x, padding="VALID"))
            x = max_pool(x, window=(2, 2), strides=(2, 2))
        x = relu(dense(params_of(self.hidden), x.reshape(len(x), -1)))
        return dense(params_of(self.logits), x)


def loss_of(model, images, labels):
    """The mean cross-entropy."""
    return cross_entropy(model(images), labels).mean()


@nnx.jit
def train_step(model, optimizer, images, labels):
    """One step of the optimizer."""
    optimizer.update(model, nnx.grad(loss_of)(model, images, labels))


def main(steps=200):
    """Trains on MNIST for some seconds; returns the accuracy on the test images."""
    data = load_dataset("mnist")
    model = CNN(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    for step in range(steps):
        batch = slice(100 * step, 100 * step + 100)
        train_step(model, optimizer, data.train.images[batch], data.train.labels[batch])

    guesses = nnx.jit(CNN.__call__)(model, data.test.images[:2000]).argmax(axis=1)
    return float((guesses == data.test.labels[:2000]).mean())


if __name__ == "__main__":
    print(f"accuracy on 2,000 test images: {main():.3f}")
