"""Finds the interrupted run that --resume continues, and checks what changes in it."""

import sys
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from jaxnets.config.fields import SINGLE_PROCESS, Config, preset
from jaxnets.display import one_line, show
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import Processes, surroundings
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import CONFIG, RUNS, SEARCH, RunFolder
from jaxnets.training.loop import Checkpoint
from jaxnets.training.optimizer import create_schedule
from jaxnets.training.step import TrainState

# These belong to the process, not to the run.
OF_THE_PROCESS = ("workdir", "resume", "overwrite", "dry_run")

# Observers change nothing in a run: a config.json written before these fields existed is read, too.
FOLLOWS = ("track", "profile", "report")

# What may change on resume: where and how the run works, not what it computes. Data and weights are
# compared by their SHA-256, so their paths may change; the number of epochs may only grow.
RESUME_MAY_CHANGE = (
    *OF_THE_PROCESS,
    *("epochs", "dataset", "data_dir", "init_from", "platform", "cpu_devices", "devices"),
    *("parallel", "log_format", "target_accuracy", "checkpoint_every", "keep"),
    *("early_stopping", "stop_at_target", "weights_only"),
    *FOLLOWS,
    *SINGLE_PROCESS,
)


def resumed_config(flags: dict[str, Any]) -> Config:
    """The interrupted run's own config, with what the flags may change in it."""
    # Flags of the process are checked first: the other flags need the run's model.
    asked = preset(**{name: flags[name] for name in OF_THE_PROCESS if name in flags})
    if "workdir" in flags:
        folder = RunFolder.open(flags["workdir"])
    else:
        folder = _newest_unfinished(flags.get("model", asked.model))
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
        changed.append(f"epochs was {stored.epochs}, got {flags['epochs']} (it may only grow)")
    if changed:
        raise UserError(f"resume: expected the settings of {folder.path}: {'; '.join(changed)}")
    changes = {name: flags[name] for name in RESUME_MAY_CHANGE if name in flags}
    # A profile is of one process; an untrusted config.json must not name a folder to write to.
    of_this_process = {"overwrite": False, "profile": None, "workdir": str(folder.path)}
    config = replace(stored, **{**of_this_process, **changes})
    _refuse_finished(folder, stored, config)
    return config


def config_to_resume(flags: dict[str, Any], processes: Processes) -> Config:
    """The config that the first process resumes, with each process' own flags."""
    from jaxnets.machine.distributed import OWN_FLAGS

    stored = processes.broadcast_json("config", lambda: asdict(resumed_config(flags)))
    own = {name: flags[name] for name in OWN_FLAGS if name in flags}
    return replace(from_json(stored), **own)


def _newest_unfinished(model: str) -> RunFolder:
    """The model's unfinished run under runs/ that was last written to."""
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
            f"resume: found no unfinished run of {model} in {RUNS.resolve()}; "
            "--workdir=DIR names another folder, --model=NAME another model"
        )
    return max(found)[2]


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


def from_json(values: dict[str, Any]) -> Config:
    """The config of a run's config.json; a missing field's default could train something else."""
    names = {field.name for field in fields(Config)}
    if missing := sorted(names - set(FOLLOWS) - values.keys()):
        raise UserError(f"no {', '.join(missing)}: another version of jaxnets wrote it")
    found: dict[str, Any] = {name: values[name] for name in values.keys() & names}
    try:
        return Config(**found)
    except (ValueError, TypeError, RecursionError) as error:  # A wrong type, or nested too deep.
        raise UserError(f"damaged: {error}") from error


def prepare_to_resume(folder: RunFolder, experiment: Experiment, inputs: dict[str, str]) -> bool:
    """Checks that a locked run may resume, and removes its result.json if the epochs grow.

    Returns whether config.json must be rewritten; UserError if the run has finished, or if it began
    with other data or weights. A changed learning rate is a warning on stderr, and so are other
    versions or another machine.
    """
    config, stored = experiment.config, read_config(folder)
    # The process that had the lock may have finished the run.
    _refuse_finished(folder, stored, config)
    texts = {
        "data_sha256": (f"the data of {_source(stored)}", f"{_source(config)} with "),
        "init_from_sha256": (config.init_from, ""),
    }
    began = folder.read(CONFIG)
    for name, ours in inputs.items():
        if ours != (theirs := began.get(name)):
            expected, got = texts[name]
            raise UserError(f"resume: expected {expected} with SHA-256 {theirs}, got {got}{ours}")
    warn_of_other_surroundings(began, surroundings(experiment.parallel.devices))
    same = {name: getattr(config, name) for name in (*OF_THE_PROCESS, *SINGLE_PROCESS)}
    check_optimizer(folder)
    if config.epochs != stored.epochs:
        _warn_learning_rate_change(folder, stored, experiment)
        folder.mark_unfinished()
    return replace(stored, **same) != config


def check_optimizer(folder: RunFolder) -> None:
    """Raises UserError if a run has kept only its weights."""
    if _holds_only_weights(folder):
        raise UserError(
            f"resume: expected the optimizer's state, {folder.path} holds only weights "
            "(weights_only); init_from=RUN trains a new run from them"
        )


def _holds_only_weights(folder: RunFolder) -> bool:
    return folder.finished and read_config(folder).weights_only


def load_checkpoint(folder: RunFolder | None, experiment: Experiment) -> Checkpoint:
    """A run's last checkpoint, or a fresh state; the optimizer is new if only weights were kept."""
    state = experiment.init_state()
    if folder is None:
        return Checkpoint(state)
    if not _holds_only_weights(folder):
        return last_saved(Run(experiment, folder, Processes(), state), state)
    step, params = folder.read_params(state.params)
    state = state.replace(step=np.int32(step), params=params)
    return Checkpoint(experiment.parallel.replicate(state))


def last_saved(run: Run, state: TrainState) -> Checkpoint:
    """A run's last checkpoint, or the fresh state if none was saved."""
    like = run.tree(Checkpoint(state))
    tree = run.folder.restore(like) if run.processes.is_first else None
    if not run.processes.broadcast_json("restored", lambda: tree is not None):
        return Checkpoint(state)
    tree = run.processes.broadcast_arrays(tree, like)
    parts = {name: tree[name] for name in ("step", "params", "opt_state")}
    return Checkpoint(
        state.replace(**run.experiment.parallel.replicate(parts)),
        tree["metrics"] if tree["metrics"].count else None,
        float(tree["seconds"]),
        float(tree["data_seconds"]),
    )


def _refuse_finished(folder: RunFolder, stored: Config, config: Config) -> None:
    if folder.finished and config.epochs <= stored.epochs:
        raise UserError(
            f"resume: expected an interrupted run, {folder.path} holds a finished one "
            f"(--epochs above {stored.epochs} continues it)"
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
        found = {name: values.get(name) for name in now if name != "device"}  # It sums up others.
        theirs = found.pop("versions", None)
        return found | (theirs if isinstance(theirs, dict) else {})

    was = flat(began)
    changed = [
        f"{name} was {was[name]}, now {ours}"
        for name, ours in flat(now).items()
        # What an older version of jaxnets did not write is unknown; an accelerator has no cores.
        if isinstance(was.get(name), str | int) and ours not in (was[name], None)
    ]
    if changed:
        line = f"warning: resumed elsewhere than the run began: {'; '.join(changed)}"
        show(one_line(f"{line}; the result may differ in its last bits"), sys.stderr)


def _warn_learning_rate_change(folder: RunFolder, stored: Config, experiment: Experiment) -> None:
    """Warns if the schedule, which spans the whole run, now gives another learning rate."""
    records, config = folder.records(), experiment.config
    step = records[-1]["step"] if records else 0
    steps = stored.epochs * experiment.loader.steps
    before = create_schedule(stored.schedule, stored.learning_rate, steps)
    was, now = (float(np.asarray(schedule(step))) for schedule in (before, experiment.schedule))
    if was != now:
        show(
            f"warning: schedule {config.schedule} spans {config.epochs} epochs instead of "
            f"{stored.epochs}: after step {step} the learning rate is {now:.3g} instead of "
            f"{was:.3g}",
            sys.stderr,
        )
