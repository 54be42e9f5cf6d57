"""Adapts a recipe to another optimizer, to few examples or to a table, with a note that says so."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jaxnets.base.language import _
from jaxnets.config.fields import Config
from jaxnets.config.recipes import KERAS_RATES, PRESETS, Recipe

STEPS, BATCH_SIZE, LEAST_BATCH_SIZE = 800, 32, 8
# The share of the epochs without a lower validation loss after which a folder's training ends. On
# 150 pictures of benchmarks/shapes.py the validation accuracy (mean of three seeds) was 0.436 after
# 200 epochs, the same with a quarter, which took 128 of them, and 0.333 with an eighth, all counted
# from the first epoch. Since then a cycle's epochs count once its rate has fallen to half: with 126
# of these pictures at 32 pixels, 14 for validation (seed 0), the accuracy on 300 others was 0.543
# counted from the first epoch, 0.560 from the rate's peak, 0.587 from half of it, 0.590 to the end.
PATIENCE = 0.25
# On the validation pictures of benchmarks/shapes.py the cnn reached 0.52 with Adam alone (0.001,
# 240 steps), 0.79 with this rule, crops and mirrors in 400 steps, and 0.88 in 800 (one seed each).
UPDATE_RULE: Recipe = dict(optimizer="adam", learning_rate=2e-3, schedule="one_cycle")
UPDATE_RULE |= dict(momentum=0.0, nesterov=False)
# At 2e-3 the deeper AlexNets stay at chance. On the same pictures at 32 pixels, alexnet_small
# reached 0.93 at 1e-3 and 0.63 at 3e-4. On the validation parts of benchmarks/small.py, mlp reached
# 0.897 on MNIST, 0.961 on iris and 0.856 on classification at 3e-3 with the decay, and 0.893, 0.961
# and 0.848 without; at 5e-3 it reached 0.934 on iris.
_MLP, _ALEXNET = Recipe(learning_rate=3e-3, weight_decay=1.0), Recipe(learning_rate=1e-3)
ALTERED = {model: _MLP for model in PRESETS if model.startswith("mlp")}
ALTERED |= {model: _ALEXNET for model in PRESETS if model.startswith("alexnet")}


class OwnData(NamedTuple):
    """A training set of the user's own, and what the network makes of it."""

    number: int  # Of its pictures or rows.
    class_names: Sequence[str]
    is_table: bool  # Rows of numbers.
    is_convolved: bool  # Whether the network has convolutions.
    inputs: int  # Numbers of an example: those of a row, or of a picture's pixels.
    is_folder: bool = False  # Of pictures.


def for_small_set(config: Config, given: Collection[str], data: OwnData) -> tuple[Config, str]:
    """A config that learns from few pictures or from a table, and the line that says so.

    If the network's own recipe would take fewer than STEPS steps in all, there are smaller batches
    and more epochs. If the user has set the epochs, the batches are smaller still. Adam and one
    cycle replace its update rule, for every table too, because the recipes are for pictures. Before
    convolutions, random crops and mirrors replace the augmentation. If the class names have one
    character, like digits, nothing is mirrored.

    Args:
      config: The network's recipe with the user's settings.
      given: The fields that the user has set. They stay; with one of an update rule, all of it
        stays.
      data: The training set.

    Returns:
      The same config and "" if its steps are enough, or if it is the lecture's search and training
      or a paper's, which are repeated as they are. For a part of the set, the same config with
      batches that are no larger, and "".
    """
    count = data.number
    size = min(config.batch_size or count, count)
    if config.limit:
        if config.batch_size is not None and "batch_size" not in given:
            config = dataclasses.replace(config, batch_size=size)
        return config, ""
    is_long = config.epochs * math.ceil(count / size) >= STEPS
    if config.recipe or (is_long and not data.is_table):
        return config, ""
    changes: Recipe = dict(batch_size=min(BATCH_SIZE, count))
    if "epochs" in given:
        most = max(LEAST_BATCH_SIZE, count * config.epochs // STEPS)
        changes["batch_size"] = min(changes["batch_size"], most)
    if not UPDATE_RULE.keys() & set(given):
        changes |= UPDATE_RULE | ALTERED.get(config.model, {})
        if config.model == "softmax":
            changes["learning_rate"] = softmax_rate(data.inputs)
    if data.is_convolved:
        are_characters = all(len(name) == 1 for name in data.class_names)
        changes["augment"] = "crop" if are_characters else "crop,flip"
    changes = {name: value for name, value in changes.items() if name not in given}
    batches = math.ceil(count / changes.get("batch_size", size))
    if "epochs" not in given:
        changes["epochs"] = math.ceil(STEPS / batches)
        if data.is_folder and config.validation_size != 0 and "early_stopping" not in given:
            changes["early_stopping"] = math.ceil(PATIENCE * changes["epochs"])
    if not changes:
        return config, ""
    config = dataclasses.replace(config, **changes)
    named = ", ".join(f"{name} {value}" for name, value in changes.items() if value)
    numbers = f"{count:,}", named, f"{config.epochs * batches:,}"
    if data.is_table:
        return config, _(
            "note: the recipe for a table of {} rows is {}: {} steps; what you set stays", *numbers
        )
    return config, _(
        "note: {} training pictures are few, so the recipe becomes {}: {} steps; what you set "
        "stays",
        *numbers,
    )


def softmax_rate(inputs: int) -> float:
    """The peak learning rate of softmax by Adam: 0.03, or 24 / inputs if that is less.

    A step of Adam changes each weight by about the rate, so a logit by up to the rate times the sum
    of |x|, which grows with the number of inputs.
    """
    # On the validation digits of benchmarks/small.py softmax reached 0.922 at 3e-3, 0.947 at 1e-2,
    # 0.963 at 3e-2 and 0.965 at 1e-1, which was worse on three other sets. On 90 pictures of
    # benchmarks/shapes.py, 64 x 64 x 3, its accuracy stays at chance; its validation loss was 11.9
    # at 3e-2, 1.5 at 2e-3 and 1.3 at 7e-4 (in NumPy, one seed). 24 leaves MNIST's 784 inputs 3e-2.
    return min(3e-2, float(f"{24 / inputs:.1g}"))


def learning_rate_note(config: Config, recipe: Recipe) -> str:
    """The line that says which learning rate comes with an optimizer not the recipe's, or ""."""
    rate, usual = config.learning_rate, recipe["learning_rate"]
    brought = rate == KERAS_RATES.get(config.optimizer) != usual
    if config.optimizer == recipe["optimizer"] or not brought:
        return ""
    return _(
        "note: {} starts with Keras's default learning rate {} and no momentum, since the "
        "recipe's {} is for {}",
        config.optimizer,
        f"{rate:g}",
        f"{usual:g}",
        recipe["optimizer"],
    )
