"""The hand-derived pairs against PyTorch's autograd: an oracle that shares no code with JAX.

Everything is float64, in the settings that each pair names and in a few drawn from its domain.
PyTorch keeps channels first: its functions take the images and kernels permuted.
"""

import jax
import numpy as np
import pytest
from conftest import quick_jit

from jaxnets.course.exercises.derived import DERIVED
from jaxnets.gradcheck.compare import disagreement
from jaxnets.gradcheck.layer_check import drawn_settings, problem_of
from jaxnets.gradcheck.quick import precision

torch = pytest.importorskip("torch", reason="PyTorch, the oracle of these tests, is not installed")
pytestmark = pytest.mark.oracle
F = torch.nn.functional


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


def average_pool(x, *, window, strides):
    return F.avg_pool2d(x.permute(0, 3, 1, 2), window, strides).permute(0, 2, 3, 1)


def leaky_relu(x, *, slope):
    """PyTorch's derivative at 0 is the slope, JAX's is 1."""
    return F.leaky_relu(x, slope) + torch.where(x == 0, (1 - slope) * x, 0)


def layer_norm(params, x, *, epsilon):
    return F.layer_norm(x, x.shape[-1:], params.get("scale"), params.get("bias"), epsilon)


def local_response_norm(x, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """PyTorch divides its alpha by n."""
    rows = x.reshape(-1, x.shape[-1], 1)
    return F.local_response_norm(rows, n, alpha * n, beta, k).reshape(x.shape)


def one_hot(labels, like):
    return labels if labels.ndim == 2 else F.one_hot(labels, like.shape[1])


PROBABILITY_LOSSES = {
    "cross_entropy": lambda p, y: -(y * torch.log(p + 1e-12)).sum(dim=1),
    "squared_error": lambda p, y: torch.square(p - y).mean(dim=1),
    "half_squared_error": lambda p, y: torch.square(p - y).sum(dim=1) / 2,
}


def behind_softmax(name):
    loss = PROBABILITY_LOSSES[name]
    return lambda z, labels: loss(F.softmax(z, dim=1), one_hot(labels, z))


STOCK = {
    "dense": lambda params, x: F.linear(x, params["kernel"].T, params.get("bias")),
    "dense_with_ones": lambda params, x: F.pad(x, (0, 1), value=1) @ params["kernel"],
    "residual_dense": lambda params, x: x + (x @ params["kernel"] + params["bias"]).sigmoid(),
    "flatten": lambda x: x.flatten(1),
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky_relu": leaky_relu,
    "tanh": torch.tanh,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "softmax": lambda x: F.softmax(x, dim=-1),
    "conv": conv,
    "max_pool": max_pool,
    "average_pool": average_pool,
    "global_average_pool": lambda x: F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1),
    "adaptive_average_pool": lambda x, output_size: F.adaptive_avg_pool2d(
        x.permute(0, 3, 1, 2), output_size
    ).permute(0, 2, 3, 1),
    "local_response_norm": local_response_norm,
    "layer_norm": layer_norm,
    **PROBABILITY_LOSSES,
    "softmax_then_cross_entropy": behind_softmax("cross_entropy"),
    "softmax_cross_entropy": lambda z, labels: F.cross_entropy(z, labels, reduction="none"),
    "mse": behind_softmax("squared_error"),
    "half_mse": behind_softmax("half_squared_error"),
}


# PyTorch draws other masks of dropout; test_batch_norm.py has its batch norm, which takes no mask;
# test_resnet.py has its residual blocks.
@pytest.mark.parametrize("name", sorted(DERIVED.keys() - {"dropout", "batch_norm", "residual"}))
def test_a_pair_agrees_with_pytorch(name):
    """Outputs and gradients, to 1e-10 of each array's largest number."""
    rule = DERIVED[name]
    for setting in [*rule.settings, *drawn_settings(rule, draws=5, seed=3)]:
        with precision("float64"):
            passes = problem_of(rule, setting).at("float64")
            ours = quick_jit(passes.manual)(passes.inputs, passes.constants)
            labels, d_out = jax.tree.map(to_torch, passes.constants)
            inputs = jax.tree.map(lambda x: to_torch(x).requires_grad_(), passes.inputs)
            arrays = [{**inputs, "labels": labels}[array] for array in rule.inputs]
            out = STOCK[name](*arrays, **setting.static)
            out.backward(d_out)
            gradient = jax.tree.map(lambda x: x.grad.numpy(), inputs)
            output = out.detach().numpy()
            output = [output, gradient["params"]] if "params" in gradient else output
            theirs = {"output": output, "gradient": gradient}
            assert disagreement(ours, theirs).value <= 1e-10, setting
