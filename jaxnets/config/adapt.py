"""Adapts a recipe to another optimizer or to few pictures, with a note that says so."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jaxnets.config.fields import Config
from jaxnets.config.recipes import KERAS_RATES, Recipe
from jaxnets.language import _

STEPS, BATCH_SIZE = 800, 32
# Of the validation pictures of benchmarks/shapes.py the cnn read 0.52 by Adam alone (0.001, 240
# steps), 0.79 by this rule with crops and mirrors in 400 steps, 0.88 in 800 (one seed each).
UPDATE_RULE: Recipe = dict(optimizer="adam", learning_rate=2e-3, schedule="one_cycle")
UPDATE_RULE |= dict(momentum=0.0, nesterov=False)
# At 2e-3 the deeper AlexNets stay at chance. Of the same pictures at 32 pixels alexnet_small read
# 0.93 at 1e-3 and 0.63 at 3e-4.
ALEXNET_RATE = 1e-3


class Pictures(NamedTuple):
    """A training set of the user's own pictures."""

    number: int
    class_names: Sequence[str]


def for_small_set(config: Config, given: Collection[str], pictures: Pictures) -> tuple[Config, str]:
    """A config that learns from few pictures, and the line that says so.

    Where the network's own recipe would take less than STEPS steps in all, batches are smaller and
    epochs more. Adam and one cycle replace its update rule, random crops and mirrors its
    augmentation. Where the classes' names have one character, as of digits, nothing is mirrored.

    Args:
      config: The network's recipe with the user's settings.
      given: The fields that the user has set: they stay, and with one of an update rule all of it.
      pictures: The training pictures.

    Returns:
      The same config and "" if its steps are enough, or if it is the lecture's search and training
      or a paper's, which are repeated as they are. For a part of the set, the same config with
      batches that are no larger, and "".
    """
    count = pictures.number
    size = min(config.batch_size or count, count)
    if config.limit or config.dry_run:
        if config.batch_size is not None and "batch_size" not in given:
            config = dataclasses.replace(config, batch_size=size)
        return config, ""
    is_repeated = config.recipe or config.latent_dims
    if is_repeated or config.epochs * math.ceil(count / size) >= STEPS:
        return config, ""
    changes: Recipe = dict(batch_size=min(BATCH_SIZE, count))
    if not UPDATE_RULE.keys() & set(given):
        changes |= UPDATE_RULE
        if config.model.startswith("alexnet"):
            changes["learning_rate"] = ALEXNET_RATE
    are_characters = all(len(name) == 1 for name in pictures.class_names)
    changes["augment"] = "crop" if are_characters else "crop,flip"
    changes = {name: value for name, value in changes.items() if name not in given}
    batches = math.ceil(count / changes.get("batch_size", size))
    if "epochs" not in given:
        changes["epochs"] = math.ceil(STEPS / batches)
    if not changes:
        return config, ""
    config = dataclasses.replace(config, **changes)
    named = [f"{name} {value}" for name, value in changes.items() if value]
    return config, _(
        "note: {} training pictures are few, so the recipe becomes {}: {} steps; what you set "
        "stays",
        f"{count:,}",
        ", ".join(named),
        f"{config.epochs * batches:,}",
    )


def learning_rate_note(config: Config, recipe: Recipe) -> str:
    """The line that says which learning rate another optimizer than the recipe's brought, or ""."""
    rate, usual = config.learning_rate, recipe["learning_rate"]
    brought = rate == KERAS_RATES.get(config.optimizer) != usual
    if config.optimizer == recipe["optimizer"] or not brought:
        return ""
    return _(
        "note: {} starts with Keras' default learning rate {} and no momentum, since the "
        "recipe's {} is for {}",
        config.optimizer,
        f"{rate:g}",
        f"{usual:g}",
        recipe["optimizer"],
    )
