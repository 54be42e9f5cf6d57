"""The activation functions other than the ReLU: the slides' sigmoid and softmax, and newer ones."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.rule import ARRAYS, ELEMENTWISE, SCORES, Domain, LayerRule, Setting
from jaxnets.models.chain import Layer
from jaxnets.models.layers import LeakyReLU

Numbers = Float[Array, "*sizes"]
Scores = Float[Array, "*sizes K"]


def sigmoid_forward(x: Numbers) -> tuple[Numbers, Numbers]:
    """Squeezes every number into (0, 1): y = 1 / (1 + e⁻ˣ). The cache is y.

    In this form e⁻ˣ overflows for large negative x. With e = e^-|x|, which is in (0, 1],

        y = 1 / (1 + e)   for x >= 0
        y = e / (1 + e)   for x < 0     the same fraction, multiplied above and below by eˣ

    Source: slide "全连接神经网络的基本原理", table of activation functions.
    """
    e = jnp.exp(-jnp.abs(x))
    y = jnp.where(x >= 0, 1, e) / (1 + e)
    return y, y


def sigmoid_backward(cache: Numbers, dy: Numbers) -> Numbers:
    """Applies the chain rule to y = 1 / (1 + e⁻ˣ).

    ∂y/∂x = e⁻ˣ / (1 + e⁻ˣ)² = y (1 - y)     since 1 - y = e⁻ˣ / (1 + e⁻ˣ)
    dx = dy y (1 - y)
    """
    y = cache
    return dy * y * (1 - y)


SIGMOID = LayerRule(
    name="sigmoid",
    layer=nn.sigmoid,
    forward=sigmoid_forward,
    backward=sigmoid_backward,
    plain=jax.nn.sigmoid,
    settings=ELEMENTWISE,
    domain=ARRAYS,
)


def softmax_forward(x: Scores) -> tuple[Scores, Scores]:
    """Turns scores into probabilities: p_i = e^x_i / sum_j e^x_j over the last axis.

    Subtracting the largest score divides numerator and denominator by the same e^max. So p does
    not change, and no exponential exceeds 1. The cache is p.

    Source: slide "全连接神经网络的基本原理", where it is misprinted as eⁱ / sum eʲ.
    """
    e = jnp.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, p


def softmax_backward(cache: Scores, dp: Scores) -> Scores:
    """Multiplies by the Jacobian of softmax without ever building it.

        ∂p_i/∂x_j = p_i (1[i = j] - p_j)           x_j raises p_j and, through the sum, lowers all
        dx_j = sum_i dp_i p_i (1[i = j] - p_j)
             = p_j (dp_j - sum_i dp_i p_i)

    Source: slide "全连接神经网络的自定义编码实现", the step h2_soft_grad.
    """
    p = cache
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


SOFTMAX = LayerRule(
    name="softmax",
    layer=nn.softmax,
    forward=softmax_forward,
    backward=softmax_backward,
    plain=jax.nn.softmax,
    settings=SCORES,
    domain=ARRAYS,
)


def tanh_forward(x: Numbers) -> tuple[Numbers, Numbers]:
    """Squeezes every number into (-1, 1): y = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ). The cache is y.

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.4.
    """
    y = jnp.tanh(x)
    return y, y


def tanh_backward(cache: Numbers, dy: Numbers) -> Numbers:
    """Applies the chain rule to y = s / c with s = eˣ - e⁻ˣ and c = eˣ + e⁻ˣ.

    s' = c and c' = s, so

        ∂y/∂x = (s' c - s c') / c² = (c² - s²) / c² = 1 - y²
        dx = dy (1 - y²)
    """
    y = cache
    return dy * (1 - y**2)


TANH = LayerRule(
    name="tanh",
    layer=nn.tanh,
    forward=tanh_forward,
    backward=tanh_backward,
    plain=jnp.tanh,
    settings=ELEMENTWISE,
    domain=ARRAYS,
)


def leaky_relu_forward(x: Numbers, *, slope: float) -> tuple[Numbers, Numbers]:
    """Keeps positive numbers and shrinks the others: y = x for x >= 0, else slope x.

    The cache is x.

    Source: Maas et al. 2013, "Rectifier nonlinearities improve neural network acoustic models",
    section 2.
    """
    return jnp.where(x >= 0, x, slope * x), x


def leaky_relu_backward(cache: Numbers, dy: Numbers, *, slope: float) -> Numbers:
    """Shrinks the gradient where x was negative.

    ∂y/∂x = 1 for x >= 0, else slope     at the kink x = 0 we take 1, as JAX; PyTorch takes slope
    """
    x = cache
    return jnp.where(x >= 0, dy, slope * dy)


def _with_slope(slope: float, **sizes: object) -> Setting:
    return ARRAYS.setting(**sizes)._replace(static={"slope": slope})


def _slope_of(layer: Layer) -> dict[str, float]:
    return {"slope": getattr(layer, "slope", LeakyReLU.slope)}  # Flax's function has LeakyReLU's.


LEAKY_RELU = LayerRule(
    name="leaky_relu",
    layer=(LeakyReLU, nn.leaky_relu),
    fields=lambda layer, shape: _slope_of(layer),
    forward=leaky_relu_forward,
    backward=leaky_relu_backward,
    plain=lambda x, slope: jax.nn.leaky_relu(x, slope),
    settings=[setting._replace(static={"slope": 0.1}) for setting in ELEMENTWISE],
    static=_slope_of,
    has_kinks=True,
    domain=Domain(
        _with_slope, {**ARRAYS.ranges, "slope": (-0.5, 0.0, 0.001, 0.002, 0.01, 0.2, 1.0, 2.0)}
    ),
)


SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715  # c and a of GELU's tanh form.


def gelu_forward(x: Numbers) -> tuple[Numbers, Numbers]:
    """Weights every number by about the share of a normal distribution that is below it.

        y = x (1 + t) / 2,   t = tanh(u),   u = c (x + a x³)

    with c = sqrt(2 / π) and a = 0.044715. The cache is x: y has a minimum near x = -0.75, so two x
    have the same y.

    Source: Hendrycks and Gimpel 2016, section 2, the approximation by tanh.
    """
    return x * (1 + _tanh_of_gelu(x)) / 2, x


def gelu_backward(cache: Numbers, dy: Numbers) -> Numbers:
    """Applies the product rule and the chain rule to y = x (1 + t) / 2.

    ∂u/∂x = c (1 + 3 a x²)
    ∂t/∂x = (1 - t²) ∂u/∂x                   as tanh_backward
    ∂y/∂x = (1 + t) / 2 + x ∂t/∂x / 2
    dx = dy ∂y/∂x
    """
    x = cache
    t = _tanh_of_gelu(x)
    slope_of_t = (1 - t**2) * (SCALE * (1 + 3 * CUBIC * x**2))
    return dy * ((1 + t) / 2 + x * slope_of_t / 2)


def _tanh_of_gelu(x: jax.Array) -> jax.Array:
    return jnp.tanh(SCALE * (x + CUBIC * x**3))


GELU = LayerRule(
    name="gelu",
    layer=nn.gelu,
    forward=gelu_forward,
    backward=gelu_backward,
    plain=jax.nn.gelu,
    settings=[
        Setting((4, 5)),
        Setting((4, 3, 3, 6)),
        Setting((2, 3), numbers="huge"),  # A sum of more rounds by as much as a difference shows.
        Setting((6, 6), numbers="integers"),
    ],
    domain=ARRAYS,
)
