"""Deeper plain networks train worse although their gradients do not vanish; shortcuts help.

    python examples/deeper.py     about a minute on one core

He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.1, report both for
networks of 18 and 34 layers. This script shows it on a small scale: hidden layers of 64 units, He's
initialization, the first 10,000 training images of MNIST, 500 steps of SGD with 128 images each.

It prints two numbers for each network. The first compares the gradient's norm below the hidden
layers with its norm above them, before training. The second is the mean training loss of the last
50 steps, at the best of three learning rates.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets

WIDTH, BATCH, STEPS = 64, 128, 500
RATES = (0.01, 0.03, 0.1)


def normalized(z):
    """The batch norm of z, with scale 1 and bias 0."""
    return (z - z.mean(axis=0)) / jnp.sqrt(z.var(axis=0) + 1e-5)


# The next layer's input, from this layer's input x and z = x W.
LAYERS = {
    "plain": lambda x, z: jax.nn.relu(z),
    "plain, batch norm": lambda x, z: jax.nn.relu(normalized(z)),
    "shortcuts": lambda x, z: x + jax.nn.relu(z),
    "shortcuts, batch norm": lambda x, z: x + jax.nn.relu(normalized(z)),
}


def he_weights(depth, seed=0):
    """Normal weights of variance 2 / inputs."""
    draw = np.random.default_rng(seed).normal
    shapes = {"first": (784, WIDTH), "hidden": (depth, WIDTH, WIDTH), "last": (WIDTH, 10)}
    return {
        name: jnp.asarray(draw(0, (2 / shape[-2]) ** 0.5, shape), "float32")
        for name, shape in shapes.items()
    }


def hidden_layers(layer, weights, x):
    """Applies one layer after the other."""
    return jax.lax.scan(lambda x, w: (layer(x, x @ w), None), x, weights["hidden"])[0]


def cross_entropy(weights, y, labels):
    """The mean loss, from the last hidden layer's output y."""
    log_p = jax.nn.log_softmax(y @ weights["last"])
    return -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()


def gradient_ratio(layer, weights, images, labels):
    """The gradient's norm below the hidden layers, divided by its norm above them."""
    x = jax.nn.relu(images @ weights["first"])
    y, backward = jax.vjp(lambda x: hidden_layers(layer, weights, x), x)
    dy = jax.grad(cross_entropy, argnums=1)(weights, y, labels)
    (dx,) = backward(dy)
    return float(jnp.linalg.norm(dx) / jnp.linalg.norm(dy))


def final_loss(layer, weights, images, labels, rates=RATES):
    """The training loss of the last 50 steps at the best rate; NaN if it is finite at none."""

    def loss(weights, batch):
        x = jax.nn.relu(images[batch] @ weights["first"])
        return cross_entropy(weights, hidden_layers(layer, weights, x), labels[batch])

    @jax.jit
    def train(rate):
        def step(weights, batch):
            value, gradient = jax.value_and_grad(loss)(weights, batch)
            return jax.tree.map(lambda w, dw: w - rate * dw, weights, gradient), value

        return jax.lax.scan(step, weights, batches)[1][-50:].mean()

    batches = np.random.default_rng(1).integers(0, len(images), (STEPS, BATCH))
    return float(np.fmin.reduce([train(rate) for rate in rates]))  # Ignores NaN.


def load_images():
    """The images, [10000, 784], and their labels."""
    train = jaxnets.load_dataset("mnist").train
    return jnp.asarray(train.images[:10_000]).reshape(-1, 784), jnp.asarray(train.labels[:10_000])


def main():
    """Prints both numbers for each kind of layer and each depth."""
    images, labels = load_images()
    print(f"{'hidden layers':27} {'gradient':>8} {'loss':>6}")
    for name, layer in LAYERS.items():
        for depth in (4, 20, 40):
            weights = he_weights(depth)
            ratio = gradient_ratio(layer, weights, images[:BATCH], labels[:BATCH])
            loss = final_loss(layer, weights, images, labels)
            print(f"{depth:2} {name:24} {ratio:8.2g} {loss:6.1f}", flush=True)


if __name__ == "__main__":
    main()
