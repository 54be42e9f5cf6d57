"""Checks what is made from the pairs: layers in a faster form, and the Hessian's products.

`accelerate` replaces layers, for either gradient. A pair or a kernel may be right, and yet be put
into a network with another stride, or without a layer's epsilon.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.second_order import hessian_vector_product
from jaxnets.base.trees import Params
from jaxnets.data.batches import Batch
from jaxnets.gradcheck.compare import TOLERANCES, CheckResult, Passes, Problem, check_problems
from jaxnets.gradcheck.exact import Claim, Draw, Question
from jaxnets.gradcheck.networks import outcome, random_params
from jaxnets.kernels import accelerate
from jaxnets.kernels.wide_dense import WIDE
from jaxnets.losses import LOSSES
from jaxnets.models.alexnet_layers import LocalResponseNorm
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain
from jaxnets.models.layers import AveragePool, MaxPool, global_average_pool
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.training.step import autodiff_loss_and_grad

# Each kind of layer that `accelerate` replaces. Few settings are the defaults, which a lost setting
# becomes. With beta = 1 the thousands of numbers of the normalization need no root: then the exact
# check also decides on a network that is wrong.
REPLACED = Chain(
    [
        nn.Conv(4, (3, 2), (1, 2), ((1, 0), (0, 2)), use_bias=False, name="conv1"),
        BatchNorm(epsilon=0.1, name="norm1"),
        nn.relu,
        MaxPool(3, 1),
        nn.Conv(6, (3, 3), padding="VALID", feature_group_count=2, name="conv2"),
        AveragePool(2, 1),
        LocalResponseNorm(k=1.0, n=3, alpha=0.1, beta=1.0),
        nn.Conv(5, (3, 3), name="conv3"),
        nn.relu,
        MaxPool(2, 2),
        global_average_pool,
        DenseWithOnes(6, name="hidden1"),
        nn.relu,
        nn.Dense(WIDE + 1, name="hidden2"),
        nn.tanh,
        nn.Dense(3, name="logits"),
    ]
)
IMAGES = (5, 13, 23, 2)
Weights = dict[str, dict[str, jax.Array]]  # Of dense layers.

HIDDEN = (5, 4, 6)  # Three layers: one is neither the first nor the last.


def check_replaced_layers() -> CheckResult:
    """Compares both gradients of a network that `accelerate` has changed with stock autodiff's.

    They are also exactly those of the pairs; that does not replace stock autodiff, which reads the
    layers' settings by itself.

    On a CPU it puts kernels into it; on a GPU layers that jax.grad differentiates with their pairs.
    """
    problems = [_replaced_problem(platform) for platform in ("cpu", "gpu")]
    both = [*problems, *(problem.decided for problem in problems)]
    return check_problems("replaced layers", both, {"float64": TOLERANCES["float64"]})


def _replaced_problem(platform: str) -> Problem:
    loss = "cross_entropy"

    def manual(params: Params, batch: Batch) -> dict[str, Any]:
        model = accelerate(REPLACED, platform)
        by_jax = outcome(autodiff_loss_and_grad(model.apply, LOSSES[loss]), params, batch)
        by_hand = outcome(manual_loss_and_grad(model, loss), params, batch)
        return jax.tree.map(lambda *both: list(both), by_jax, by_hand)

    def automatic(params: Params, batch: Batch) -> dict[str, Any]:
        stock = outcome(autodiff_loss_and_grad(REPLACED.apply, LOSSES[loss]), params, batch)
        return jax.tree.map(lambda leaf: [leaf, leaf], stock)

    def at(precision: str) -> Passes:
        random = np.random.default_rng(0)
        images = random.standard_normal(IMAGES)
        labels = random.integers(0, 3, len(images), dtype=np.int32)
        mask = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
        params, batch = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, leaf.dtype if leaf.dtype == np.int32 else precision),
            (random_params(REPLACED, images), Batch(images, labels, mask)),
        )

        def claim(params: Params, batch: Batch) -> Claim:
            pairs = outcome(manual_loss_and_grad(REPLACED, loss), params, batch)
            return Claim(same=(manual(params, batch), jax.tree.map(lambda leaf: [leaf] * 2, pairs)))

        def drawn(draw: Draw) -> Batch:
            return batch._replace(images=draw.numbers(images), labels=labels, mask=mask)

        return Passes(params, batch, manual, automatic, None, Question(claim, drawn))

    return Problem(f"{'x'.join(map(str, IMAGES))} for a {platform}", at, brief=True)


def check_hessian_vector_product() -> CheckResult:
    """Compares `second_order.hessian_vector_product` with jax.jvp of jax.grad of plain layers.

    In one of the settings many numbers before a ReLU are exactly 0.
    """
    problems = [_product_problem(numbers).decided for numbers in ("normal", "integers")]
    tolerances = {dtype: TOLERANCES[dtype] for dtype in ("float64", "float32")}
    return check_problems("hessian_vector_product", problems, tolerances)


def _product_problem(numbers: str) -> Problem:
    sizes = (6, *HIDDEN, 3)

    def loss_of(params: Weights, x: jax.Array, labels: jax.Array) -> jax.Array:
        *hidden, last = params.values()
        for layer in hidden:
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        log_p = jax.nn.log_softmax(x @ last["kernel"] + last["bias"])
        return -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()

    def manual(params: Weights, constants: tuple[jax.Array, jax.Array, Weights]) -> dict[str, Any]:
        x, labels, vector = constants
        gradient, product = hessian_vector_product(params, x, labels, vector)
        return {"output": gradient, "gradient": product}

    def automatic(
        params: Weights, constants: tuple[jax.Array, jax.Array, Weights]
    ) -> dict[str, Any]:
        x, labels, vector = constants
        gradient = jax.grad(lambda params: loss_of(params, x, labels))
        return dict(
            zip(("output", "gradient"), jax.jvp(gradient, (params,), (vector,)), strict=True)
        )

    def at(precision: str) -> Passes:
        random = np.random.default_rng(0)

        def drawn(*shape: int) -> jax.Array:
            of_kind = {
                "normal": random.standard_normal,
                "integers": lambda s: random.integers(-1, 2, s),
            }
            return jnp.asarray(of_kind[numbers](shape), precision)

        layers = {
            f"layer{number}": {"kernel": drawn(*shape), "bias": drawn(shape[1])}
            for number, shape in enumerate(zip(sizes, sizes[1:], strict=False))
        }
        vector = jax.tree.map(
            lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), precision), layers
        )
        x, labels = drawn(7, sizes[0]), jnp.asarray(random.integers(0, 3, 7), jnp.int32)

        def claim(params: Weights, constants: tuple[jax.Array, jax.Array, Weights]) -> Claim:
            # The Hessian is symmetric: H v is the gradient of <g, v>.
            found, vector = manual(params, constants), constants[2]
            along = jax.tree.map(lambda g, v: (g * v).sum(), found["output"], vector)
            return Claim(jax.tree.reduce(jnp.add, along), found["gradient"])

        def drawn_exactly(draw: Draw) -> Any:
            return draw.numbers(x), np.asarray(labels), jax.tree.map(draw.numbers, vector)

        question = Question(claim, drawn_exactly)
        return Passes(layers, (x, labels, vector), manual, automatic, None, question)

    return Problem(f"7x{'x'.join(map(str, sizes))} {numbers}", at)
