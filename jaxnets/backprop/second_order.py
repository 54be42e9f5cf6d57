"""The product of the Hessian and a vector by hand: how a gradient changes along a direction.

The Hessian H of a network with n parameters has n² numbers. Its product with one direction V costs
about two gradients, and H is never written down. For any number f of the passes let

    R f = d/dε f(params + ε V) at ε = 0

be its change along V. The gradient is such a number, and its change is the product: R(gradient) =
H V. R obeys the rules of a derivative, R(a b) = (R a) b + a (R b), so R applies to each line of the
forward and of the backward pass. Functions named `_along` compute the results.

Source: Pearlmutter 1994, "Fast Exact Multiplication by the Hessian", section 3.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxnets.backprop.dense import Inputs, Outputs, dense_backward, dense_forward
from jaxnets.backprop.losses import (
    Losses,
    Rows,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from jaxnets.backprop.relu import Numbers, relu_backward, relu_forward
from jaxnets.backprop.rule import Params
from jaxnets.losses import Labels


def dense_forward_along(cache: tuple[Inputs, Params], v: Params, rx: Inputs) -> Outputs:
    """Applies R to z = X W + b, with R W = V_W and R b = V_b.

        R z = (R X) W + X V_W + V_b

    Args:
      cache: `dense_forward`'s.
      v: The direction: {"kernel": V_W [D, K], "bias": V_b [K]}.
      rx: R X [B, D]; 0 for the images.
    """
    x, params = cache
    rz = rx @ params["kernel"] + x @ v["kernel"]
    return rz + v["bias"] if "bias" in params else rz


def dense_backward_along(
    cache: tuple[Inputs, Params], dz: Outputs, v: Params, rx: Inputs, rdz: Outputs
) -> tuple[Params, Inputs]:
    """Applies R to dW = Xᵀ dz, db = sum_b dz, dX = dz Wᵀ.

        R dW = (R X)ᵀ dz + Xᵀ (R dz)
        R db = sum_b R dz
        R dX = (R dz) Wᵀ + dz V_Wᵀ

    Args:
      cache: `dense_forward`'s.
      dz: The gradient from above [B, K].
      v: The direction, as in `dense_forward_along`.
      rx: R X [B, D].
      rdz: R dz [B, K].
    """
    x, params = cache
    product = {"kernel": rx.T @ dz + x.T @ rdz}
    if "bias" in params:
        product = {**product, "bias": rdz.sum(axis=0)}
    return product, rdz @ params["kernel"].T + dz @ v["kernel"].T


def relu_along(cache: Numbers, change: Numbers) -> Numbers:
    """Applies R to y = max(x, 0), and to dx = 1[x > 0] dy: the same for both.

        R y  = 1[x > 0] R x
        R dx = 1[x > 0] R dy      1[x > 0] does not change, except at the kink

    Args:
      cache: `relu_forward`'s.
      change: R x in the forward pass, R dy in the backward pass.
    """
    return relu_backward(cache, change)


def softmax_cross_entropy_along(cache: tuple[Rows, Labels], d_losses: Losses, rz: Rows) -> Rows:
    """Applies R to dz_bk = (p_bk - y_bk) d_loss_b, with p = softmax(z).

        R p_bk  = p_bk (R z_bk - sum_j p_bj R z_bj)      ∂p_k/∂z_j = p_k (1[j = k] - p_j)
        R dz_bk = R p_bk d_loss_b                        the labels do not change

    Args:
      cache: `softmax_cross_entropy_forward`'s.
      d_losses: The weight of each loss [B].
      rz: R z [B, K].
    """
    p, _labels = cache
    rp = p * (rz - (p * rz).sum(axis=-1, keepdims=True))
    return rp * d_losses[:, None]


def hessian_vector_product(
    params: Mapping[str, Params], x: Inputs, labels: Labels, vector: Mapping[str, Params]
) -> tuple[dict[str, Params], dict[str, Params]]:
    """The gradient of a dense network's mean cross-entropy, and the product H V.

    Between two layers there is a ReLU. R goes forward with the values, then backward with the
    gradient.

    Args:
      params: The layers in their order: {"hidden": {"kernel", "bias"}, ..., "logits": ...}.
      x: Rows [B, D].
      labels: Classes [B], or probabilities [B, K].
      vector: V, a tree as `params`.

    Returns:
      (gradient, H V), two trees as `params`.

    >>> params = {"logits": {"kernel": jnp.zeros((1, 2))}}
    >>> vector = {"logits": {"kernel": jnp.array([[1.0, 0.0]])}}
    >>> _, product = hessian_vector_product(params, jnp.ones((1, 1)), jnp.array([0]), vector)
    >>> product["logits"]["kernel"].tolist()  # p (1 - p) and -p (1 - p), for p = 1/2
    [[0.25, -0.25]]
    """
    names, dense, relu, changes = list(params), {}, {}, {}
    rx = jnp.zeros_like(x)
    for name in names:
        changes[name] = rx
        x, dense[name] = dense_forward(params[name], x)
        rx = dense_forward_along(dense[name], vector[name], rx)
        if name != names[-1]:
            x, relu[name] = relu_forward(x)
            rx = relu_along(relu[name], rx)
    losses, cache = softmax_cross_entropy_forward(x, labels)
    d_losses = jnp.full_like(losses, 1 / len(losses))
    dx: Any = softmax_cross_entropy_backward(cache, d_losses)
    rdx = softmax_cross_entropy_along(cache, d_losses, rx)
    gradient, product = {}, {}
    for name in reversed(names):
        if name in relu:
            dx, rdx = relu_backward(relu[name], dx), relu_along(relu[name], rdx)
        product[name], rdx = dense_backward_along(dense[name], dx, vector[name], changes[name], rdx)
        gradient[name], dx = dense_backward(dense[name], dx)
    return {name: gradient[name] for name in names}, {name: product[name] for name in names}
