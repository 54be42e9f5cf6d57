"""AlexNet in its one-tower form of 2014, as torchvision has it; the lecture gives the title only.

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

Sources: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks",
section 5; torchvision.models.alexnet. The parameters are the same at every image size.
"""

import flax.linen as nn

from jaxnets.models.chain import Chain
from jaxnets.models.layers import AdaptiveAveragePool, Enlarge, MaxPool, flatten
from jaxnets.models.mlp import HE


def alexnet(num_classes: int = 1000, image_size: int = 224, dropout: float = 0.5) -> Chain:
    """Five convolutions, three overlapping max pools, three dense layers: 61,100,840 parameters.

    Args:
      num_classes: K.
      image_size: Pixels a side to which smaller images are enlarged, at least 63.
      dropout: Share of units dropped before each hidden dense layer.
    """

    def conv(features, size, name, stride=1):
        padding = 2 if size == 11 else size // 2
        return nn.Conv(
            features, (size, size), strides=stride, padding=padding, kernel_init=HE, name=name
        )

    return Chain(
        [
            Enlarge(image_size),
            conv(64, 11, "conv1", stride=4), nn.relu, MaxPool(3, 2),
            conv(192, 5, "conv2"), nn.relu, MaxPool(3, 2),
            conv(384, 3, "conv3"), nn.relu,
            conv(256, 3, "conv4"), nn.relu,
            conv(256, 3, "conv5"), nn.relu, MaxPool(3, 2),
            AdaptiveAveragePool(6),
            flatten,
            nn.Dropout(dropout), nn.Dense(4096, kernel_init=HE, name="dense6"), nn.relu,
            nn.Dropout(dropout), nn.Dense(4096, kernel_init=HE, name="dense7"), nn.relu,
            nn.Dense(num_classes, kernel_init=HE, name="logits"),
        ]
    )  # fmt: skip
