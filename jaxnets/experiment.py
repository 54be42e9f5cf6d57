"""Turns a config and a data set into the parts of a training, each built once.

>>> import jaxnets
>>> config = jaxnets.preset("softmax", epochs=1)
>>> experiment = jaxnets.Experiment.create(config, jaxnets.load_dataset("mnist"))
>>> state, history = experiment.train()
>>> experiment.evaluate(state.params, experiment.data.test).accuracy > 0.9
True
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.errors import UserError, expect
from jaxnets.base.facts import Described
from jaxnets.base.language import Text
from jaxnets.config.fields import CUSTOM_FIELDS, NO_VALIDATION, Config
from jaxnets.config.options import CUSTOM
from jaxnets.data.batches import Batch, eval_batches
from jaxnets.data.datasets import Dataset, Split
from jaxnets.kernels import accelerate
from jaxnets.losses import find_loss
from jaxnets.machine.platform import Devices, compiler_options_for_init, set_up_jax
from jaxnets.metrics import Sums, metric_of
from jaxnets.models.batch_norm import STATISTICS, over_devices
from jaxnets.models.chain import Chain, has_layer
from jaxnets.models.precision import param_dtype_of
from jaxnets.models.weights import head_of, load_weights
from jaxnets.networks.create import create_model
from jaxnets.training import loop, step
from jaxnets.training.augment import Augmentation
from jaxnets.training.crops import center_crop, with_center_crop, with_ten_crops
from jaxnets.training.history import History
from jaxnets.training.loop import TrainLoader
from jaxnets.training.observer import Observer, Record
from jaxnets.training.optimizer import (
    PLATEAU_FACTOR,
    create_optimizer,
    create_schedule,
    update_plateau,
    with_plateau,
    with_statistics,
)
from jaxnets.training.parallel import Parallel
from jaxnets.training.scan import scanned_epoch
from jaxnets.training.step import (
    Augment,
    Checkpoint,
    EvalStep,
    GradientStep,
    LossAndGrad,
    Params,
    TrainState,
    TrainStep,
)

# A folder's pictures are read into memory for a compiled loop only if they take no more than this.
MAX_SCAN_BYTES = 512 << 20


@dataclasses.dataclass(frozen=True, repr=False)
class Experiment(Described):
    """A network, its data and everything that trains it. Make one with `Experiment.create`.

    It trains with the rules that it is given and judges none of them: `gradcheck` does.
    """

    config: Config
    data: Dataset
    model: Chain
    step_model: Chain  # The same for a step: with kernels, or unchanged.
    parallel: Parallel  # The devices, and how functions are placed on them.
    loader: TrainLoader  # The training data in batches.
    schedule: optax.Schedule  # The rate at every step; the plateau's reductions come on top.
    optimizer: optax.GradientTransformation  # The update rule with that schedule.
    augment: Augment  # The change of each batch before its step.
    loss_and_grad: LossAndGrad  # The gradient by autodiff or by hand.
    find_rule: FindRule  # Finds the rule of each layer for the gradient by hand.

    @classmethod
    def create(
        cls,
        config: Config,
        data: Dataset,
        devices: Devices | None = None,
        find_rule: FindRule = rule_of,
    ) -> Self:
        """Builds each part.

        Args:
          config: What to train, and how.
          data: The images and labels.
          devices: The devices to train on; by default those that the config asks for.
          find_rule: Finds the rules of the layers and of the loss, by default ours.

        Raises:
          UserError: The devices are not there, the batches do not fit, or the images cannot be
            augmented or cropped as asked.
        """
        _check_data(config, data)
        devices = devices or find_devices(config)
        model = create_model(config, data.num_classes)
        if len(data.image_shape) == 1:
            _check_takes_rows(config, model, data.image_shape[0])
        parallel = Parallel(devices, config.parallel, convolutions=has_layer(model, nn.Conv))
        loader = loader_of(config, data)
        parallel.check_batch_size(loader.batch_size)
        if has_layer(model, nn.BatchNorm):
            model = over_devices(model, parallel.axis_name)
        step_model = model
        if config.kernels == "fast":
            step_model = accelerate(model, parallel.platform, sharded=parallel.sharded)
        steps = config.epochs * loader.steps
        schedule = create_schedule(config.schedule, config.learning_rate, steps)
        return cls(
            config=config,
            data=data,
            model=model,
            step_model=step_model,
            parallel=parallel,
            loader=loader,
            schedule=schedule,
            optimizer=optimizer_of(config, schedule, model),
            augment=augment_of(config, data, loader, parallel.platform),
            loss_and_grad=make_loss_and_grad(config, step_model, find_rule),
            find_rule=find_rule,
        )

    def _facts(self) -> dict[str, Any]:
        names = ("model", "epochs", "batch_size", "optimizer", "learning_rate", "loss", "gradients")
        own = {"data": self.data.name, "devices": len(self.parallel.devices)}
        return {name: getattr(self.config, name) for name in names} | own

    def init_state(self) -> TrainState:
        """The first parameters, drawn or read, and the optimizer's state, on the devices.

        Raises:
          UserError: The images are too small for the network, or the file's weights do not fit.
        """
        # Compiled, because Flax's initializers take seconds one by one. The key is an argument, so
        # that one compiled program serves all seeds.
        self.state_shapes()
        init = functools.partial(init_state, self.model, self.optimizer, self.data)
        key = jax.random.key(self.config.seed)
        options = compiler_options_for_init(self.parallel.platform)
        state = jax.jit(init, compiler_options=options)(key)
        if self.config.init_from is not None:
            head = head_of(self.model, state.params)
            state = state.replace(params=load_weights(self.config.init_from, state.params, head))
        # Wait here: XLA would hang at an asynchronous out-of-memory error.
        return jax.block_until_ready(self.parallel.replicate(state))

    def state_shapes(self) -> TrainState:
        """The shapes of the state; UserError if the images are too small for the network."""
        init = functools.partial(init_state, self.model, self.optimizer, self.data)
        try:
            shapes = jax.eval_shape(init, jax.random.key(self.config.seed))
        except ZeroDivisionError:  # Some versions of Flax raise it for an empty kernel.
            shapes = None
        if shapes is None or any(x.size == 0 for x in jax.tree.leaves(shapes.params)):
            raise UserError(
                "{}: images of {} are too small", self.config.model, self.data.image_shape
            )
        return shapes

    def train(self, observers: Sequence[Observer] = ()) -> tuple[TrainState, History]:
        """Trains for all epochs.

        Args:
          observers: Observers that are told of each step and epoch, and may stop the training.

        Returns:
          The trained state, and every epoch's record.

        Raises:
          UserError: The gradients are to be compared, and no observer does it.
        """
        state, history = self.init_state(), History()
        for trained, record in self.epochs(Checkpoint(state), observers):
            state = trained
            history.append(record)
        return state, history

    def epochs(
        self, start: Checkpoint, observers: Sequence[Observer] = ()
    ) -> Iterator[tuple[TrainState, Record]]:
        """Trains epoch by epoch and validates after each, as `training.loop.train_epochs` does.

        Args:
          start: The state to begin with, and its place in the run.
          observers: Observers that are told of each step and epoch, and may stop the training.

        Yields:
          The state and the record after each epoch.

        Raises:
          UserError: The gradients are to be compared, and no observer does it.
        """
        comparing = any(observer.compares_gradients for observer in observers)
        if self.config.gradients == "both" and not comparing:
            raise UserError(
                "gradients: both expects observers=[jaxnets.GradientCheck(experiment)], got none"
            )
        done = int(start.state.step) // self.loader.steps
        numbers = range(done, self.config.epochs)
        run_epoch = self._compile_epoch(observers)
        return loop.train_epochs(run_epoch, self._validated, start, numbers, observers)

    def _validated(self, epoch: int, end: Checkpoint) -> tuple[TrainState, Record]:
        """The state after an epoch, and the epoch's record with the metrics of both splits."""
        state, trained, validation, seconds = end.state, end.metrics, None, None
        assert trained is not None  # A split has at least one example.
        if len(self.data.validation):
            started = time.perf_counter()
            validation = self.evaluate(state.params, self.data.validation, ten_crop=False)
            seconds = time.perf_counter() - started
        rate = None  # A user's own optimizer has its own rate.
        if not isinstance(self.config.optimizer, optax.GradientTransformation):
            rate = float(np.asarray(self.schedule(int(state.step) - 1)))
        record = {
            "epoch": epoch + 1,
            "step": int(state.step),
            **_scores("train", trained, trained),
            **_scores("validation", validation, trained),
            "learning_rate": rate,
            "seconds": end.seconds,
            "data_seconds": end.data_seconds,
            "validation_seconds": seconds,
            "images_per_second": int(trained.count) / end.seconds,
        }
        if self.config.schedule == "plateau":
            opt_state: Any = state.opt_state
            if record["learning_rate"] is not None:
                record["learning_rate"] *= PLATEAU_FACTOR ** int(opt_state[-1].drops)
            error = 1 - record["validation_accuracy"]
            opt_state = update_plateau(opt_state, error, self.config.patience)
            state = self.parallel.replicate(state.replace(opt_state=opt_state))
        return state, record

    def evaluate(
        self,
        params: Params | TrainState,
        split: Split | None = None,
        *,
        ten_crop: bool | None = None,
        batch_size: int = loop.EVAL_BATCH_SIZE,
    ) -> Any:
        """The metrics of every example of a split.

        Args:
          params: The parameters, or a whole state.
          split: The images and labels; by default those of the test.
          ten_crop: Whether ten crops of each image are averaged; by default as the config says.
          batch_size: The largest number of images at a time.

        Returns:
          Metrics; in regression RegressionMetrics.
        """
        examples = expect(self.data.test if split is None else split, Split, "data.test")
        if not len(examples):
            raise UserError("{}: expected images to evaluate, got none", self.data.name)
        params = params.params if isinstance(params, TrainState) else params
        ten_crop = self.config.ten_crop if ten_crop is None else ten_crop
        eval_step, views = self._eval_step(ten_crop), 10 if ten_crop else 1
        return loop.evaluate(eval_step, params, examples, self.parallel, views, batch_size)

    @functools.cached_property
    def _eval_step(self) -> Callable[[bool], EvalStep]:
        """The compiled step of an evaluation, with ten crops or not; each is compiled once."""
        return functools.cache(self._compile_eval)

    def _compile_eval(self, ten_crop: bool) -> EvalStep:
        loss, apply = find_loss(self.config.loss), self.model.apply
        metric = metric_of(loss)
        if self.config.input_size is not None:
            with_crops = with_ten_crops if ten_crop else with_center_crop
            apply = with_crops(apply, self.config.input_size)
        if self.data.is_regression:
            mean, scale = self.data.target_mean, self.data.target_scale
            center = np.mean(self.data.train.labels, axis=0, dtype=np.float64)
            metric = functools.partial(metric, mean=mean, scale=scale, center=center)
        axis_name = self.parallel.axis_name
        eval_step = step.make_eval_step(apply, loss, metric=metric, axis_name=axis_name)
        return self.parallel.compile(eval_step)

    def train_step(
        self,
        loss_and_grad: LossAndGrad | None = None,
        optimizer: optax.GradientTransformation | None = None,
    ) -> TrainStep:
        """The training step, not compiled yet.

        Args:
          loss_and_grad: The loss and its gradient; by default this experiment's.
          optimizer: The optax optimizer; by default this experiment's.

        Returns:
          The function (state, batch) -> (state, metrics).
        """
        return step.make_train_step(
            loss_and_grad or self.loss_and_grad,
            optimizer or self.optimizer,
            reduction=self.config.reduction,
            axis_name=self.parallel.axis_name,
            augment=self.augment,
        )

    def gradients(self, state: TrainState, split: Split, by: str = "manual") -> Params:
        """The gradients of the mean loss of a split, as the state's next step would take them.

        Dropout is active, and batch norm uses the statistics of the split. Nothing is augmented.

        Args:
          state: The parameters, and the key of the dropped units.
          split: The images and labels, one batch.
          by: "manual" for the gradients by hand, "auto" for those by autodiff.

        Returns:
          Arrays in the shapes of state.params; with reduction="sum", those of the summed loss.

        Raises:
          UserError: There are no images, or the network has no gradients by hand.
        """
        if by not in ("manual", "auto"):
            raise UserError('by: expected "manual" or "auto", got {}', f"{by!r:.40}")
        if not len(split):
            raise UserError("expected images, got none")
        count = len(self.parallel.devices)
        size = -(-len(split) // count) * count
        batch = next(eval_batches(split, size, self.parallel.rows(size)))
        metrics, gradients = self._gradients_by(by)(state, self.parallel.split(batch))
        divisor = 1 if self.config.reduction == "sum" else int(metrics.count)
        return jax.tree.map(lambda gradient: gradient / divisor, gradients)

    @functools.cached_property
    def _gradients_by(self) -> Callable[[str], GradientStep]:
        """The compiled step of `gradients`; each is compiled once."""
        return functools.cache(self._compile_gradients)

    def _compile_gradients(self, by: str) -> GradientStep:
        def cropped(key: jax.Array, number: step.Number, batch: Batch, first: step.Number) -> Batch:
            images = center_crop(batch.images, self.config.input_size)
            return batch._replace(images=step.to_float(images))

        config = dataclasses.replace(self.config, gradients=by)
        chosen = make_loss_and_grad(config, self.step_model, self.find_rule)
        return self.gradient_step(chosen, cropped)

    def gradient_step(
        self,
        loss_and_grad: Callable[..., tuple[Sums, Any]] | None = None,
        augment: Augment | None = None,
    ) -> GradientStep:
        """The gradients of a step, without its update.

        Args:
          loss_and_grad: The loss and its gradient; by default this experiment's.
          augment: The change of the batch; by default this experiment's.

        Returns:
          The compiled function (state, batch) -> (metrics, gradients).
        """
        chosen, augment = loss_and_grad or self.loss_and_grad, augment or self.augment
        axis_name = self.parallel.axis_name
        gradient_step = step.make_gradient_step(chosen, axis_name=axis_name, augment=augment)
        return self.parallel.compile(gradient_step)

    def _compile_epoch(self, observers: Sequence[Observer]) -> loop.RunEpoch:
        """An epoch, compiled in the fastest form for this network."""
        loader, parallel = self.loader, self.parallel
        watched = any(observer.sees_every_step for observer in observers)
        compile_epoch = scanned_epoch if self.scans and not watched else loop.stepped_epoch
        return compile_epoch(self.train_step(self.loss_and_grad), loader, parallel, observers)

    @property
    def scans(self) -> bool:
        """Whether an epoch is one compiled loop, unless an observer watches each step."""
        images = self.loader.split.images
        return prefers_scan(self.model, self.parallel) and (
            isinstance(images, np.ndarray) or images.nbytes <= MAX_SCAN_BYTES
        )


def find_devices(config: Config) -> Devices:
    """The devices that the config asks for; UserError if they are not there."""
    if config.is_distributed and not jax.distributed.is_initialized():
        raise UserError("only train.py supports distributed and coordinator")
    return set_up_jax(
        config.devices,
        config.precision,
        platform=config.platform,
        cpu_devices=config.cpu_devices,
        connected=config.is_distributed,
    )


# The only change of a batch that the loader makes, because it draws on the host.
SHIFT = "shift"


def loader_of(config: Config, data: Dataset) -> TrainLoader:
    """The training data in the config's batches, shifted if the config asks for it."""
    return TrainLoader(
        data.train,
        config.batch_size or len(data.train),
        config.seed,
        shifts=SHIFT in config.augmentations,
        steps_per_epoch=config.steps_per_epoch,
        augmented_epochs=config.epochs - config.clean_epochs if config.clean_epochs else np.inf,
    )


def augment_of(config: Config, data: Dataset, loader: TrainLoader, platform: str) -> Augment:
    """The change of each batch before its step: all that the config asks for, except shifts."""
    names, size, smoothing = config.augmentations, config.input_size, config.label_smoothing
    dtype, augment = param_dtype_of(config.precision), step.no_augmentation
    if size is not None or smoothing or set(names) - {SHIFT}:
        augment = Augmentation(
            names,
            data,
            size,
            smoothing,
            until=loader.augmented_epochs * loader.steps,
            custom=config.augment if callable(config.augment) else None,
            steps_per_pass=loader.steps_per_pass,
            dtype=dtype,
            platform=platform,
        )
    return step.with_images_in(dtype, augment)


def optimizer_of(
    config: Config, schedule: optax.Schedule, model: Chain
) -> optax.GradientTransformation:
    """The config's update rule for a network, with a learning rate."""
    rule = create_optimizer(
        config.optimizer, schedule, config.momentum, config.nesterov, config.weight_decay
    )
    if config.schedule == "plateau":
        rule = with_plateau(rule)
    if has_layer(model, nn.BatchNorm):
        rule = with_statistics(rule, STATISTICS, config.reduction)
    return rule


def make_loss_and_grad(config: Config, model: Chain, find_rule: FindRule = rule_of) -> LossAndGrad:
    """The loss_and_grad that the config asks for; "both" trains with the one by hand."""
    if config.gradients == "auto":
        return step.autodiff_loss_and_grad(model.apply, find_loss(config.loss))
    return manual_loss_and_grad(model, config.loss, find_rule)


def init_state(
    model: Chain, optimizer: optax.GradientTransformation, data: Dataset, key: jax.Array
) -> TrainState:
    """The state before the first step, drawn with a key."""
    params = model.init(key, jnp.zeros((1, *data.image_shape), jnp.float32))["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)


def prefers_scan(model: Chain, parallel: Parallel) -> bool:
    """Whether an epoch may be one compiled loop: on the CPU a convolution in one is slow."""
    return not has_layer(model, nn.Conv) or parallel.devices[0].platform != "cpu"


def _check_data(config: Config, data: Dataset) -> None:
    """Raises UserError if the data set does not fit the config."""
    expect(config, Config, 'jaxnets.preset("cnn")')
    expect(data, Dataset, 'jaxnets.load_dataset("mnist")')
    for name in CUSTOM_FIELDS:
        value = getattr(config, name)
        if isinstance(value, str) and value.startswith(CUSTOM):
            own = value.removeprefix(CUSTOM)
            raise UserError("{}: expected {} again: jaxnets.load(DIR, {}={})", name, own, name, own)
    if config.watcher and not len(data.validation):
        raise UserError(NO_VALIDATION, Text(config.watcher))
    if (config.loss == "squared_error") != data.is_regression:
        expected = "squared_error" if data.is_regression else "cross_entropy, mse or half_mse"
        raise UserError("loss: expected {} for {}, got {}", expected, data.name, config.loss)
    if config.ten_crop and max(data.image_shape[:2]) <= (config.input_size or 0):
        height, width = data.image_shape[:2]
        raise UserError(
            "ten_crop: expected images larger than input_size {}, those of {} are {}x{}",
            config.input_size,
            data.name,
            height,
            width,
        )


def _check_takes_rows(config: Config, model: Chain, size: int) -> None:
    """Raises UserError if the network or an augmentation needs images."""
    is_convolved = has_layer(model, nn.Conv)
    if is_convolved or set(config.augmentations) - {"mixup", "custom"}:
        raise UserError(
            "{}: expected images, whose pixels are bytes or floats from 0 to 1, got rows of "
            '{} numbers; model "mlp" takes rows',
            config.model if is_convolved else "augment",
            size,
        )


def _scores(part: str, metrics: Sums | None, like: Sums) -> Record:
    """A part's loss and scores by their names in a record; None where there are no examples."""
    return {f"{part}_{name}": getattr(metrics, name, None) for name in ("loss", *like.scores)}
