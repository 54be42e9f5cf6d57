"""Convolutional networks with batch norm: the most accurate one, and one with few parameters.

`cnn_bn` has one pool, after the second convolution. Convolutions without padding shrink the rest to
4x4 places, and no hidden layer follows. The batch norm comes last, so a training step computes
the second convolution, its ReLU and its pool as one layer (`kernels/conv_pool.py`).

    image   [B, 28, 28, 1]
    conv1   [B, 26, 26, 16]   3x3, no padding, ReLU, batch norm
    conv2   [B, 24, 24, 32]   3x3, no padding, ReLU
    pool2   [B, 12, 12, 32]   2x2, max, batch norm
    conv3   [B, 10, 10, 64]   3x3, no padding, ReLU, batch norm
    conv4   [B,  8,  8, 64]   the same
    conv5   [B,  6,  6, 64]   the same
    conv6   [B,  4,  4, 96]   the same
    logits  [B, K]            dropout before it

`cnn_tiny` has two convolutions before each pool, which see as much as a 5x5 one. A fifth
convolution replaces the hidden layer, which would have most of the parameters.

    image   [B, 28, 28, 1]
    conv1   [B, 26, 26,  8]   3x3, no padding, batch norm, ReLU
    conv2   [B, 24, 24, 12]   3x3, no padding, batch norm, ReLU
    pool1   [B, 12, 12, 12]   2x2, max
    conv3   [B, 10, 10, 16]   3x3, no padding, batch norm, ReLU
    conv4   [B,  8,  8, 20]   3x3, no padding, batch norm, ReLU
    pool2   [B,  4,  4, 20]   2x2, max
    conv5   [B,  2,  2, 16]   3x3, no padding, batch norm, ReLU
    logits  [B, K]

A convolution right before a batch norm has no bias: the batch norm subtracts it again.

Sources: Simonyan and Zisserman 2014, section 2.3, for pairs of 3x3 convolutions; Ioffe and Szegedy
2015; An et al. 2020, "An Ensemble of Simple Convolutional Neural Network Models for MNIST Digit
Recognition", section 2, for convolutions that shrink and no hidden layer. The sizes are ours.
"""

import flax.linen as nn

from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain, Layer
from jaxnets.models.layers import HE, MaxPool, flatten


def cnn_bn(num_classes: int = 10, dropout: float = 0.4) -> Chain:
    """Six convolutions with batch norm, a pool after the second, dropout, and the logits."""
    return Chain(
        [
            *_with_norm_last(1, 16),
            *_with_norm_last(2, 32, MaxPool(2, 2)),
            *_with_norm_last(3, 64),
            *_with_norm_last(4, 64),
            *_with_norm_last(5, 64),
            *_with_norm_last(6, 96),
            flatten,
            nn.Dropout(dropout),
            nn.Dense(num_classes, kernel_init=HE, name="logits"),
        ]
    )


def cnn_tiny(num_classes: int = 10) -> Chain:
    """Five narrow convolutions with batch norm, and the logits: 9,362 parameters."""
    return Chain(
        [
            *_convolution(1, 8),
            *_convolution(2, 12),
            MaxPool(2, 2),
            *_convolution(3, 16),
            *_convolution(4, 20),
            MaxPool(2, 2),
            *_convolution(5, 16),
            flatten,
            nn.Dense(num_classes, kernel_init=HE, name="logits"),
        ]
    )


def _convolution(number: int, features: int) -> list[Layer]:
    """A convolution of 3x3 without padding, its batch norm, ReLU."""
    name = f"conv{number}"
    conv = nn.Conv(features, (3, 3), padding="VALID", use_bias=False, kernel_init=HE, name=name)
    return [conv, BatchNorm(name=f"norm{number}"), nn.relu]


def _with_norm_last(number: int, features: int, *pool: Layer) -> list[Layer]:
    """A convolution of 3x3 without padding, ReLU, its pool if it has one, batch norm."""
    conv = nn.Conv(features, (3, 3), padding="VALID", kernel_init=HE, name=f"conv{number}")
    return [conv, nn.relu, *pool, BatchNorm(name=f"norm{number}")]
