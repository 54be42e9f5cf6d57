"""From a Config to its model, state, step and loop: each in a line, for scripts and notebooks.

>>> import jaxnets
>>> config = jaxnets.preset("softmax", epochs=1)
>>> data = jaxnets.load_dataset("mnist")
>>> model = jaxnets.create_model(config, data)
>>> state = jaxnets.create_state(config, model, data)
>>> state, history = jaxnets.train(config, model, state, data)
>>> jaxnets.evaluate(config, model, state.params, data.test).accuracy > 0.9
True
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.backprop.check import relative_error
from jaxnets.backprop.custom_vjp import with_custom_vjp
from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.config.fields import NO_PLATEAU, SINGLE_PROCESS, Config
from jaxnets.data.datasets import Dataset, Pictures, Split
from jaxnets.errors import UserError
from jaxnets.losses import LOSSES
from jaxnets.machine.distributed import is_connected
from jaxnets.machine.platform import Devices, compiler_options_for_init, prepare
from jaxnets.metrics import Metrics
from jaxnets.models import MODELS
from jaxnets.models.chain import Chain, first_dense, has_convolution, with_precision
from jaxnets.models.torchvision import load_weights
from jaxnets.training import loop, nonzero_pixels
from jaxnets.training.augment import Augment, augmentation, principal_components
from jaxnets.training.crops import with_center_crop, with_ten_crops
from jaxnets.training.optimizer import (
    FACTOR,
    create_optimizer,
    create_schedule,
    plateau_of,
    update_plateau,
    with_plateau,
)
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import (
    LossAndGrad,
    TrainState,
    accumulate_gradients,
    autodiff_loss_and_grad,
    make_eval_step,
    make_gradient_step,
    make_train_step,
)

# The relative error at which --gradients=both ends a run. In float32 the cnn showed 3.9e-7 and
# mlp_sequential 4.2e-7; a batch's gradient is a sum in which much may cancel, hence the room.
GRADIENT_TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "bfloat16": 0.5, "mixed": 0.5}


# Examples that a dense network takes at once of a larger batch: 60 blocks of MNIST's 60,000.
# On two cores 750 to 1,000 were the fastest (benchmarks/dense_epoch.py mlp_handwritten).
BLOCK_SIZE = 1000

Check = Callable[[int, TrainState, Any], None]

# Pictures whose bytes are loaded for an epoch in one compiled loop, at most.
MAX_SCAN_BYTES = 512 << 20


def create_model(config: Config, data: Dataset) -> Chain:
    """The network, with as many logits as the data set has classes."""
    return build_model(config, data.num_classes)


def build_model(config: Config, num_classes: int) -> Chain:
    """The network with so many logits."""
    names = ("hidden", "activation", "dropout", "input_size", "init", "normalize")
    sizes = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return with_precision(MODELS[config.model](num_classes=num_classes, **sizes), config.precision)


def create_state(config: Config, model: Chain, data: Dataset) -> TrainState:
    """The first parameters, drawn or read, and the optimiser's state, on the devices.

    Raises:
      UserError: The images are too small for the network, the batches or the file do not fit, or
        the images cannot be augmented or cropped as asked.
    """
    parallel = create_parallel(config)
    optimizer = optimizer_of(config, data)
    _check_pictures(config, data)
    key = jax.random.key(config.seed)
    init = compiled_init(model, optimizer, data)
    try:
        empty = any(leaf.size == 0 for leaf in jax.tree.leaves(jax.eval_shape(init, key).params))
    except ZeroDivisionError:  # How some versions of Flax initialise a kernel for nothing.
        empty = True
    if empty:
        raise UserError(f"{config.model}: images of {data.image_shape} are too small")
    state = init(key)
    if config.init_from is not None:
        state = state.replace(params=load_weights(config.init_from, state.params))
    return parallel.replicate(state)


def compiled_init(
    model: Chain, optimizer: optax.GradientTransformation, data: Dataset
) -> Callable[[jax.Array], TrainState]:
    """init_state of a key, compiled: Flax' initialisers one by one cost seconds.

    The key is an argument, so that one compiled program serves all seeds.
    """
    return jax.jit(
        functools.partial(init_state, model, optimizer, data),
        compiler_options=compiler_options_for_init(),
    )


def init_state(
    model: Chain, optimizer: optax.GradientTransformation, data: Dataset, key: jax.Array
) -> TrainState:
    """The state before the first step, drawn with a key."""
    params = model.init(key, jnp.zeros((1, *data.image_shape), jnp.float32))["params"]
    step = jnp.zeros((), jnp.int32)
    return TrainState(step=step, params=params, opt_state=optimizer.init(params), key=key)


def train(
    config: Config, model: Chain, state: TrainState, data: Dataset
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains for config.epochs.

    Args:
      config: The recipe.
      model: Of create_model.
      state: Of create_state; it is used up.
      data: Its train split is trained on, its validation split evaluated after every epoch.

    Returns:
      The trained state, and a record of every epoch as in metrics.jsonl.
    """
    history = []
    for trained, record in epochs(config, model, loop.Checkpoint(state), data):
        state = trained
        history.append(record)
    return state, history


def epochs(
    config: Config,
    model: Chain,
    checkpoint: loop.Checkpoint,
    data: Dataset,
    callbacks: loop.Callbacks | None = None,
    check: Check | None = None,
) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """Trains epoch by epoch, yielding the state and the record of each.

    Args:
      config: The recipe.
      model: Of create_model.
      checkpoint: Where to start. A state that was yielded is used up by the next epoch.
      data: The data set.
      callbacks: Who looks on.
      check: Sees the number of steps done, the state and the batch before every step; an epoch is
        then never one compiled loop.
    """
    callbacks = callbacks or loop.Callbacks()
    parallel = create_parallel(config)
    loader = loader_of(config, data)
    run_epoch = _run_epoch(config, model, loader, data, parallel, callbacks, check)
    schedule = schedule_of(config, data)
    eval_step = compile_eval(config, model, parallel)

    for epoch in range(int(checkpoint.state.step) // loader.steps, config.epochs):
        started = time.perf_counter() - checkpoint.seconds
        state, trained, data_seconds = run_epoch(checkpoint, epoch)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - started
        validation = None
        if len(data.validation):
            validation = loop.evaluate(eval_step, state.params, data.validation, parallel)
        record = {
            "epoch": epoch + 1,
            "step": int(state.step),
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "validation_loss": validation and validation.loss,
            "validation_accuracy": validation and validation.accuracy,
            "learning_rate": float(np.asarray(schedule(int(state.step) - 1))),
            "seconds": seconds,
            "data_seconds": data_seconds,
            "images_per_second": int(trained.count) / seconds,
        }
        if config.schedule == "plateau":
            assert validation is not None  # schedule_of has seen to it.
            record["learning_rate"] *= FACTOR ** int(plateau_of(state.opt_state).drops)
            opt_state = update_plateau(state.opt_state, 1 - validation.accuracy, config.patience)
            state = parallel.replicate(state.replace(opt_state=opt_state))
        yield state, record
        checkpoint = loop.Checkpoint(state)


def evaluate(config: Config, model: Chain, params: Any, split: Split) -> Metrics:
    """The metrics of every example of a split: loss, accuracy, top5_accuracy, confusion.

    With config.ten_crop of the mean probabilities over ten crops of each.
    """
    parallel = create_parallel(config)
    step = compile_eval(config, model, parallel, ten_crop=config.ten_crop)
    return loop.evaluate(step, params, split, parallel, views=10 if config.ten_crop else 1)


def create_parallel(config: Config) -> Parallel:
    """The devices and the way to use them."""
    return Parallel(devices_of(config), config.parallel)


def devices_of(config: Config) -> Devices:
    """The devices on which the config trains.

    Raises:
      UserError: There are fewer, or those of another platform.
    """
    if config.is_distributed and not is_connected():
        raise UserError("distributed and coordinator are for train.py alone")
    return prepare(
        config.devices, config.precision, platform=config.platform,
        cpu_devices=config.cpu_devices, connected=config.is_distributed,
    )  # fmt: skip


def single_process(config: Config) -> Config:
    """The same for a process by itself, on its own devices."""
    return dataclasses.replace(config, **SINGLE_PROCESS, devices=None)


def compile_eval(config: Config, model: Chain, parallel: Parallel, *, ten_crop: bool = False):
    """The compiled evaluation step, on the middle of larger images or on ten crops of them."""
    over = with_ten_crops if ten_crop else with_center_crop
    apply = over(model.apply, config.input_size)
    return parallel.compile(
        make_eval_step(apply, LOSSES[config.loss], axis_name=parallel.axis_name)
    )


def augmentation_of(config: Config, data: Dataset) -> Augment:
    """What the config has the step do to its batches."""
    names = config.augmentations
    components = principal_components(data.train.images) if "pca" in names else None
    return augmentation(names, data.num_classes, config.input_size, components)


def _check_pictures(config: Config, data: Dataset) -> None:
    height, width, channels = data.image_shape
    if "pca" in config.augmentations and channels != 3:
        raise UserError(f"augment: pca needs 3 channels, the images of {data.name} have {channels}")
    if config.ten_crop and max(height, width) <= (config.input_size or 0):
        raise UserError(
            f"ten_crop: expected images larger than input_size {config.input_size}, those of "
            f"{data.name} are {height}x{width}"
        )


def gradients_of(config: Config, model: Chain, *, widths: Sequence[int] = ()) -> LossAndGrad:
    """The way to the gradient that the config asks for; widths are those of `nonzero_pixels.py`."""
    if config.gradients == "auto":
        derived = with_custom_vjp(model, widths=widths)
        return autodiff_loss_and_grad(derived.apply, LOSSES[config.loss])
    return manual_loss_and_grad(model, config.loss, widths=widths)


def loader_of(config: Config, data: Dataset) -> loop.TrainLoader:
    """The training data in the config's batches.

    Raises:
      UserError: The batches are larger than the data set, or the devices cannot share them.
    """
    size = config.batch_size or len(data.train)
    if size > len(data.train):
        raise UserError(
            f"batch_size: expected at most the {len(data.train)} training images, got {size} "
            f"(--batch_size=full takes them all)"
        )
    create_parallel(config).check_batch_size(size)
    return loop.TrainLoader(data.train, size, config.seed, config.augment)


def schedule_of(config: Config, data: Dataset) -> optax.Schedule:
    """The learning rate at every step of the whole run, but for the plateau's drops.

    Raises:
      UserError: The plateau's are found on validation images, and there are none.
    """
    if config.schedule == "plateau" and not len(data.validation):
        raise UserError(NO_PLATEAU)
    steps = config.epochs * loader_of(config, data).steps
    return create_schedule(config.schedule, config.learning_rate, steps)


def optimizer_of(
    config: Config, data: Dataset, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """The update rule with its schedule, by default the config's."""
    rule = create_optimizer(
        config.optimizer,
        schedule or schedule_of(config, data),
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
    return with_plateau(rule) if config.schedule == "plateau" else rule


def _run_epoch(
    config: Config,
    model: Chain,
    loader: loop.TrainLoader,
    data: Dataset,
    parallel: Parallel,
    callbacks: loop.Callbacks,
    check: Check | None,
) -> loop.RunEpoch:
    """An epoch in the way that is fastest for this network."""
    optimizer, augment = optimizer_of(config, data), augmentation_of(config, data)
    if config.gradients == "both":
        check = _gradient_check(config, model, augment, parallel, callbacks)
    use_scan = (
        check is None and prefers_scan(model, parallel) and not _is_large(loader.split.images)
    )
    dense = not has_convolution(model)
    make_loss_and_grad = functools.partial(gradients_of, config, model)
    full = dense and use_scan and loader.steps == 1 and not config.augmentations
    if full and len(parallel.devices) == 1:
        gradients, split = with_nonzero_pixels(make_loss_and_grad, model, loader.split)
        loader = dataclasses.replace(loader, split=split)
    elif dense and not parallel.sharded:
        gradients = accumulate_gradients(make_loss_and_grad(), BLOCK_SIZE)
    else:
        gradients = make_loss_and_grad()
    step = make_train_step(
        gradients,
        optimizer,
        reduction=config.reduction,
        axis_name=parallel.axis_name,
        augment=augment,
    )
    if use_scan:
        return loop.scanned_epoch(step, loader, parallel, callbacks)
    return loop.stepped_epoch(step, loader, parallel, callbacks, check)


def prefers_scan(model: Chain, parallel: Parallel) -> bool:
    """Whether an epoch may be one compiled loop: on the CPU a convolution in one is slow."""
    return not has_convolution(model) or parallel.devices[0].platform != "cpu"


def _is_large(images: Any) -> bool:
    """Whether the images are more than is loaded at once."""
    return isinstance(images, Pictures) and images.nbytes > MAX_SCAN_BYTES


def with_nonzero_pixels(
    make_loss_and_grad: Callable[..., LossAndGrad], model: Chain, split: Split
) -> tuple[LossAndGrad, Split]:
    """As `nonzero_pixels.with_nonzero_pixels`, of a network without convolutions."""
    name = str(first_dense(model).name)
    return nonzero_pixels.with_nonzero_pixels(
        make_loss_and_grad, split, layer=name, block_size=BLOCK_SIZE
    )


def _gradient_check(
    config: Config, model: Chain, augment: Augment, parallel: Parallel, callbacks: loop.Callbacks
) -> Check:
    """Compares the gradients by hand with stock JAX differentiating the plain network."""
    by_grad = autodiff_loss_and_grad(model.apply, LOSSES[config.loss])
    gradients = [
        parallel.compile(
            make_gradient_step(loss_and_grad, axis_name=parallel.axis_name, augment=augment)
        )
        for loss_and_grad in (manual_loss_and_grad(model, config.loss), by_grad)
    ]
    tolerance = config.gradient_tolerance
    if tolerance is None:
        tolerance = GRADIENT_TOLERANCE[config.precision]

    def check(step: int, state: TrainState, batch: Any) -> None:
        if step % config.check_every:
            return
        manual, automatic = (jax.device_get(gradient(state, batch)) for gradient in gradients)
        error, leaf = relative_error(manual, automatic)
        callbacks.gradient_error(error)
        if not error <= tolerance:
            raise loop.GradientsDisagreeError(
                f"gradients disagree at step {step}: relative error {error:.1e} in {leaf}, "
                f"expected at most {tolerance:.1e}"
            )

    return check
