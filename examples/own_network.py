"""A network of your own in one function: convolutions, a residual block, a mean of each channel.

    M=--model=examples/own_network.py
    python train.py $M                       0.991 on MNIST after two epochs, a minute on two cores
    python train.py $M --gradients=manual    the same network with the derived gradients
    jaxnets summary $M                       each layer's output, parameters and arithmetic
    jaxnets gradcheck $M                     every gradient by hand compared with autodiff's

Training prints the run's folder. The other commands need only that folder:

    jaxnets report RUN                       what it learned, and where it is wrong
    jaxnets page RUN                         a page to draw digits on
    jaxnets export RUN --output=net.onnx     for other programs

Copy this file, and change its layers: docs/own-networks.md lists them.
"""

import flax.linen as nn

from jaxnets import BatchNorm, Chain, LeakyReLU, MaxPool, Residual, global_average_pool

recipe = dict(epochs=2, learning_rate=0.005)  # Any flag of train.py; the command line wins.


def convolution(channels):
    """A convolution of 3 x 3, normalized, then a leaky ReLU.

    The norm has a bias, so the convolution needs none.
    """
    return [nn.Conv(channels, (3, 3), use_bias=False), BatchNorm(), LeakyReLU(0.1)]


def model(num_classes):
    """The layers. The comments give the shapes for an image of MNIST, [28, 28, 1]."""
    return Chain(
        [
            *convolution(16),  # [28, 28, 16]
            MaxPool(2),  # [14, 14, 16]
            *convolution(32),  # [14, 14, 32]
            MaxPool(2),  # [7, 7, 32]
            # x + F(x): F learns what to add to its input, so both have one shape.
            Residual([*convolution(32), nn.Conv(32, (3, 3), use_bias=False), BatchNorm()]),
            LeakyReLU(0.1),  # [7, 7, 32]
            *convolution(64),  # [7, 7, 64]
            global_average_pool,  # [64]
            nn.Dense(num_classes, name="logits"),  # [10]
        ]
    )
