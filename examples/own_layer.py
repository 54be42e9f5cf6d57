"""A layer of your own with its derived gradient: a ReLU with learned slopes.

    python examples/own_layer.py                                      is the derivation right?
    python train.py --model=examples/own_layer.py --gradients=manual  trains with it: 0.97 on MNIST

He et al. 2015, "Delving Deep into Rectifiers", section 2.1, with a slope a_k for each feature k:

    y_nk = x_nk       where x_nk > 0
           a_k x_nk   elsewhere

Its gradient, from dy, the loss's gradient with respect to y:

    dx_nk = dy_nk         where x_nk > 0       x_nk reaches the loss only through y_nk
            a_k dy_nk     elsewhere
    da_k  = Σ_n dy_nk x_nk, over the n where x_nk <= 0    all examples share a_k, so they add up
"""

import sys

import flax.linen as nn
import jax.numpy as jnp

from jaxnets import Chain, LayerRule, check_layer, flatten, register_rule


class PReLU(nn.Module):
    """The layer as written for Flax: [..., K] -> [..., K], with the parameter "slope" [K]."""

    @nn.compact
    def __call__(self, x):
        """Draws the slopes in the first call, and uses them in every call."""
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x > 0, x, slope * x)


def prelu_forward(params, x):
    """Returns y and, as the cache, what the backward pass needs."""
    return jnp.where(x > 0, x, params["slope"] * x), (params["slope"], x)


def prelu_backward(cache, dy, *, input_gradient=True):
    """Returns the gradients of the parameters and of x; a first layer needs no dx."""
    slope, x = cache
    d_slope = jnp.where(x > 0, 0, dy * x)
    examples = tuple(range(x.ndim - 1))  # Every axis but the features'.
    dx = jnp.where(x > 0, dy, slope * dy) if input_gradient else None
    return {"slope": d_slope.sum(examples)}, dx


register_rule(LayerRule(prelu_forward, prelu_backward, layer=PReLU, inputs=("params", "x")))

recipe = dict(epochs=2, learning_rate=0.005)


def model(num_classes):
    """A dense network with the layer. After a convolution it has a slope for each channel."""
    return Chain([flatten, nn.Dense(128), PReLU(), nn.Dense(num_classes, name="logits")])


def main():
    """Compares the derivation exactly and with autodiff; prints the verdict."""
    verdict = check_layer(PReLU(), [(4, 5), (1, 3), (2, 3, 3, 4)])  # Inputs, a batch first.
    print(verdict)
    return verdict


if __name__ == "__main__":
    sys.exit(not main().ok)
