"""The hand-derived pairs against PyTorch's autograd: an oracle that shares no code with JAX.

Everything is float64. PyTorch keeps channels first: images travel as [B, C, H, W], convolution
kernels as [K, C, kh, kw], dense kernels as [K, D].
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.backprop import activations, convolution, dense, losses, normalization, pooling

torch = pytest.importorskip("torch", reason="PyTorch, the oracle of these tests, is not installed")


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def same(x):
    return x


def channels_first(image):
    return image.transpose(0, 3, 1, 2)


def channels_last(image):
    return image.transpose(0, 2, 3, 1)


def kernel_to_torch(kernel):
    return kernel.transpose(3, 2, 0, 1)


def kernel_from_torch(kernel):
    return kernel.transpose(2, 3, 1, 0)


IMAGE = (channels_first, channels_last)
KERNEL = (kernel_to_torch, kernel_from_torch)
SAME = (same, same)
MATRIX = (np.transpose, np.transpose)


def assert_torch_agrees(forward, backward, stock, inputs, layouts, out_layout):
    """Compares outputs and gradients to 1e-10 of their largest number.

    Args:
      forward: (*inputs) -> (out, cache).
      backward: (cache, d_out) -> gradients, one for each of the inputs.
      stock: PyTorch's (*inputs) -> out.
      inputs: NumPy arrays in our layout.
      layouts: for each input the pair of functions that turn it into PyTorch's layout and back.
      out_layout: the same for the output.
    """
    tensors = [
        torch.tensor(np.ascontiguousarray(to(x)), requires_grad=True)
        for x, (to, _) in zip(inputs, layouts, strict=True)
    ]
    stock_out = stock(*tensors)
    d_out = normal(99, *stock_out.shape)
    stock_out.backward(torch.tensor(d_out))

    out, cache = jax.jit(forward)(*map(jnp.asarray, inputs))
    gradients = jax.jit(backward)(cache, jnp.asarray(out_layout[1](d_out)))

    references = [out_layout[1](stock_out.detach().numpy())]
    references += [back(t.grad.numpy()) for t, (_, back) in zip(tensors, layouts, strict=True)]
    for ours, reference in zip((out, *gradients), references, strict=True):
        assert ours.shape == reference.shape
        atol = 1e-10 * np.abs(reference).max()
        np.testing.assert_allclose(np.asarray(ours), reference, rtol=0, atol=atol)


def without_parameters(backward, **static):
    """Turns a backward pass with one gradient into one with a tuple of gradients."""
    return lambda cache, d_out: (backward(cache, d_out, **static),)


def test_dense_agrees_with_linear():
    def backward(cache, dz):
        d_params, dx = dense.dense_backward(cache, dz)
        return d_params["kernel"], d_params["bias"], dx

    assert_torch_agrees(
        lambda kernel, bias, x: dense.dense_forward({"kernel": kernel, "bias": bias}, x),
        backward,
        lambda kernel, bias, x: torch.nn.functional.linear(x, kernel, bias),
        (normal(0, 7, 5), normal(1, 5), normal(2, 4, 7)),
        (MATRIX, SAME, SAME),
        SAME,
    )


@pytest.mark.parametrize(
    ("image", "window", "strides", "pads", "channels", "groups"),
    [
        ((8, 8), (3, 3), (1, 1), (1, 1), 1, 1),
        ((8, 8), (3, 3), (1, 1), (1, 1), 16, 1),
        ((17, 15), (5, 4), (3, 2), (2, 1), 8, 1),
        ((17, 15), (5, 4), (3, 2), (0, 3), 2, 1),
        ((9, 9), (3, 3), (2, 2), (1, 1), 12, 2),
        ((9, 9), (3, 3), (4, 4), (0, 0), 6, 6),
        ((1, 1), (1, 1), (2, 2), (0, 0), 3, 3),
    ],
)
def test_convolution_agrees_with_conv2d(image, window, strides, pads, channels, groups):
    static = {"strides": strides, "padding": [(p, p) for p in pads], "groups": groups}

    def backward(cache, dz):
        d_params, dx = convolution.conv_backward(cache, dz, **static)
        return d_params["kernel"], d_params["bias"], dx

    assert_torch_agrees(
        lambda kernel, bias, x: convolution.conv_forward(
            {"kernel": kernel, "bias": bias}, x, **static
        ),
        backward,
        lambda kernel, bias, x: torch.nn.functional.conv2d(
            x, kernel, bias, strides, pads, groups=groups
        ),
        (
            normal(0, *window, channels // groups, 2 * groups),
            normal(1, 2 * groups),
            normal(2, 3, *image, channels),
        ),
        (KERNEL, SAME, IMAGE),
        IMAGE,
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("image", "window", "strides", "pads"),
    [
        ((13, 13), (3, 3), (2, 2), (0, 0)),
        ((8, 6), (2, 2), (2, 2), (0, 0)),
        ((9, 7), (2, 2), (2, 2), (0, 0)),
        ((9, 7), (3, 2), (1, 3), (1, 1)),
    ],
)
def test_max_pool_agrees_with_max_pool2d(image, window, strides, pads, ties):
    static = {"window": window, "strides": strides, "padding": [(p, p) for p in pads]}
    x = normal(0, 2, *image, 3)
    assert_torch_agrees(
        lambda x: pooling.max_pool_forward(x, **static),
        without_parameters(pooling.max_pool_backward, **static),
        lambda x: torch.nn.functional.max_pool2d(x, window, strides, pads),
        (np.round(x) if ties else x,),
        (IMAGE,),
        IMAGE,
    )


@pytest.mark.parametrize(
    ("image", "output_size"),
    [((13, 13), (6, 6)), ((6, 6), (6, 6)), ((7, 5), (3, 1)), ((1, 2), (6, 6))],
)
def test_adaptive_average_pool_agrees_with_adaptive_avg_pool2d(image, output_size):
    static = {"output_size": output_size}
    assert_torch_agrees(
        lambda x: pooling.adaptive_average_pool_forward(x, **static),
        without_parameters(pooling.adaptive_average_pool_backward, **static),
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x, output_size),
        (normal(0, 2, *image, 3),),
        (IMAGE,),
        IMAGE,
    )


@pytest.mark.parametrize("alpha", [1e-4, 0.3])
@pytest.mark.parametrize("n", [5, 4, 1])
def test_local_response_norm_agrees_with_torch_whose_alpha_is_divided_by_n(n, alpha):
    static = {"n": n, "alpha": alpha}
    assert_torch_agrees(
        lambda x: normalization.local_response_norm_forward(x, **static),
        without_parameters(normalization.local_response_norm_backward, **static),
        lambda x: torch.nn.functional.local_response_norm(x, n, alpha * n, 0.75, 2.0),
        (3 * normal(0, 2, 4, 5, 8),),
        (IMAGE,),
        IMAGE,
    )


def test_cross_entropy_agrees_with_torch():
    labels = np.array([0, 3, 3, 9])
    assert_torch_agrees(
        lambda z: losses.softmax_cross_entropy_forward(z, jnp.asarray(labels)),
        without_parameters(losses.softmax_cross_entropy_backward),
        lambda z: torch.nn.functional.cross_entropy(z, torch.tensor(labels), reduction="none"),
        (10 * normal(0, 4, 10),),
        (SAME,),
        SAME,
    )


@pytest.mark.parametrize(
    ("forward", "backward", "stock"),
    [
        (activations.sigmoid_forward, activations.sigmoid_backward, "sigmoid"),
        (activations.relu_forward, activations.relu_backward, "relu"),
        (activations.softmax_forward, activations.softmax_backward, "softmax"),
    ],
    ids=["sigmoid", "relu", "softmax"],
)
@pytest.mark.parametrize("scale", [0, 1, 1e4])
def test_activations_agree_with_torch(forward, backward, stock, scale):
    last_axis = {"dim": -1} if stock == "softmax" else {}
    assert_torch_agrees(
        forward,
        without_parameters(backward),
        lambda x: getattr(torch, stock)(x, **last_axis),
        (scale * normal(0, 4, 10),),
        (SAME,),
        SAME,
    )
