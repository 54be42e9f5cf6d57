"""Finds the first step of a run that is infinite or NaN, and the first such layer in it.

A run checks its losses and, before it saves them, its parameters. By then the earlier values are
gone. So the steps since the last checkpoint are repeated one by one, and each is checked.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import flax.linen as nn
import jax
import numpy as np

from jaxnets.base.language import N_, Text
from jaxnets.base.trees import Params, by_layer
from jaxnets.data.batches import Batch
from jaxnets.experiment import Experiment
from jaxnets.models.batch_norm import over_devices
from jaxnets.models.chain import Chain, Layer, layer_name, map_layers, walk
from jaxnets.runs.checkpoints import all_finite
from jaxnets.training.loop import NonFiniteLossError
from jaxnets.training.observer import Observer, Record
from jaxnets.training.pixels import Images
from jaxnets.training.step import Checkpoint, TrainState


def diagnose(
    experiment: Experiment,
    last: Checkpoint,
    records: Sequence[Record],
    error: NonFiniteLossError,
) -> Text:
    """Says which step and layer are the first bad ones, what is kept, and what to try.

    Args:
      experiment: The run's experiment, for only this process.
      last: The run's last checkpoint, whose state is donated.
      records: The run's epochs so far.
      error: The error that ended it.
    """
    saved = int(last.state.step)
    last_epoch = 1 + (records[-1]["epoch"] if records else 0)
    found = find_bad_step(experiment, last, last_epoch)
    kept = (
        Text("the checkpoint of step {} is kept", saved)
        if saved
        else Text("nothing was saved before")
    )
    hint = Text("try a --learning_rate below {}", f"{experiment.config.learning_rate:g}")
    return Text("{}; {}; {}", found or error, kept, hint)


def find_bad_step(experiment: Experiment, checkpoint: Checkpoint, last_epoch: int) -> Text | None:
    """Names the step that goes bad, and the place in the network, without a full stop.

    The search begins at the checkpoint, whose state is donated, and ends after the last epoch,
    counted from 1. It returns None if no repeated step goes bad.
    """
    config = experiment.config
    gradients = "manual" if config.gradients == "both" else config.gradients
    config = dataclasses.replace(config, gradients=gradients, epochs=min(config.epochs, last_epoch))
    experiment = dataclasses.replace(experiment, config=config)
    model, parallel = over_devices(experiment.model, None), experiment.parallel
    train_step = parallel.compile(experiment.train_step())
    gradient_step = experiment.gradient_step()

    class Look(Observer):
        sees_every_step = True

        def before_step(self, step: int, state: TrainState, batch: Batch) -> None:
            after, metrics = train_step(state, batch)
            loss = float(metrics.loss_sum)
            if np.isfinite(loss) and all_finite(after.params):
                return
            what = Text("the loss of step {} is {}", step + 1, loss)
            if np.isfinite(loss):
                what = Text("step {} is the first that is not finite", step + 1)
            _, derived = gradient_step(state, batch)
            if parallel.kind == "pmap":
                batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
            key = jax.random.fold_in(state.key, state.step)
            images = experiment.augment(key, state.step, batch, 0).images
            names = [".".join(path) for path, _ in walk(model)]
            place = (
                first_bad_output(model, state.params, images, key)
                or (None if np.isfinite(loss) else Text("the loss of finite logits"))
                or _first_bad_layer(N_("the gradient of {}"), reversed(names), derived)
                or _first_bad_layer(N_("the update of {}"), names, after.params)
            )
            raise NonFiniteLossError("{}, beginning with {}", what, place)

    try:
        for _ in experiment.epochs(checkpoint, [Look()]):
            pass
    except NonFiniteLossError as error:
        return error
    return None


def first_bad_output(model: Chain, params: Params, images: Images, key: jax.Array) -> Text | None:
    """Names the first layer of a forward pass whose output is not finite; the key is the step's."""
    bad: list[Text] = []
    after = ""

    def look(output: jax.Array, name: str, kind: str) -> None:
        nonlocal after
        if not bad and not all_finite(output):
            bad.append(Text("the output of {}", name or kind + after))
        after = f" after {name}" if name else after

    def watched(layer: Layer) -> Layer:
        def function(x: jax.Array) -> jax.Array:
            output = layer(x)
            look(output, "", layer_name(layer))
            return output

        return layer if isinstance(layer, nn.Module) else function

    def watch(
        call: Callable[..., jax.Array],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        context: nn.module.InterceptorContext,
    ) -> jax.Array:
        output, module = call(*args, **kwargs), context.module
        if context.method_name == "__call__" and not isinstance(module, Chain):
            name = "" if isinstance(module, nn.Dropout) else ".".join(module.path)
            look(output, name, type(module).__name__)
        return output

    with nn.intercept_methods(watch):
        network, given = map_layers(model, watched), {"params": params}
        network.apply(given, images, train=True, rngs={"dropout": key})
    return bad[0] if bad else None


def _first_bad_layer(text: str, layers: Iterable[str], tree: Params) -> Text | None:
    """Names the first of some layers whose part of a tree like the parameters is not finite."""
    arrays = by_layer(tree)
    for name in layers:
        if name in arrays and not all_finite(arrays[name]):
            return Text(text, name)
    return None
