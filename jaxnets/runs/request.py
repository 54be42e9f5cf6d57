"""Turns a user's request into a Config and its data; reads the runs that it names."""

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxnets.base.display import one_line, short_path
from jaxnets.base.errors import UserError
from jaxnets.config.adapt import OwnData, for_small_set
from jaxnets.config.fields import Config
from jaxnets.config.recipes import DEFAULT_MODEL
from jaxnets.config.resolve import (
    OwnNetwork,
    StoredRun,
    config_from_json,
    resolve,
)
from jaxnets.data.arrays import NAME as ARRAYS
from jaxnets.data.arrays import scaling_of
from jaxnets.data.datasets import MAX_CLASSES, Dataset
from jaxnets.data.load import load_dataset
from jaxnets.models.alexnet_layers import Enlarge, Normalize
from jaxnets.models.chain import Chain, has_layer
from jaxnets.networks.create import create_model
from jaxnets.networks.rows import to_rows
from jaxnets.runs.checkpoints import path_of
from jaxnets.runs.run_folder import CHECKPOINTS, CONFIG, RUNS, RunFolder, command_of, rules_of

# Smaller images in arrays, such as scikit-learn's digits, are enlarged for convolutions: the cnn
# cannot take them.
LEAST_SIDE, ENLARGED_SIDE = 10, 16
MAX_SIDE = 4096  # The largest image side that a config.json may have.


class Request(NamedTuple):
    """A Config with its data, and the lines that say what is unusual about it."""

    config: Config
    data: Dataset
    notes: tuple[str, ...]


def load_data(config: Config, *, as_bytes: bool = False) -> Dataset:
    """The config's data set, limited as the config asks."""
    data = load_dataset(
        config.dataset,
        config.data_dir,
        config.validation_size,
        decode_size=config.decode_size,
        input_size=config.input_size,
        as_bytes=as_bytes,
    )
    return data.limited(config.limit)


def load_bytes(config: Config) -> Dataset:
    """The same with pixels as bytes if the set has them; a run holds them so."""
    return load_data(config, as_bytes=True)


def request(
    given: Mapping[str, Any],
    load: Callable[[Config], Dataset] = load_data,
    *,
    base: Config | None = None,
    resumed: StoredRun | None = None,
) -> Request:
    """Resolves the fields that a user set, loads the data, and adapts the network to them.

    Args:
      given: Fields of Config.
      load: Loads the data of a Config.
      base: A whole Config from the user, whose fields count as set.
      resumed: The run that is resumed.

    Raises:
      UserError: The request cannot be met.
    """
    weights = run_with_weights(given.get("init_from", base and base.init_from))
    resolved = resolve(given, base=base, resumed=resumed, weights=weights)
    config, data = resolved.config, load(resolved.config)
    if isinstance(own := given.get("model"), OwnNetwork):
        layers = own.for_data(data.image_shape, data.num_classes).layers
        if resumed is not None and layers != config.layers:
            raise UserError("resume: the layers of {} are not those of {}", own.name, resumed.path)
        config = dataclasses.replace(config, layers=layers)
    if resumed is not None:
        return Request(config, data, resolved.notes)
    config, note = _for_own_data(_scaled(config, data), resolved.given, data)
    return Request(config, data, (*resolved.notes, *([note] if note else [])))


def _scaled(config: Config, data: Dataset) -> Config:
    """The config, with a scaling layer before the network if the data need it."""
    if data.is_table:
        mean, std = scaling_of(data.train.images)
        return dataclasses.replace(config, scaling=to_rows(Chain([Normalize(mean, std)])))
    if data.name == ARRAYS and max(data.image_shape) < LEAST_SIDE and _is_convolved(config, data):
        return dataclasses.replace(config, scaling=to_rows(Chain([Enlarge(ENLARGED_SIDE)])))
    return config


def _for_own_data(config: Config, given: Collection[str], data: Dataset) -> tuple[Config, str]:
    """The config for the user's own data, with a note; for other sets it is unchanged, with ""."""
    is_array = data.name == ARRAYS or data.is_table
    if not is_array and isinstance(data.train.images, np.ndarray):
        return config, ""
    own_data = OwnData(
        number=len(data.train),
        class_names=data.class_names,
        is_table=data.is_table,
        is_convolved=_is_convolved(config, data),
        inputs=math.prod(data.image_shape),
        is_folder=not is_array,
    )
    return for_small_set(config, given, own_data)


def _is_convolved(config: Config, data: Dataset) -> bool:
    return has_layer(create_model(config, data.num_classes, draws=False), nn.Conv)


def read_config(folder: RunFolder) -> Config:
    """The run's own config, checked like a config from flags.

    Raises:
      UserError: config.json is damaged, from another version, or not that of a run.
    """
    written = folder.read(CONFIG)
    if "model" not in written:
        raise UserError("{}: expected the config of a run, found no model", folder.path / CONFIG)
    try:
        return config_from_json(written)
    except (UserError, RecursionError) as error:  # Rows may be nested too deep.
        raise UserError("{}: {}", folder.path / CONFIG, error) from error


def data_form(folder: RunFolder) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Reads the images' shape and the classes' names from config.json, which may be untrusted."""
    written = folder.read(CONFIG)
    shape, names = written.get("image_shape"), written.get("class_names")
    if not (
        isinstance(shape, list)
        and all(type(size) is int and 1 <= size <= MAX_SIDE for size in shape)
        and (len(shape) == 1 or (len(shape) == 3 and shape[2] in (1, 3)))
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and 2 <= len(names) <= MAX_CLASSES
    ):
        raise UserError(
            "{}: damaged: expected image_shape as [H, W, 1 or 3] or [D], and class_names as 2 to "
            "{} texts",
            folder.path / CONFIG,
            MAX_CLASSES,
        )
    return tuple(shape), tuple(names)


def run_with_weights(init_from: str | None) -> StoredRun | None:
    """The run with initial weights; None if `init_from` names a file, or nothing.

    Raises:
      UserError: The folder's config.json is damaged.
    """
    path = os.path.expanduser(init_from or "")
    if not os.path.exists(os.path.join(path, CONFIG)):
        return None
    folder = RunFolder.open(path)
    shape, _class_names = data_form(folder)
    steps = folder.steps
    last = short_path(str(path_of(folder.path / CHECKPOINTS, steps[-1]))) if any(steps) else None
    return StoredRun(path, read_config(folder), weights=last, image_side=shape[0])


def run_to_resume(given: Mapping[str, Any]) -> StoredRun:
    """The run in `workdir`, or else the model's unfinished run that was last written to.

    Raises:
      UserError: There is no such run, or it is damaged.
    """
    if "workdir" in given:
        folder = RunFolder.open(given["workdir"])
    else:
        model = given.get("model", DEFAULT_MODEL)
        folder = _newest_unfinished(model.name if isinstance(model, OwnNetwork) else model)
    written = folder.read(CONFIG)
    return StoredRun(
        str(folder.path),
        read_config(folder),
        finished=folder.finished,
        rules=rules_of(written),
        command=command_of(written),
    )


def _newest_unfinished(model: str) -> RunFolder:
    found = []
    for path in RUNS.glob(f"*/{CONFIG}"):
        try:
            folder = RunFolder.open(str(path.parent))
            ours = folder.read(CONFIG).get("model") == model
        except UserError as error:
            print(one_line(f"warning: {error}; looking for another run"), file=sys.stderr)
            continue
        if ours and not folder.finished:
            written = max(entry.stat().st_mtime_ns for entry in folder.path.iterdir())
            found.append((written, folder.path.name, folder))
    if not found:
        raise UserError(
            "resume: found no unfinished run of {} in {}; --workdir=DIR names another "
            "folder, --model=NAME another model",
            model,
            RUNS.resolve(),
        )
    return max(found)[2]
