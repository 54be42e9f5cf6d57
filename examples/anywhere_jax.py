"""The lecture's CNN in plain JAX, whose gradient jax.grad takes from jaxnets's derivations.

python examples/anywhere_jax.py
"""

import jax
import jax.numpy as jnp
import optax

from jaxnets import as_function, load_dataset

conv, max_pool, relu = as_function("conv"), as_function("max_pool"), as_function("relu")
dense, cross_entropy = as_function("dense"), as_function("softmax_cross_entropy")

SHAPES = {
    "conv1": (3, 3, 1, 32),
    "conv2": (3, 3, 32, 64),
    "hidden": (1600, 256),
    "logits": (256, 10),
}


def init_params(key):
    """He's weights and no biases: {"conv1": {"kernel": [3, 3, 1, 32], "bias": [32]}, ...}."""
    he = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(SHAPES))
    return {
        name: {"kernel": he(key, shape), "bias": jnp.zeros(shape[-1])}
        for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }


def logits_of(params, images):
    """The logits [B, 10] of images [B, 28, 28, 1] from 0 to 1."""
    x = images
    for name in ("conv1", "conv2"):
        x = relu(conv(params[name], x, padding="VALID"))
        x = max_pool(x, window=(2, 2), strides=(2, 2))
    x = relu(dense(params["hidden"], x.reshape(len(x), -1)))
    return dense(params["logits"], x)


def loss_of(params, images, labels):
    """The mean cross-entropy."""
    return cross_entropy(logits_of(params, images), labels).mean()


def main(steps=200):
    """Trains on MNIST for some seconds; returns the accuracy on the test images."""
    data = load_dataset("mnist")
    optimizer = optax.adam(1e-3)
    params = init_params(jax.random.key(0))
    state = optimizer.init(params)

    @jax.jit
    def train_step(params, state, images, labels):
        gradient = jax.grad(loss_of)(params, images, labels)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    for step in range(steps):
        batch = slice(100 * step, 100 * step + 100)
        images, labels = data.train.images[batch], data.train.labels[batch]
        params, state = train_step(params, state, images, labels)

    guesses = jax.jit(logits_of)(params, data.test.images[:2000]).argmax(axis=1)
    return float((guesses == data.test.labels[:2000]).mean())


if __name__ == "__main__":
    print(f"accuracy on 2,000 test images: {main():.3f}")
