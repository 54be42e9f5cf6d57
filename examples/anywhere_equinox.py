"""The lecture's CNN in Equinox, whose gradient comes from jaxnets's derivations.

pip install equinox
python examples/anywhere_equinox.py
"""

import equinox as eqx  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import optax

from jaxnets import as_function, load_dataset

conv, max_pool, relu = as_function("conv"), as_function("max_pool"), as_function("relu")
dense, cross_entropy = as_function("dense"), as_function("softmax_cross_entropy")


class Conv(eqx.Module):
    """A convolution 3x3 without padding; its fields are the arrays of the derivation."""

    kernel: jax.Array
    bias: jax.Array

    def __init__(self, inputs, outputs, key):
        self.kernel = jax.nn.initializers.he_normal()(key, (3, 3, inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x):
        return conv(vars(self), x, padding="VALID")


class Dense(eqx.Module):
    """A dense layer."""

    kernel: jax.Array
    bias: jax.Array

    def __init__(self, inputs, outputs, key):
        self.kernel = jax.nn.initializers.he_normal()(key, (inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x):
        return dense(vars(self), x)


class CNN(eqx.Module):
    """The network. As is usual in Equinox, it takes one image; jax.vmap gives it a batch."""

    conv1: Conv
    conv2: Conv
    hidden: Dense
    logits: Dense

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.conv1, self.conv2 = Conv(1, 32, keys[0]), Conv(32, 64, keys[1])
        self.hidden, self.logits = Dense(1600, 256, keys[2]), Dense(256, 10, keys[3])

    def __call__(self, image):
        """The logits [10] of an image [28, 28, 1] from 0 to 1."""
        x = image[None]  # The derivations expect a batch.
        for layer in (self.conv1, self.conv2):
            x = max_pool(relu(layer(x)), window=(2, 2), strides=(2, 2))
        x = relu(self.hidden(x.reshape(1, -1)))
        return self.logits(x)[0]


def loss_of(model, images, labels):
    """The mean cross-entropy."""
    return cross_entropy(jax.vmap(model)(images), labels).mean()


def main(steps=200):
    """Trains on MNIST for some seconds; returns the accuracy on the test images."""
    data = load_dataset("mnist")
    optimizer = optax.adam(1e-3)
    model = CNN(jax.random.key(0))
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def train_step(model, state, images, labels):
        gradient = eqx.filter_grad(loss_of)(model, images, labels)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    for step in range(steps):
        batch = slice(100 * step, 100 * step + 100)
        images, labels = data.train.images[batch], data.train.labels[batch]
        model, state = train_step(model, state, images, labels)

    logits = eqx.filter_jit(lambda model, images: jax.vmap(model)(images))
    guesses = logits(model, data.test.images[:2000]).argmax(axis=1)
    return float((guesses == data.test.labels[:2000]).mean())


if __name__ == "__main__":
    print(f"accuracy on 2,000 test images: {main():.3f}")
