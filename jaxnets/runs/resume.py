"""Reads the checkpoint from which --resume continues, and checks what has changed since."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from jaxnets.base.display import one_line, show
from jaxnets.base.errors import UserError
from jaxnets.base.language import _
from jaxnets.config.fields import SINGLE_PROCESS, Config
from jaxnets.config.resolve import OF_THE_PROCESS, refuse_finished
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import Processes, surroundings
from jaxnets.runs.checkpoints import tree_of
from jaxnets.runs.request import read_config
from jaxnets.runs.run_folder import CONFIG, RunFolder
from jaxnets.training.optimizer import create_schedule
from jaxnets.training.step import Checkpoint, TrainState


def prepare_to_resume(folder: RunFolder, experiment: Experiment, inputs: dict[str, Any]) -> bool:
    """Checks that a locked run may resume, and removes its result.json if the epochs grow.

    Returns whether config.json must be rewritten. Raises UserError if the run has finished, or if
    it began with other data or weights. A changed learning rate gives a warning on stderr, and so
    do other versions or another machine.
    """
    config, stored = experiment.config, read_config(folder)
    if folder.finished:  # By the process that had the lock.
        refuse_finished(str(folder.path), stored.epochs, config.epochs)
    texts = {
        "data_sha256": (f"the data of {_source(stored)}", f"{_source(config)} with "),
        "init_from_sha256": (config.init_from, ""),
    }
    began = folder.read(CONFIG)
    for name, ours in inputs.items():
        if ours != (theirs := began.get(name)):
            expected, got = texts[name]
            raise UserError(
                "resume: expected {} with SHA-256 {}, got {}{}", expected, theirs, got, ours
            )
    warn_of_other_surroundings(began, surroundings(experiment.parallel.devices))
    same = {name: getattr(config, name) for name in (*OF_THE_PROCESS, *SINGLE_PROCESS)}
    if config.epochs != stored.epochs:
        _warn_learning_rate_change(folder, stored, experiment)
        folder.mark_unfinished()
    return replace(stored, **same) != config


def load_checkpoint(
    folder: RunFolder, experiment: Experiment, state: TrainState, processes: Processes | None = None
) -> Checkpoint:
    """A run's last checkpoint, or the fresh state if none was saved.

    With several processes, only the first one reads it.
    """
    processes = processes or Processes()
    like = tree_of(Checkpoint(state), experiment.data.num_classes)
    tree = folder.restore(like) if processes.is_first else None
    if not processes.broadcast_json(lambda: tree is not None):
        return Checkpoint(state)
    tree = processes.broadcast_arrays(tree, like)
    parts = {name: tree[name] for name in ("step", "params", "opt_state")}
    return Checkpoint(
        state.replace(**experiment.parallel.replicate(parts)),
        tree["metrics"] if tree["metrics"].count else None,
        float(tree["seconds"]),
        float(tree["data_seconds"]),
    )


def _source(config: Config) -> str:
    return f"{config.dataset} in {config.data_dir}" if config.data_dir else config.dataset


def warn_of_other_surroundings(began: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns if a run or a search began under other versions or on another machine.

    Args:
      began: The content of its JSON file.
      now: The present `surroundings`.
    """

    def flat(values: dict[str, Any]) -> dict[str, Any]:
        # "device" summarizes others.
        found = {name: values.get(name) for name in now if name != "device"}
        theirs = found.pop("versions", None)
        return found | (theirs if isinstance(theirs, dict) else {})

    was = flat(began)
    changed = [
        f"{name} was {was[name]}, now {ours}"
        for name, ours in flat(now).items()
        # Values that config.json lacks are unknown; an accelerator has no cores.
        if isinstance(was.get(name), str | int) and ours not in (was[name], None)
    ]
    if changed:
        text = _(
            "warning: the run began under other conditions: {}; the result may differ in its last "
            "bits",
            "; ".join(changed),
        )
        show(one_line(text), sys.stderr)


def _warn_learning_rate_change(folder: RunFolder, stored: Config, experiment: Experiment) -> None:
    """Warns if the schedule, which spans the whole run, now gives another learning rate."""
    records, config = folder.records(), experiment.config
    step = records[-1]["step"] if records else 0
    steps = stored.epochs * experiment.loader.steps
    before = create_schedule(stored.schedule, stored.learning_rate, steps)
    was, now = (float(np.asarray(schedule(step))) for schedule in (before, experiment.schedule))
    if was != now:
        text = _(
            "warning: schedule {} spans {} epochs instead of {}: after step {} the learning rate "
            "is {} instead of {}",
            config.schedule,
            config.epochs,
            stored.epochs,
            step,
            f"{now:.3g}",
            f"{was:.3g}",
        )
        show(text, sys.stderr)
