"""AlexNet, in its one-tower form of 2014 and in the paper's of 2012; the lecture names it only.

                   224 pixels          64 pixels, for MNIST and CIFAR-10
    image    [B, 224, 224,   3]   [B, 64, 64,   3]   enlarged, grey repeated, where it is smaller
    conv1    [B,  55,  55,  64]   [B, 15, 15,  64]   11x11, stride 4, padding 2, ReLU
    pool1    [B,  27,  27,  64]   [B,  7,  7,  64]   3x3, stride 2, max
    conv2    [B,  27,  27, 192]   [B,  7,  7, 192]   5x5, ReLU
    pool2    [B,  13,  13, 192]   [B,  3,  3, 192]   3x3, stride 2, max
    conv3    [B,  13,  13, 384]   [B,  3,  3, 384]   3x3, ReLU
    conv4    [B,  13,  13, 256]   [B,  3,  3, 256]   3x3, ReLU
    conv5    [B,  13,  13, 256]   [B,  3,  3, 256]   3x3, ReLU
    pool5    [B,   6,   6, 256]   [B,  1,  1, 256]   3x3, stride 2, max
    average  [B,   6,   6, 256]   [B,  6,  6, 256]   adaptive: the identity at 224 pixels
    dense6   [B, 4096]                               dropout before it, ReLU
    dense7   [B, 4096]                               dropout before it, ReLU
    logits   [B, K]

The paper's network has 96-256-384-384-256 features, two groups of channels that do not see each
other in conv2, conv4 and conv5 (each lived on a GPU of its own), and local response normalisation
after conv1 and conv2.

Sources: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks",
section 5, and torchvision.models.alexnet; Krizhevsky, Sutskever and Hinton 2012, sections 3.3 to
3.5, "ImageNet classification with deep convolutional neural networks". Weights start as He et al.
2015 and biases as 0, where the paper has N(0, 0.01) and some biases of 1.
"""

from collections.abc import Sequence

import flax.linen as nn

from jaxnets.models.chain import Chain, Layer
from jaxnets.models.layers import (
    AdaptiveAveragePool,
    Enlarge,
    LocalResponseNorm,
    MaxPool,
    flatten,
)
from jaxnets.models.mlp import HE


def alexnet(num_classes: int = 1000, image_size: int = 224, dropout: float = 0.5) -> Chain:
    """The one-tower network of 2014, as torchvision has it: 61,100,840 parameters.

    Args:
      num_classes: K.
      image_size: Pixels a side to which smaller images are enlarged, at least 63.
      dropout: Share of units dropped before each hidden dense layer.
    """
    return _alexnet((64, 192, 384, 256, 256), 1, [], num_classes, image_size, dropout)


def alexnet_paper(
    num_classes: int = 1000, image_size: int = 224, dropout: float = 0.5, groups: int = 2
) -> Chain:
    """The network of 2012 with its two groups and LRN: 60,965,224 parameters.

    Args:
      num_classes: K.
      image_size: Pixels a side to which smaller images are enlarged, at least 63.
      dropout: Share of units dropped before each hidden dense layer.
      groups: Groups of channels in conv2, conv4 and conv5; with 1 there are 62,378,344 parameters.
    """
    norm = [LocalResponseNorm()]
    return _alexnet((96, 256, 384, 384, 256), groups, norm, num_classes, image_size, dropout)


def _alexnet(
    features: Sequence[int],
    groups: int,
    norm: list[Layer],
    num_classes: int,
    image_size: int,
    dropout: float,
) -> Chain:
    """What the variants share."""

    def conv(number, size, groups=1, stride=1, padding=None):
        return nn.Conv(
            features[number - 1],
            (size, size),
            strides=stride,
            padding=size // 2 if padding is None else padding,
            feature_group_count=groups,
            kernel_init=HE,
            name=f"conv{number}",
        )

    return Chain(
        [
            Enlarge(image_size),
            conv(1, 11, stride=4, padding=2), nn.relu, *norm, MaxPool(3, 2),
            conv(2, 5, groups), nn.relu, *norm, MaxPool(3, 2),
            conv(3, 3), nn.relu,
            conv(4, 3, groups), nn.relu,
            conv(5, 3, groups), nn.relu, MaxPool(3, 2),
            AdaptiveAveragePool(6),
            flatten,
            nn.Dropout(dropout), nn.Dense(4096, kernel_init=HE, name="dense6"), nn.relu,
            nn.Dropout(dropout), nn.Dense(4096, kernel_init=HE, name="dense7"), nn.relu,
            nn.Dense(num_classes, kernel_init=HE, name="logits"),
        ]
    )  # fmt: skip
