"""The hand-derived pairs against PyTorch's autograd: an oracle that shares no code with JAX.

Everything is float64, in the settings that are declared with each pair and in larger ones. PyTorch
keeps channels first: its functions take the images and kernels permuted.
"""

import jax
import numpy as np
import pytest
from conftest import quick_jit

from jaxnets.backprop.rule import Setting, all_rules
from jaxnets.gradcheck.compare import disagreement, precision
from jaxnets.gradcheck.layers import problem_of

torch = pytest.importorskip("torch", reason="PyTorch, the oracle of these tests, is not installed")
F = torch.nn.functional
RULES = all_rules()


def to_torch(x):
    x = torch.tensor(np.array(x))
    return x if x.is_floating_point() else x.long()


def padded(x, window, strides, padding, fill):
    """Images with their channels first and their padding around them."""
    sizes = zip(x.shape[1:3], window, strides, strict=True)
    if padding == "SAME":
        missing = [max((-(-size // s) - 1) * s + k - size, 0) for size, k, s in sizes]
        padding = [(m // 2, m - m // 2) for m in missing]
    rows, columns = [(0, 0), (0, 0)] if padding == "VALID" else padding
    return F.pad(x.permute(0, 3, 1, 2), (*columns, *rows), value=fill)


def conv(params, x, *, strides, padding, groups):
    kernel, bias = params["kernel"].permute(3, 2, 0, 1), params.get("bias")
    images = padded(x, kernel.shape[2:], strides, padding, 0.0)
    return F.conv2d(images, kernel, bias, strides, groups=groups).permute(0, 2, 3, 1)


def max_pool(x, *, window, strides, padding):
    images = padded(x, window, strides, padding, -np.inf)
    return F.max_pool2d(images, window, strides).permute(0, 2, 3, 1)


def local_response_norm(x, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """PyTorch divides its alpha by n."""
    rows = x.reshape(-1, x.shape[-1], 1)
    return F.local_response_norm(rows, n, alpha * n, beta, k).reshape(x.shape)


def dense_with_ones(params, x):
    return torch.cat([x, torch.ones(len(x), 1)], dim=1) @ params["kernel"]


def one_hot(labels, like):
    return labels if labels.ndim == 2 else F.one_hot(labels, like.shape[1])


def mse(p, y):
    return torch.square(p - y).mean(dim=1)


def half_mse(p, y):
    return torch.square(p - y).sum(dim=1) / 2


def cross_entropy(p, y):
    return F.nll_loss(torch.log(p + 1e-12), y.argmax(dim=1), reduction="none")


def behind_softmax(loss):
    return lambda z, labels: loss(F.softmax(z, dim=1), one_hot(labels, z))


STOCK = {
    "dense": lambda params, x: F.linear(x, params["kernel"].T, params.get("bias")),
    "dense_with_ones": dense_with_ones,
    "flatten": lambda x: x.flatten(1),
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softmax": lambda x: F.softmax(x, dim=-1),
    "conv": conv,
    "max_pool": max_pool,
    "adaptive_average_pool": lambda x, output_size: F.adaptive_avg_pool2d(
        x.permute(0, 3, 1, 2), output_size
    ).permute(0, 2, 3, 1),
    "local_response_norm": local_response_norm,
    "cross_entropy": cross_entropy,
    "softmax_then_cross_entropy": behind_softmax(cross_entropy),
    "softmax_cross_entropy": lambda z, labels: F.cross_entropy(z, labels, reduction="none"),
    "squared_error": mse,
    "half_squared_error": half_mse,
    "mse": behind_softmax(mse),
    "half_mse": behind_softmax(half_mse),
}


def larger_conv(image, window, strides, pads, channels, groups):
    params = {"kernel": (*window, channels // groups, 2 * groups), "bias": (2 * groups,)}
    static = {"strides": strides, "padding": [(p, p) for p in pads], "groups": groups}
    return Setting((3, *image, channels), params, static=static)


def larger_pool(image, window, strides, pads, numbers):
    static = {"window": window, "strides": strides, "padding": [(p, p) for p in pads]}
    return Setting((2, *image, 3), numbers=numbers, static=static)


LARGER = {
    **{name: [Setting((4, 10), scale=1e4)] for name in ("sigmoid", "relu", "softmax")},
    "conv": [
        larger_conv((8, 8), (3, 3), (1, 1), (1, 1), 16, 1),
        larger_conv((17, 15), (5, 4), (3, 2), (2, 1), 8, 1),
        larger_conv((17, 15), (5, 4), (3, 2), (0, 3), 2, 1),
        larger_conv((9, 9), (3, 3), (4, 4), (0, 0), 6, 6),
        larger_conv((1, 1), (1, 1), (2, 2), (0, 0), 3, 3),
    ],
    "max_pool": [
        larger_pool(image, window, strides, pads, numbers)
        for numbers in ("normal", "integers")
        for image, window, strides, pads in [
            ((13, 13), (3, 3), (2, 2), (0, 0)),
            ((9, 7), (2, 2), (2, 2), (0, 0)),
            ((9, 7), (3, 2), (1, 3), (1, 1)),
        ]
    ],
    "adaptive_average_pool": [Setting((2, 13, 13, 3), static={"output_size": (6, 6)})],
    "local_response_norm": [
        Setting((2, 4, 5, 8), scale=3, static={"n": n, "alpha": alpha})
        for n, alpha in [(5, 1e-4), (4, 1e-4), (1, 1e-4), (5, 0.3), (4, 0.3), (1, 0.3)]
    ],
    "softmax_cross_entropy": [Setting((4, 10), labels="classes", scale=10)],
}


@pytest.mark.parametrize("name", STOCK)
def test_a_pair_agrees_with_pytorch(name):
    """Outputs and gradients, to 1e-10 of each array's largest number."""
    rule = RULES[name]
    for setting in [*rule.settings, *LARGER.get(name, [])]:
        with precision("float64"):
            passes = problem_of(rule, setting).at("float64")
            ours = quick_jit(passes.manual)(passes.inputs, passes.constants)
            labels, d_out = jax.tree.map(to_torch, passes.constants)
            inputs = jax.tree.map(lambda x: to_torch(x).requires_grad_(), passes.inputs)
            arrays = [{**inputs, "labels": labels}[array] for array in rule.inputs]
            out = STOCK[name](*arrays, **setting.static)
            out.backward(d_out)
            gradient = jax.tree.map(lambda x: x.grad.numpy(), inputs)
            theirs = {"output": out.detach().numpy(), "gradient": gradient}
            assert disagreement(ours, theirs).value <= 1e-10, setting


def test_every_pair_but_dropout_has_its_counterpart():
    assert set(RULES) - set(STOCK) == {"dropout"}  # PyTorch draws other masks.
