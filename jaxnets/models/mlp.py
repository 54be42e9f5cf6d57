"""The lecture's dense networks.

    image    [B, 28, 28, 1]
    flatten  [B, 784]
    hidden1  [B, 512]         ReLU; as many hidden layers as `hidden` has entries
    logits   [B, K]

The softmax that the slides write as the last layer belongs to the losses, which take logits.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxnets.models.chain import Chain, Layer
from jaxnets.models.layers import ACTIVATIONS, HE, flatten

# Keras's default for dense layers, Glorot and Bengio 2010, equation 16; its biases are zero.
GLOROT = nn.initializers.glorot_uniform()


def mlp(num_classes: int = 10, hidden: Sequence[int] = (512,), activation: str = "relu") -> Chain:
    """Dense layers with an activation between them, initialized as Keras does.

    hidden=() is softmax regression, ŷ = f(Wx + θ) on the slide "神经网络简介"; (64, 64) are the
    slides' Sequential and functional networks; (512,) is the one trained on MNIST.
    """
    layers: list[Layer] = [flatten]
    for number, units in enumerate(hidden, start=1):
        layers.append(nn.Dense(units, kernel_init=GLOROT, name=f"hidden{number}"))
        layers.append(ACTIVATIONS[activation])
    layers.append(nn.Dense(num_classes, kernel_init=GLOROT, name="logits"))
    return Chain(layers)


class DenseWithOnes(nn.Dense):
    """z = [x 1] W: a column of ones, for which W has a last row, is the bias.

    Computed as x W[:D] + W[D]: [x 1] itself would be a copy of the batch. The last row is drawn
    with the others. Source: slide "全连接神经网络的自定义编码实现", `forward`.
    """

    @nn.compact
    def __call__(self, inputs: Float[Array, "B D"]) -> Float[Array, "B K"]:
        shape = (inputs.shape[-1] + 1, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        promoted: Any = self.promote_dtype(inputs, kernel[:-1], kernel[-1], dtype=self.dtype)
        x, kernel, bias = promoted
        return x @ kernel + bias


def mlp_handwritten(
    num_classes: int = 10, hidden: Sequence[int] = (200,), activation: str = "relu"
) -> Chain:
    """The network coded by hand: h = g([x 1] W1), logits = h W2, no other bias.

    Source: slide "全连接神经网络的自定义编码实现", class FullConnectionModel.
    """
    (units,) = hidden
    return Chain(
        [
            flatten,
            DenseWithOnes(units, kernel_init=HE, name="hidden1"),
            ACTIVATIONS[activation],
            nn.Dense(num_classes, use_bias=False, kernel_init=HE, name="logits"),
        ]
    )
