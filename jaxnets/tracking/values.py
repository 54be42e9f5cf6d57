"""The values of a run that trackers get."""

import math
from dataclasses import Field
from typing import Any

import jax
import numpy as np

from jaxnets.config.fields import SINGLE_PROCESS, Config
from jaxnets.config.options import options_of, value_text
from jaxnets.config.resolve import FOLLOWS, OF_THE_PROCESS

# Fields of Config that are not hyperparameters: where a run works, and what observes it.
NOT_SENT = {*SINGLE_PROCESS, *OF_THE_PROCESS, *FOLLOWS}


def hyperparameters(config: Config) -> dict[str, Any]:
    """The fields of a config that a tracker compares: numbers, booleans and texts."""
    values = {field: getattr(config, field.name) for field in options_of(Config)}
    return {
        field.name: value if isinstance(value, bool | int | float | str) else _text(field, value)
        for field, value in values.items()
        if field.name not in NOT_SENT
    }


def _text(field: Field, value: object) -> str:
    return value_text(field, value) if value else "none"  # The help says what None does.


def scalars_of(record: dict[str, Any]) -> dict[str, float]:
    """An epoch's numbers, those of a part as "train/loss"; None and infinite values are omitted.

    >>> scalars_of({"epoch": 1, "train_loss": 0.5, "validation_loss": None})
    {'epoch': 1.0, 'train/loss': 0.5}
    """
    parts = ("train_", "validation_")
    return {
        name.replace("_", "/", 1) if name.startswith(parts) else name: float(value)
        for name, value in record.items()
        if name != "step" and value is not None and math.isfinite(value)
    }


def parameters_by_path(params: Any) -> dict[str, np.ndarray]:
    """The parameters by names like "weights/conv1/kernel": trackers sort groups by the alphabet."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
    paths = ["/".join(["weights", *(str(key.key) for key in path)]) for path, _ in leaves]
    return {
        path: np.asarray(leaf, np.float32) for path, (_, leaf) in zip(paths, leaves, strict=True)
    }
