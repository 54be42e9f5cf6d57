"""Which run the flags ask for: a new one, or an interrupted one with its own settings."""

import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from jaxnets.config.fields import SINGLE_PROCESS, Config, from_json, preset
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.machine import distributed
from jaxnets.machine.platform import describe, versions
from jaxnets.runs.run_folder import CONFIG, SEARCH, RunFolder
from jaxnets.training.optimizer import create_schedule

INIT_SHA256 = "init_from_sha256"

# These belong to the process, not to the run.
OF_THE_PROCESS = ("workdir", "resume", "overwrite")

# What may change on resume: where and how the run works, not what it computes. Data and weights are
# compared by their SHA-256, so their paths may change; the number of epochs may only grow.
RESUME_MAY_CHANGE = (
    *OF_THE_PROCESS,
    *("epochs", "dataset", "data_dir", "init_from", "platform", "cpu_devices", "devices"),
    *("parallel", "log_format", "target_accuracy", "checkpoint_every", "keep"),
    *SINGLE_PROCESS,
)


def config_of(flags: dict[str, Any]) -> Config:
    """The config that the flags ask for; with --resume, the interrupted run's own.

    Raises:
      UserError: A value is out of range, or --resume would change what the run computes.
    """
    if not flags.get("resume"):
        return preset(**flags)
    stored = distributed.broadcast_json("config", lambda: asdict(_resumed_config(flags)))
    own = {name: flags[name] for name in distributed.OWN_FLAGS if name in flags}
    return replace(from_json(stored), **own)


def _resumed_config(flags: dict[str, Any]) -> Config:
    # What goes with --resume is checked before there is a model to check the rest with.
    asked = preset(**{name: flags[name] for name in OF_THE_PROCESS if name in flags})
    if "workdir" in flags:
        folder = RunFolder.open(flags["workdir"])
    else:
        folder = RunFolder.newest_unfinished(flags.get("model", asked.model))
    stored = read_config(folder)
    began = asdict(stored)
    if searched := folder.read(SEARCH):
        began["latent_dims"] = tuple(int(size) for size in searched)
    changed = [
        f"{name} was {began[name]}, got {ours}"
        for name, ours in flags.items()
        if name not in RESUME_MAY_CHANGE and ours != began[name]
    ]
    if flags.get("epochs", stored.epochs) < stored.epochs:
        changed.append(f"epochs was {stored.epochs}, got {flags['epochs']} (more are taken)")
    if changed:
        raise UserError(f"resume: that is another run than {folder.path}: {'; '.join(changed)}")
    changes = {name: flags[name] for name in RESUME_MAY_CHANGE if name in flags}
    config = replace(stored, **{"overwrite": False, "workdir": str(folder.path), **changes})
    _refuse_finished(folder, config)
    return config


def read_config(folder: RunFolder) -> Config:
    """The run's own config, checked like one of flags.

    Raises:
      UserError: config.json is damaged, of another version, or not a run's.
    """
    written = folder.read(CONFIG)
    if "model" not in written:
        raise UserError(f"{folder.path / CONFIG}: expected a run's, found no model in it")
    try:
        return from_json(written)
    except UserError as error:
        raise UserError(f"{folder.path / CONFIG}: {error}") from error


def write_config(folder: RunFolder, experiment: Experiment, inputs: dict[str, str]) -> None:
    """Writes config.json: every field, versions, device, digests, the shape of the data."""
    devices, data = experiment.parallel.devices, experiment.data
    folder.write(
        CONFIG,
        {
            **asdict(replace(experiment.config, resume=False, **SINGLE_PROCESS)),
            "versions": versions(),
            "device_platform": devices[0].platform,
            "device": describe(devices),
            "num_devices": len(devices),
            **inputs,
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            "class_names": data.class_names,
        },
    )


def inputs_sha256(experiment: Experiment) -> dict[str, str]:
    """The digests of the data and the first weights, by their names in config.json."""
    inputs = {"data_sha256": experiment.data.checksum}
    if experiment.config.init_from is not None:
        from jaxnets.models.torchvision import weights_sha256

        inputs[INIT_SHA256] = weights_sha256(experiment.config.init_from)
    return inputs


def take_up(folder: RunFolder, experiment: Experiment, inputs: dict[str, str]) -> None:
    """Continues the run in a locked folder, if it is the one that the experiment continues.

    Raises:
      UserError: It has finished, or it began with other data or other weights.
    """
    config = experiment.config
    _refuse_finished(folder, config)  # The process that had the lock may have finished the run.
    _refuse_other_inputs(folder, config, inputs)
    stored = read_config(folder)
    same = {name: getattr(config, name) for name in (*OF_THE_PROCESS, *SINGLE_PROCESS)}
    if replace(stored, **same) == config:
        return
    if config.epochs != stored.epochs:
        _warn_learning_rate_change(folder, stored, experiment)
        folder.mark_unfinished()  # First: with more epochs in config.json it would be half a run.
    write_config(folder, experiment, inputs)


def _refuse_finished(folder: RunFolder, config: Config) -> None:
    epochs = read_config(folder).epochs
    if folder.finished and config.epochs <= epochs:
        raise UserError(
            f"resume: expected an interrupted run, {folder.path} holds a finished one "
            f"(--epochs above {epochs} continues it)"
        )


def _refuse_other_inputs(folder: RunFolder, config: Config, inputs: dict[str, str]) -> None:
    began = folder.read(CONFIG)
    theirs, ours = began.get("data_sha256"), inputs["data_sha256"]
    if theirs != ours:
        raise UserError(
            f"resume: expected the data of {_source(read_config(folder))} with SHA-256 {theirs}, "
            f"got {_source(config)} with {ours}"
        )
    if config.init_from is not None:
        theirs, ours = began.get(INIT_SHA256), inputs[INIT_SHA256]
        if theirs != ours:
            raise UserError(
                f"resume: expected {config.init_from} with SHA-256 {theirs}, got {ours}"
            )


def _source(config: Config) -> str:
    return f"{config.dataset} in {config.data_dir}" if config.data_dir else config.dataset


def _warn_learning_rate_change(folder: RunFolder, stored: Config, experiment: Experiment) -> None:
    """Warns if the schedule, which spans the whole run, now gives another learning rate."""
    records, config = folder.records(), experiment.config
    step = records[-1]["step"] if records else 0
    steps = stored.epochs * experiment.loader.steps
    before = create_schedule(stored.schedule, stored.learning_rate, steps)
    was, now = (float(np.asarray(schedule(step))) for schedule in (before, experiment.schedule))
    if was != now:
        print(
            f"warning: schedule {config.schedule} spans {config.epochs} epochs instead of "
            f"{stored.epochs}: after step {step} the learning rate is {now:.3g} instead of "
            f"{was:.3g}",
            file=sys.stderr,
        )
