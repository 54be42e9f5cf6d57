"""The residual network of 20 layers, for pictures of 28 to 64 pixels.

                  32 pixels
    image         [B, 32, 32,  3]
    conv1         [B, 32, 32, 16]   3x3, batch norm, ReLU
    residual1-3   [B, 32, 32, 16]   two convolutions of 3x3 each, ReLU after each sum
    residual4-6   [B, 16, 16, 32]   the same, the first with stride 2
    residual7-9   [B,  8,  8, 64]   the same
    average       [B, 64]           over all places
    logits        [B, K]

A block is y = F(x) + S(x), where F is a convolution, batch norm, ReLU, convolution, batch norm, and
S(x) = x. In residual4 and residual7 F halves the image and doubles the channels, and so must S. The
paper takes every second pixel there and fills the channels up with zeros (option A). Here S is a
convolution of 1x1 with stride 2 and its batch norm (option B, equation 2): a student knows both
layers, and their 2,752 weights are only 1 % of all.

Source: He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition", section 4.2.
"""

import flax.linen as nn

from jaxnets.models.alexnet import NORMALIZE
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain, Layer
from jaxnets.models.layers import HE, global_average_pool
from jaxnets.models.residual import Residual

STAGES = (16, 32, 64)  # The channels of three blocks each: 2 * 3 * 3 + 2 = 20 layers.
BLOCKS = 3


def resnet20(num_classes: int = 10, normalize: str = "none") -> Chain:
    """Nine residual blocks: 272,474 weights and biases at 10 classes, and 1,568 statistics.

    Args:
      num_classes: K.
      normalize: "none", "imagenet" or "paper": a key of `alexnet.NORMALIZE`.
    """
    layers: list[Layer] = [*NORMALIZE[normalize], *_convolution(STAGES[0]), nn.relu]
    before = STAGES[0]
    for features in STAGES:
        for _ in range(BLOCKS):
            stride = 1 if features == before else 2
            chain = [*_convolution(features, 3, stride), nn.relu, *_convolution(features)]
            shortcut = None if stride == 1 else _convolution(features, 1, stride)
            layers += [Residual(chain, shortcut), nn.relu]
            before = features
    logits = nn.Dense(num_classes, kernel_init=HE, name="logits")
    return Chain([*layers, global_average_pool, logits])


def _convolution(features: int, window: int = 3, stride: int = 1) -> list[Layer]:
    """A convolution without a bias, padded by half its window, and its batch norm."""
    pads = window // 2
    conv = nn.Conv(features, (window, window), stride, padding=pads, use_bias=False, kernel_init=HE)
    return [conv, BatchNorm()]
