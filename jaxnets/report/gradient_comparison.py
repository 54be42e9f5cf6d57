"""Each array's gradient by hand and by autodiff, in three precisions.

Also the sizes of a network's weights, gradients and next updates, layer by layer.
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rules import rule_of
from jaxnets.base.trees import by_layer
from jaxnets.data.batches import Batch, train_batches
from jaxnets.data.datasets import Dataset
from jaxnets.gradcheck.compare import PRECISIONS, TOLERANCES
from jaxnets.gradcheck.errors import floor_of, recording_terms, relative_error
from jaxnets.gradcheck.oracle import both_loss_and_grads
from jaxnets.gradcheck.quick import precision, quick_options
from jaxnets.kernels import accelerate
from jaxnets.losses import LOSSES
from jaxnets.machine.platform import default_platform
from jaxnets.models.batch_norm import statistics_of
from jaxnets.models.chain import walk
from jaxnets.networks.create import create_model
from jaxnets.predict.trained import TrainedNetwork, to_input
from jaxnets.runs import checkpoints
from jaxnets.runs.run_folder import CHECKPOINTS, RunFolder, num_params
from jaxnets.training.optimizer import optimizer_of
from jaxnets.training.step import autodiff_loss_and_grad

# Larger networks are compared only in float32: in float64 they take minutes.
MAX_PARAMS = 5_000_000
IMAGES, FEW_IMAGES = 32, 2

GradientArrays = Any  # Arrays by layer and name.


class Gradients(NamedTuple):
    """Gradients of the summed loss of some training images, in one or several precisions."""

    count: int  # The number of images.
    manual: dict[str, GradientArrays]  # By hand.
    automatic: dict[str, GradientArrays]  # By autodiff of the plain network.
    terms: dict[str, GradientArrays]  # Recorded by `errors.recording_terms`.
    kernels: GradientArrays | None  # By hand with this machine's kernels, in float64.


def gradients_of(trained: TrainedNetwork, data: Dataset) -> Gradients:
    """Both gradients at the run's own weights, on its first training images.

    With fewer digits than float64's, autodiff differentiates the float32 network at the numbers of
    the forward pass by hand (`oracle.both_loss_and_grads`).
    """
    is_large = num_params(trained.params) > MAX_PARAMS
    batch = _first_batch(trained, data, FEW_IMAGES if is_large else IMAGES)
    programs, arrays = [], {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # bfloat16's program takes the longest to compile, so it comes first.
        for dtype in ("float32",) if is_large else reversed(PRECISIONS):
            with precision(dtype):
                # By NumPy, because JAX would compile a program for each array's shape.
                wide = np.float64 if dtype == "float64" else np.float32
                arrays[dtype] = jax.tree.map(
                    lambda x, wide=wide: np.asarray(x, None if x.dtype == np.int32 else wide),
                    (trained.params, batch),
                )
                options = quick_options(fast=dtype == "float64")
                for program in _programs(trained, dtype):
                    lowered = jax.jit(program, compiler_options=options).lower(*arrays[dtype])
                    programs.append((dtype, pool.submit(lowered.compile)))
    found: dict[str, list[GradientArrays]] = {dtype: [] for dtype in PRECISIONS if dtype in arrays}
    for dtype, program in programs:
        with precision(dtype):
            found[dtype] += jax.device_get(program.result()(*arrays[dtype]))
    manual, terms, automatic = ({d: trees[i] for d, trees in found.items()} for i in range(3))
    kernels = None if is_large else found["float64"][3]
    return Gradients(len(batch.labels), manual, automatic, terms, kernels)


def _programs(trained: TrainedNetwork, dtype: str) -> list[Any]:
    """Functions (params, batch) that return lists.

    Together the lists hold the pairs' gradient and its terms, autodiff's, and the kernels'.
    """
    config = dataclasses.replace(trained.config, precision=dtype)
    model = create_model(config, len(trained.class_names))

    def key() -> jax.Array:  # The default's random numbers take longer to compile.
        return jax.random.key(0, impl="rbg")

    if dtype != "float64":
        both = both_loss_and_grads(model, model, config.loss, "float32")

        def in_few_digits(params: Any, batch: Batch) -> list[GradientArrays]:
            found = both(params, batch, key())[1]
            return [found.manual, found.terms, found.automatic]

        return [in_few_digits]

    def manual(params: Any, batch: Batch) -> list[GradientArrays]:
        terms: list[jax.Array] = []
        by_hand = manual_loss_and_grad(model, config.loss, recording_terms(rule_of, terms))
        return [by_hand(params, batch, key())[1], terms]

    automatic = autodiff_loss_and_grad(model.apply, LOSSES[config.loss])
    kernels = manual_loss_and_grad(accelerate(model, default_platform()), config.loss)
    return [
        manual,
        lambda params, batch: [automatic(params, batch, key())[1]],
        lambda params, batch: [kernels(params, batch, key())[1]],
    ]


def _first_batch(trained: TrainedNetwork, data: Dataset, count: int) -> Batch:
    """The first images of the run's first epoch as floats, not augmented."""
    config, count = trained.config, min(count, len(data.train))
    batch = next(train_batches(data.train, count, seed=config.seed, epoch=0))
    return batch._replace(images=np.asarray(to_input(config, batch.images)))


class ComparedArray(NamedTuple):
    """An array of parameters, with its gradient by hand compared to that by autodiff."""

    layer: str
    array: str
    shape: tuple[int, ...]
    manual: float  # The largest element in the widest precision: by hand,
    automatic: float  # and by autodiff.
    errors: dict[str, float]  # The largest relative error in each precision.
    kernels: float | None  # The kernels' error compared with the pairs, in float64.

    @property
    def ok(self) -> bool:
        """Whether every error is within gradcheck's tolerance."""
        if self.kernels is not None and not self.kernels <= TOLERANCES["float64"]:
            return False
        return all(error <= TOLERANCES[dtype] for dtype, error in self.errors.items())


def layers_with_params(trained: TrainedNetwork) -> list[str]:
    """The layers with parameters, in the order of the forward pass, as `by_layer` names them."""
    names = [".".join(path) for path, _ in walk(trained.model)]
    with_params = by_layer(trained.params)
    return [name for name in names if name in with_params]


def compared_arrays(trained: TrainedNetwork, found: Gradients) -> list[ComparedArray]:
    """Every array of a network, with errors as in gradcheck."""
    widest, entries = next(iter(found.manual)), []
    by_hand = {dtype: by_layer(tree) for dtype, tree in found.manual.items()}
    by_autodiff = {dtype: by_layer(tree) for dtype, tree in found.automatic.items()}
    by_kernels = None if found.kernels is None else by_layer(found.kernels)
    floors = {
        dtype: floor_of((tree, found.terms[dtype]), dtype, TOLERANCES[dtype])
        for dtype, tree in found.automatic.items()
    }
    for layer in layers_with_params(trained):
        for name, reference in by_autodiff[widest][layer].items():
            at = np.unravel_index(np.abs(reference).argmax(), reference.shape)
            errors = {}
            for dtype, automatic in by_autodiff.items():
                pair = by_hand[dtype][layer][name], automatic[layer][name]
                errors[dtype] = relative_error(*pair, floors[dtype])[0]
            manual = float(by_hand[widest][layer][name][at])
            kernels = None
            if by_kernels is not None:
                both = by_kernels[layer][name], by_hand["float64"][layer][name]
                kernels = relative_error(*both, floors["float64"])[0]
            numbers = manual, float(reference[at]), errors, kernels
            entries.append(ComparedArray(layer, name, reference.shape, *numbers))
    return entries


class Norms(NamedTuple):
    """The Euclidean norms of a layer's arrays."""

    layer: str
    weights: float
    gradient: float  # Of the mean loss of the images.
    update: float  # The change of the weights by one step, at the config's own learning rate.


def norms(folder: RunFolder, trained: TrainedNetwork, found: Gradients) -> list[Norms]:
    """The norms of each layer's weights, gradient and next update.

    The learning rate is the config's, because a schedule ends near 0; momentum is the checkpoint's.
    """
    config, params = trained.config, trained.params
    statistics = statistics_of(trained.model)
    optimizer = optimizer_of(config, lambda step: config.learning_rate, statistics)
    scale = 1 / found.count if config.reduction == "mean" else 1.0

    def sizes(params: Any, opt_state: Any, gradient: Any):
        gradient = jax.tree.map(lambda g, x: scale * g.astype(x.dtype), gradient, params)
        updates, _ = optimizer.update(gradient, opt_state, params)
        squares = jax.tree.map(lambda x: (x.astype(jnp.float32) ** 2).sum(), [gradient, updates])
        return [jax.tree.map(lambda x: (x.astype(jnp.float32) ** 2).sum(), params), *squares]

    opt_state = _optimizer_state(folder, trained, optimizer)
    compiled = jax.jit(sizes, compiler_options=quick_options())
    found_sizes = jax.device_get(compiled(params, opt_state, found.manual["float32"]))
    parts = [by_layer(part) for part in found_sizes]
    return [
        Norms(layer, *(float(np.sqrt(sum(part[layer].values()))) for part in parts))
        for layer in layers_with_params(trained)
    ]


def _optimizer_state(
    folder: RunFolder, trained: TrainedNetwork, optimizer: optax.GradientTransformation
) -> Any:
    """The checkpoint's optimizer state; a new one if it has none."""
    path = checkpoints.path_of(folder.path / CHECKPOINTS, trained.step)
    like = {"opt_state": jax.eval_shape(optimizer.init, trained.params)}
    try:
        return checkpoints.read(path, like, whole=False)["opt_state"]
    except (ValueError, OSError):
        return optimizer.init(trained.params)
