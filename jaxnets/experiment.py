"""Trains and evaluates a network, with parts that are made of a config and a data set.

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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.base.errors import UserError, expect
from jaxnets.data.batches import Batch, eval_batches
from jaxnets.data.datasets import Dataset, Split
from jaxnets.machine.platform import compiler_options_for_init
from jaxnets.metrics import Sums
from jaxnets.models.chain import Chain, has_layer
from jaxnets.models.weights import head_of, load_weights
from jaxnets.parts import Parts, make_loss_and_grad
from jaxnets.training import loop, step
from jaxnets.training.crops import center_crop
from jaxnets.training.evaluation import EVAL_BATCH_SIZE, compile_eval, evaluate
from jaxnets.training.history import History
from jaxnets.training.observer import Observer, Record
from jaxnets.training.optimizer import PLATEAU_FACTOR, update_plateau
from jaxnets.training.parallel import Parallel
from jaxnets.training.pixels import to_float
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
class Experiment(Parts):
    """Trains and evaluates a network. Make one with `Experiment.create`.

    Its fields are those of `Parts` (parts.py): the network, the data, the step's gradient and
    update rule, the devices. It trains with the rules that it is given and judges none of them:
    `gradcheck` does.
    """

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
            state, record = self._after_plateau(state, record)
        return state, record

    def _after_plateau(self, state: TrainState, record: Record) -> tuple[TrainState, Record]:
        """The state with the next epoch's rate, and the record with this epoch's."""
        opt_state: Any = state.opt_state
        if record["learning_rate"] is not None:
            reduced = PLATEAU_FACTOR ** int(opt_state[-1].drops)
            record = {**record, "learning_rate": record["learning_rate"] * reduced}
        error = 1 - record["validation_accuracy"]
        opt_state = update_plateau(opt_state, error, self.config.patience)
        return self.parallel.replicate(state.replace(opt_state=opt_state)), record

    def evaluate(
        self,
        params: Params | TrainState,
        split: Split | None = None,
        *,
        ten_crop: bool | None = None,
        batch_size: int = EVAL_BATCH_SIZE,
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
        return evaluate(eval_step, params, examples, self.parallel, views, batch_size)

    @functools.cached_property
    def _eval_step(self) -> Callable[[bool], EvalStep]:
        """The compiled step of an evaluation, with ten crops or not; each is compiled once."""
        return functools.cache(self._compile_eval)

    def _compile_eval(self, ten_crop: bool) -> EvalStep:
        return compile_eval(self.config, self.data, self.model.apply, self.parallel, ten_crop)

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
            return batch._replace(images=to_float(images))

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
        """An epoch: steps that Python starts, or one compiled loop where that is faster."""
        train_step = self.train_step()
        watched = any(observer.sees_every_step for observer in observers)
        if self.scans and not watched:
            return scanned_epoch(train_step, self.loader, self.parallel, observers)
        return loop.stepped_epoch(train_step, self.loader, self.parallel, observers)

    @property
    def scans(self) -> bool:
        """Whether an epoch is one compiled loop, unless an observer watches each step."""
        images = self.loader.split.images
        return prefers_scan(self.model, self.parallel) and (
            isinstance(images, np.ndarray) or images.nbytes <= MAX_SCAN_BYTES
        )


def init_state(
    model: Chain, optimizer: optax.GradientTransformation, data: Dataset, key: jax.Array
) -> TrainState:
    """The state before the first step, drawn with a key."""
    params = model.init(key, jnp.zeros((1, *data.image_shape), jnp.float32))["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)


def prefers_scan(model: Chain, parallel: Parallel) -> bool:
    """Whether an epoch may be one compiled loop: on the CPU a convolution in one is slow."""
    return not has_layer(model, nn.Conv) or parallel.devices[0].platform != "cpu"


def _scores(part: str, metrics: Sums | None, like: Sums) -> Record:
    """A part's loss and scores by their names in a record; None where there are no examples."""
    return {f"{part}_{name}": getattr(metrics, name, None) for name in ("loss", *like.scores)}
