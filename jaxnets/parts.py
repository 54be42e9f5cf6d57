"""What trains a network: its parts, each built once from a config and a data set."""

import dataclasses
from typing import Any, Self

import flax.linen as nn
import optax

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.described import Described
from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset
from jaxnets.kernels import accelerate
from jaxnets.losses import find_loss
from jaxnets.machine.platform import Devices
from jaxnets.models.batch_norm import over_devices, statistics_of
from jaxnets.models.chain import Chain, has_layer
from jaxnets.models.precision import param_dtype_of
from jaxnets.networks.create import create_model
from jaxnets.training.augment import augment_of
from jaxnets.training.data_check import check_data, check_takes_rows
from jaxnets.training.loader import TrainLoader, loader_of
from jaxnets.training.optimizer import create_schedule, optimizer_of
from jaxnets.training.parallel import Parallel, find_devices
from jaxnets.training.step import Augment, LossAndGrad, autodiff_loss_and_grad


@dataclasses.dataclass(frozen=True, repr=False)
class Parts(Described):
    """A network, its data and everything that trains it."""

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
        check_data(config, data)
        devices = devices or find_devices(config)
        model = create_model(config, data.num_classes)
        is_convolved = has_layer(model, nn.Conv)
        if len(data.image_shape) == 1:
            check_takes_rows(config, is_convolved, data.image_shape[0])
        parallel = Parallel(devices, config.parallel, convolutions=is_convolved)
        loader = loader_of(config, data)
        parallel.check_batch_size(loader.batch_size)
        if has_layer(model, nn.BatchNorm):
            model = over_devices(model, parallel.axis_name)
        step_model = model
        if config.kernels == "fast":
            step_model = accelerate(model, parallel.platform, sharded=parallel.sharded)
        steps = config.epochs * loader.steps
        schedule = create_schedule(config.schedule, config.learning_rate, steps)
        dtype = param_dtype_of(config.precision)
        return cls(
            config=config,
            data=data,
            model=model,
            step_model=step_model,
            parallel=parallel,
            loader=loader,
            schedule=schedule,
            optimizer=optimizer_of(config, schedule, statistics_of(model)),
            augment=augment_of(config, data, loader, dtype, parallel.platform),
            loss_and_grad=make_loss_and_grad(config, step_model, find_rule),
            find_rule=find_rule,
        )

    def _repr_fields(self) -> dict[str, Any]:
        names = ("model", "epochs", "batch_size", "optimizer", "learning_rate", "loss", "gradients")
        own = {"data": self.data.name, "devices": len(self.parallel.devices)}
        return {name: getattr(self.config, name) for name in names} | own


def make_loss_and_grad(config: Config, model: Chain, find_rule: FindRule = rule_of) -> LossAndGrad:
    """The loss_and_grad that the config asks for; "both" trains with the one by hand."""
    if config.gradients == "auto":
        return autodiff_loss_and_grad(model.apply, find_loss(config.loss))
    return manual_loss_and_grad(model, config.loss, find_rule)
