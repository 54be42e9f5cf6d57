"""Checks whole networks at their real input sizes, by hand and with autodiff."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rules import rule_of
from jaxnets.base.language import Text
from jaxnets.base.trees import Params
from jaxnets.config.fields import Config
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.gradcheck.compare import (
    TOLERANCES,
    CheckResult,
    Passes,
    Problem,
    check_problems,
    with_statistics_aside,
)
from jaxnets.gradcheck.errors import recording_terms
from jaxnets.gradcheck.exact import OPEN, Claim, Draw, Question, Verdict
from jaxnets.gradcheck.layer_check import check_forwards, check_layer, layers_of, own_layers
from jaxnets.gradcheck.oracle import both_loss_and_grads
from jaxnets.kernels import accelerate
from jaxnets.kernels.conv_pool import ConvPool
from jaxnets.kernels.convolution import FastConv
from jaxnets.kernels.winograd import Limits
from jaxnets.losses import LOSSES
from jaxnets.models.chain import Chain, Layer, map_layers, shapes_of, walk
from jaxnets.networks.create import create_model
from jaxnets.training.step import LossAndGrad, autodiff_loss_and_grad

NUM_CLASSES = 10
MOST_EXACTLY = 4_000_000  # Parameters of a network that the exact check takes.
# Those from which its layers are narrowed, and the products of a forward pass.
MANY_PARAMS = 500_000
MANY_PRODUCTS = 7_000_000
DRAWN = 1_000_003  # Numbers that a large array repeats; with a prime, no two of its rows agree.


class NetworkCase(NamedTuple):
    """A network and the inputs on which it is tried."""

    config: Config
    image: tuple[int, ...] = (28, 28, 1)  # H, W, C
    num_classes: int = NUM_CLASSES
    batch: int = 8  # The number of images; the last of more than two only fills the batch up.
    slow: bool = False  # Whether it is checked only on request.
    narrower: int = 1  # What the layers' widths are divided by, but for the logits.

    def model(self, precision: str = "float32") -> Chain:
        """The network in a precision."""
        config = dataclasses.replace(self.config, precision=precision)
        model = create_model(config, self.num_classes)
        if self.narrower == 1:
            return model
        logits, any_numbers = _wide_layers(model)[-1], nn.initializers.zeros_init()

        def change(layer: Any) -> Layer:
            if not isinstance(layer, nn.Dense | nn.Conv):
                return layer
            width = layer.features // (1 if layer is logits else self.narrower)
            # A user's own initializer may count on a width; a check draws its own numbers.
            return layer.clone(features=width, kernel_init=any_numbers, bias_init=any_numbers)

        return map_layers(model, change)

    def size(self) -> int:
        """The number of its parameters."""
        shapes = _param_shapes(self.model(), (self.batch, *self.image))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def products(self) -> int:
        """The products of its dense layers and convolutions, forward for a batch."""
        count = 0
        for layer, shape in layers_of(self.model(), (self.batch, *self.image)):
            if isinstance(layer, nn.Dense | nn.Conv):
                out, params = shapes_of(layer, shape)
                kernel = sum(leaf.size for leaf in jax.tree.leaves(params))
                count += math.prod(out.shape[:-1]) * kernel
        return count


def networks() -> dict[str, NetworkCase]:
    """Every network that has a recipe; `alexnet` also at the size of ImageNet's images."""
    found = {}
    for name, recipe in PRESETS.items():
        slow = name not in ("alexnet", "alexnet_small")
        if name.startswith("alexnet_small"):
            found[name] = NetworkCase(preset(name), (32, 32, 3), batch=2, slow=slow)
        elif "input_size" in recipe:
            found[name] = NetworkCase(preset(name), batch=2, slow=slow)
        elif name == "resnet20":
            found[name] = NetworkCase(preset(name), (32, 32, 3), batch=4, slow=True)
        else:
            found[name] = NetworkCase(preset(name))
    large = preset("alexnet", input_size=224)
    return found | {"alexnet 224": NetworkCase(large, (224, 224, 3), batch=2, slow=True)}


def network_for(config: Config, image: tuple[int, ...], num_classes: int) -> NetworkCase:
    """The case of a config's network, for a data set's images and classes."""
    known = networks().get(config.model, NetworkCase(config))
    return known._replace(config=config, image=image, num_classes=num_classes)


def check_own_layers(
    network: NetworkCase, draws: int | None = None, seed: int = 0
) -> Iterator[CheckResult]:
    """Checks each of the user's own layers by itself.

    It gets inputs as in the network, and others are drawn from its rule's domain.
    """
    model = network.model(network.config.precision)
    check_forwards(model, network.image)
    for layer, shape in own_layers(model, (network.batch, *network.image)):
        yield check_layer(layer, [shape], draws, seed)


def check_network(name: str, network: NetworkCase) -> CheckResult:
    """Shows a network's gradients on small images, and compares them with autodiff on its own.

    With fewer digits than float64's, the gradient's oracle is `oracle.both_loss_and_grads`, and the
    loss is compared with that of a float32 network.
    """
    return _checked(f"{name}, {network.config.loss}", network)


def has_kernels(network: NetworkCase) -> bool:
    """Whether a CPU's kernels replace any of its layers."""
    model = network.model(network.config.precision)
    layers = zip(walk(model), walk(accelerate(model, "cpu")), strict=True)
    return any(rule_of(plain) is not rule_of(fast) for (_, plain), (_, fast) in layers)


def check_network_with_kernels(name: str, network: NetworkCase) -> CheckResult:
    """Compares the gradients of a CPU's kernels with those of the pairs in float64.

    With fewer digits, units are on other sides of their kinks: there the oracle is autodiff at
    the kernels' own numbers.
    """
    return _checked(f"{name}, kernels", network, kernels=True)


def _checked(name: str, network: NetworkCase, *, kernels: bool = False) -> CheckResult:
    started = time.perf_counter()
    small = narrowed(network._replace(image=small_image(network), batch=2))
    verdict = _verdict(small, kernels=kernels)
    problem = network_problem(network, kernels=kernels)._replace(verdict=verdict)
    row = check_problems(name, [problem], TOLERANCES)
    return row._replace(seconds=time.perf_counter() - started, narrower=small.narrower)


def _verdict(small: NetworkCase, *, kernels: bool) -> Verdict | None:
    """The exact check's verdict on two small images, if the network is small enough."""
    if (size := small.size()) > MOST_EXACTLY:
        return Verdict(OPEN, Text("a network of {} parameters", f"{size:,}"))
    return network_problem(small, kernels=kernels).decided.verdict


def narrowed(network: NetworkCase) -> NetworkCase:
    """The network with its widths halved while it has many parameters or products.

    Each width stays a multiple of all layers' groups. A user's own layer may count on a width.
    """
    model = network.model()
    layers = _wide_layers(model)
    if len(layers) < 2 or any(own_layers(model, (network.batch, *network.image))):
        return network
    groups = math.lcm(*(getattr(layer, "feature_group_count", 1) for layer in layers))
    common = math.gcd(*(layer.features for layer in layers[:-1])) // groups
    while common % (2 * network.narrower) == 0 and (
        network.size() > MANY_PARAMS or network.products() > MANY_PRODUCTS
    ):
        network = network._replace(narrower=2 * network.narrower)
    return network


def _wide_layers(model: Chain) -> list[Any]:
    """The layers whose outputs have a width; the last one gives the logits."""
    return [layer for _, layer in walk(model) if isinstance(layer, nn.Dense | nn.Conv)]


def small_image(network: NetworkCase) -> tuple[int, ...]:
    """The shape of an image, halved while each layer that sees pixels sees two rows of them.

    It has a column more than rows: then a transposed image is noticed.
    """
    model = network.model()

    def halved(image: tuple[int, ...]) -> tuple[int, ...]:
        rows = image[0] // 2
        return rows, rows + 1, image[2]

    def is_enough(image: tuple[int, ...]) -> bool:
        try:
            shapes = [shape for _layer, shape in layers_of(model, (1, *image))]
        except Exception:  # Whatever a layer says of images that it cannot take.
            return False
        return all(min(shape[1:3]) > 1 for shape in shapes if len(shape) == 4)

    image = network.image
    while len(image) == 3 and is_enough(halved(image)):  # A table's row stays as it is.
        image = halved(image)
    return image


def network_problem(network: NetworkCase, *, kernels: bool = False) -> Problem:
    """A network with random parameters, images and labels, one of them padding.

    With kernels, their gradient is compared, in float64 with that of the pairs.
    """
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(network.batch, *network.image))
    labels = rng.integers(0, network.num_classes, network.batch, dtype=np.int32)
    mask = np.ones(network.batch)
    mask[-1] = network.batch <= 2
    loss = LOSSES[network.config.loss]
    plain = network.model()
    # A narrow network's few channels are computed in tiles, as the whole network's many are.
    limits = Limits(fewest_tiles=1, fewest_channels=4 if network.narrower > 1 else None)

    def at(precision: str) -> Passes:
        model = _with_masks_of_float32(network.model(precision), precision)
        trained = accelerate(model, "cpu") if kernels else model

        def manual(params: Params, batch: Batch) -> dict[str, Any]:
            terms: list[jax.Array] = []
            find_rule = recording_terms(rule_of, terms)
            used = _as_many(trained, limits) if precision == "float64" else trained
            loss_and_grad = manual_loss_and_grad(used, network.config.loss, find_rule)
            return {**outcome(loss_and_grad, params, batch), "terms": terms}

        def automatic(params: Params, batch: Batch) -> dict[str, Any]:
            if precision == "float64" and kernels:
                return outcome(manual_loss_and_grad(model, network.config.loss), params, batch)
            if precision == "float64":
                return outcome(autodiff_loss_and_grad(model.apply, loss), params, batch)
            both = both_loss_and_grads(model, trained, network.config.loss, "float32")
            output = outcome(autodiff_loss_and_grad(plain.apply, loss), params, batch)["output"]
            return {"output": output, "gradient": both(params, batch, jax.random.key(0))[1][1]}

        wide = "float64" if precision == "float64" else "float32"
        # Drawn again for every precision: to keep AlexNet's would take 230 MB.
        inputs, batch = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, leaf.dtype if leaf.dtype == np.int32 else wide),
            (random_params(plain, images), Batch(images, labels, mask)),
        )

        def claim(params: Params, batch: Batch) -> Claim:
            found = manual(params, batch)
            if not kernels:
                return Claim(found["output"], found["gradient"])
            del found["terms"]
            return Claim(same=(found, automatic(params, batch)))

        def drawn(draw: Draw) -> Any:
            return batch._replace(images=draw.numbers(images), labels=labels, mask=mask)

        question = Question(claim, drawn)
        return with_statistics_aside(Passes(inputs, batch, manual, automatic, question=question))

    return Problem("x".join(map(str, images.shape)), at, large=True)


def _as_many(model: Chain, limits: Limits) -> Chain:
    """The network whose convolutions use the kernels of a batch in training for a few images too.

    It is for float64: in float32 Winograd's tiles round by more than the tolerance.
    """

    def change(layer: Layer) -> Layer:
        return layer.clone(limits=limits) if isinstance(layer, FastConv | ConvPool) else layer

    return map_layers(model, change)


def _with_masks_of_float32(model: Chain, precision: str) -> Chain:
    """The network whose dropouts keep in float64 what they keep with fewer digits.

    A mask is drawn in the precision of its probability.
    """

    def change(layer: Layer) -> Layer:
        if precision != "float64" or not isinstance(layer, nn.Dropout):
            return layer
        return layer.clone(rate=np.float32(layer.rate))

    return map_layers(model, change)


def outcome(loss_and_grad: LossAndGrad, params: Params, batch: Batch) -> dict[str, Any]:
    """What a gradient check compares: the loss, summed over a batch, and its gradient."""
    metrics, gradient = loss_and_grad(params, batch, jax.random.key(0))
    return {"output": metrics.loss_sum, "gradient": gradient}


def random_params(model: Chain, images: np.ndarray) -> Params:
    """Draws kernels as He et al. 2015 do, biases other than 0, and a batch norm's scales near 1.

    With scales near 0, biases outweigh what the norm lets through. Then some units fire for hardly
    any image, and the next norm divides their rounding by almost nothing.
    """
    shapes = _param_shapes(model, images.shape)
    rng = np.random.default_rng(1)

    def draw(path: Sequence[Any], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        spread = 0.1 if len(leaf.shape) == 1 else np.sqrt(2 / np.prod(leaf.shape[:-1]))
        mean = 1.0 if path[-1].key in ("scale", "var") else 0.0
        drawn = mean + np.float32(spread) * rng.standard_normal(min(leaf.size, DRAWN), np.float32)
        return np.resize(drawn, leaf.shape)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _param_shapes(model: Chain, shape: tuple[int, ...]) -> Any:
    """The shapes of a network's parameters for images of this shape, batch first."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]
