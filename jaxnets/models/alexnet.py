"""AlexNet, of which the lecture gives only the title: two networks of that name, and a small one.

`alexnet`, the version of 2014:

                224 pixels           64 pixels
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

The paper's network has 96-256-384-384-256 features. Local response normalization follows conv1 and
conv2. Two groups of channels do not see each other in conv2, conv4 and conv5; each lived on a GPU
of its own.

`alexnet_small` keeps five convolutions with ReLU, overlapping pools after the first, second and
fifth, and two hidden dense layers with dropout. For images of 28 to 64 pixels its first
convolution is smaller and has stride 1, and the layers are narrower:

                 32 pixels
    image    [B, 32, 32,   3]   unchanged; enlarged only if asked for
    conv1    [B, 32, 32,  64]   5x5, ReLU
    pool1    [B, 15, 15,  64]   3x3, stride 2, max
    conv2    [B, 15, 15, 128]   3x3, ReLU
    pool2    [B,  7,  7, 128]   3x3, stride 2, max
    conv3    [B,  7,  7, 256]   3x3, ReLU
    conv4    [B,  7,  7, 256]   3x3, ReLU
    conv5    [B,  7,  7, 256]   3x3, ReLU
    pool5    [B,  3,  3, 256]   3x3, stride 2, max
    dense6   [B, 512]           dropout before it, ReLU
    dense7   [B, 512]           dropout before it, ReLU
    logits   [B, K]

`alexnet_small_bn` has a batch norm between each of these convolutions and its ReLU.

Sources: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks",
section 5, and torchvision.models.alexnet; Krizhevsky, Sutskever and Hinton 2012, "ImageNet
classification with deep convolutional neural networks", sections 3.3 to 3.5; Ioffe and Szegedy
2015, "Batch Normalization". The reduction is ours. docs/alexnet.md compares them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from jaxnets.base.errors import UserError
from jaxnets.models.alexnet_layers import AdaptiveAveragePool, Enlarge, LocalResponseNorm, Normalize
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain, Layer
from jaxnets.models.layers import HE, MaxPool, flatten

# The features and the window of each convolution, and alexnet_small's hidden dense units.
CONVOLUTIONS = ((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))
PAPER_CONVOLUTIONS = ((96, 11), (256, 5), (384, 3), (384, 3), (256, 3))
SMALL_CONVOLUTIONS = ((64, 5), (128, 3), (256, 3), (256, 3), (256, 3))
SMALL_DENSE = 512

# What `normalize` does to pixels in [0, 1]. The means are ImageNet's, as torchvision has them; the
# paper takes each pixel's own mean from bytes, and does not divide: section 2.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE: dict[str, list[Layer]] = {
    "none": [],
    "imagenet": [Normalize(IMAGENET_MEAN, IMAGENET_STD)],
    "paper": [Normalize(IMAGENET_MEAN, (1 / 255, 1 / 255, 1 / 255))],
}

# Section 5 of the paper: every weight from N(0, 0.01), every bias 0 but these, which are 1.
PAPER_WEIGHTS = nn.initializers.normal(0.01)
PAPER_ONES = ("conv2", "conv4", "conv5", "dense6", "dense7")


def alexnet(
    num_classes: int = 1000,
    input_size: int = 224,
    dropout: float = 0.5,
    init: str = "he",
    normalize: str = "none",
) -> Chain:
    """The one-tower network of 2014, as in torchvision: 61,100,840 parameters.

    Args:
      num_classes: K.
      input_size: The side in pixels to which smaller images are enlarged, at least 63.
      dropout: Share of units dropped before each hidden dense layer.
      init: "he": He et al. 2015, biases 0; "paper": N(0, 0.01), some biases 1.
      normalize: "none", "imagenet" or "paper": a key of NORMALIZE.
    """
    return Chain(
        [
            Enlarge(input_size),
            *NORMALIZE[normalize],
            *_convolutions(CONVOLUTIONS, init, stride=4),
            AdaptiveAveragePool(6),
            *_classifier(4096, num_classes, dropout, init),
        ]
    )


def alexnet_paper(
    num_classes: int = 1000,
    input_size: int = 224,
    dropout: float = 0.5,
    init: str = "he",
    normalize: str = "none",
    groups: int = 2,
) -> Chain:
    """The network of 2012 with its two groups and LRN: 60,965,224 parameters.

    The arguments are those of `alexnet`, and the groups of channels in conv2, conv4 and conv5. With
    one group there are 62,378,344 parameters.
    """
    norm = [LocalResponseNorm()]
    return Chain(
        [
            Enlarge(input_size),
            *NORMALIZE[normalize],
            *_convolutions(PAPER_CONVOLUTIONS, init, stride=4, groups=groups, norm=norm),
            AdaptiveAveragePool(6),
            *_classifier(4096, num_classes, dropout, init),
        ]
    )


def alexnet_small(
    num_classes: int = 10,
    input_size: int | None = None,
    dropout: float = 0.5,
    init: str = "he",
    normalize: str = "none",
    batch_norm: bool = False,
) -> Chain:
    """AlexNet reduced for images of 28 to 64 pixels: 3,509,864 parameters at 32 and 1,000 classes.

    The arguments are those of `alexnet`, and whether a batch norm follows each convolution, which
    then has no bias. Without input_size it takes images unchanged.
    """
    return Chain(
        [
            *([] if input_size is None else [Enlarge(input_size)]),
            *NORMALIZE[normalize],
            *_convolutions(SMALL_CONVOLUTIONS, init, batch_norm=batch_norm),
            *_classifier(SMALL_DENSE, num_classes, dropout, init),
        ]
    )


def _convolutions(
    sizes: Sequence[tuple[int, int]],
    init: str,
    *,
    stride: int = 1,
    groups: int = 1,
    norm: Sequence[Layer] = (),
    batch_norm: bool = False,
) -> list[Layer]:
    """Five convolutions with ReLU, and overlapping pools after the first, second and fifth.

    The padding is half the window, at most 2. The stride is the first convolution's; the groups
    are in the second, fourth and fifth; `norm` follows the ReLU of the first and the second. If
    asked for, a batch norm precedes each ReLU.
    """
    layers: list[Layer] = []
    for number, (features, window) in enumerate(sizes, start=1):
        conv = nn.Conv(
            features,
            (window, window),
            strides=stride if number == 1 else 1,
            padding=min(window // 2, 2),
            use_bias=not batch_norm,
            feature_group_count=groups if number in (2, 4, 5) else 1,
            name=f"conv{number}",
            **_initializers(init, f"conv{number}"),
        )
        layers += [conv, *([BatchNorm(name=f"norm{number}")] if batch_norm else []), nn.relu]
        if number <= 2:
            layers += norm
        if number in (1, 2, 5):
            layers.append(MaxPool(3, 2))
    return layers


def _classifier(units: int, num_classes: int, dropout: float, init: str) -> list[Layer]:
    """Two hidden dense layers with dropout before each, and the logits."""

    def dense(name: str, features: int) -> nn.Dense:
        return nn.Dense(features, name=name, **_initializers(init, name))

    hidden: list[Layer] = []
    for name in ("dense6", "dense7"):
        hidden += [nn.Dropout(dropout), dense(name, units), nn.relu]
    return [flatten, *hidden, dense("logits", num_classes)]


def _initializers(init: str, name: str) -> dict[str, Any]:
    """The initializers of a layer's kernel and bias."""
    if init == "he":
        return {"kernel_init": HE, "bias_init": nn.initializers.zeros}
    if init == "paper":
        bias = nn.initializers.ones if name in PAPER_ONES else nn.initializers.zeros
        return {"kernel_init": PAPER_WEIGHTS, "bias_init": bias}
    raise ValueError(f"init: expected he or paper, got {init!r}")


# The name of each layer in torchvision's alexnet. `weight` and `bias` follow after a dot.
TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "dense6": "classifier.1",
    "dense7": "classifier.4",
    "logits": "classifier.6",
}


def params_from_torchvision(state_dict: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Our parameters from weights with the names and layout of torchvision.models.alexnet.

    Kernels turn from [out, in, height, width] to [height, width, in, out], and matrices from
    [out, in] to [in, out]. The first dense layer sees its image flattened as [channels, height,
    width] there and as [height, width, channels] here. Every network of this module without a
    batch norm goes through; `jaxnets.models.weights` checks the shapes.

    Args:
      state_dict: Arrays (or torch tensors on the CPU) by their names, such as features.0.weight.

    Raises:
      UserError: A tensor is missing, or there is one that the network does not have.
    """
    wanted = [f"{prefix}.{part}" for prefix in TORCHVISION.values() for part in ("weight", "bias")]
    for name in wanted:
        if name not in state_dict:
            raise UserError("no tensor {}, which torchvision's alexnet has", name)
    for name in state_dict:
        if name not in wanted:
            raise UserError("found a tensor {}, which torchvision's alexnet does not have", name)
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, prefix in TORCHVISION.items():
        weight, bias = (np.asarray(state_dict[f"{prefix}.{part}"]) for part in ("weight", "bias"))
        if name == "dense6":
            images = weight.reshape(len(weight), len(params["conv5"]["bias"]), -1)
            weight = images.swapaxes(1, 2).reshape(weight.shape)
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        params[name] = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
    return params


def params_to_torchvision(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse: a state_dict of NumPy arrays for torchvision.models.alexnet.

    `safetensors.numpy.save_file` writes it to a file for `--init_from`, and
    `safetensors.torch.load_file` reads that for PyTorch.
    """
    state_dict: dict[str, np.ndarray] = {}
    for name, prefix in TORCHVISION.items():
        kernel, bias = (np.asarray(params[name][part]) for part in ("kernel", "bias"))
        weight = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        if name == "dense6":
            images = weight.reshape(len(weight), -1, len(params["conv5"]["bias"]))
            weight = images.swapaxes(1, 2).reshape(weight.shape)
        state_dict[f"{prefix}.weight"] = np.ascontiguousarray(weight)
        state_dict[f"{prefix}.bias"] = bias
    return state_dict
