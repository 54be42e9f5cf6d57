"""A run in its folder: opened, begun anew or gone on with, saved, and reported."""

import contextlib
import dataclasses
import shlex
import sys
from typing import Any

import jax
import numpy as np

from jaxnets.config.fields import SINGLE_PROCESS, Config, from_json, preset, to_json
from jaxnets.data.datasets import Dataset
from jaxnets.data.load import load_dataset
from jaxnets.errors import UserError, printable
from jaxnets.experiment import create_parallel, create_state, schedule_of, single_process
from jaxnets.machine import distributed
from jaxnets.machine.platform import describe, versions
from jaxnets.metrics import Metrics
from jaxnets.models.chain import Chain
from jaxnets.models.torchvision import describe_weights, weights_sha256
from jaxnets.runs.diagnosis import find_bad_step
from jaxnets.runs.replica_folder import ReplicaRunFolder, metadata_snapshot
from jaxnets.runs.run_folder import CONFIG, RunFolder, params_sha256
from jaxnets.training.loop import Checkpoint, NonFiniteLossError, all_finite
from jaxnets.training.step import TrainState

INIT_SHA256 = "init_from_sha256"

# Of this process, not of the run.
OF_THE_PROCESS = ("workdir", "resume", "overwrite")

# What may differ when a run goes on: where and how it runs, not what it computes. The data and the
# weights that the paths lead to are compared by their SHA-256, and epochs may only become more.
RESUME_MAY_CHANGE = (
    *OF_THE_PROCESS, "epochs", "dataset", "data_dir", "init_from", "platform", "cpu_devices",
    "devices", "parallel", "log_format", "target_accuracy", "checkpoint_every", "keep",
    *SINGLE_PROCESS,
)  # fmt: skip


def connected(flags: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Joins the run's other processes if the flags say so (machine/distributed.py).

    Raises:
      UserError: A value is out of range, or the others were asked for something else.
    """
    of_joining = {name: flags[name] for name in SINGLE_PROCESS if name in flags}
    # With --resume the rest is checked when there is a model to check it with.
    config = preset(**(of_joining if flags.get("resume") else flags))
    if not config.is_distributed:
        return contextlib.nullcontext()
    return distributed.connected(
        coordinator=config.coordinator,
        num_processes=config.num_processes,
        process_id=config.process_id,
        flags=flags,
    )


def config_of(flags: dict[str, Any]) -> Config:
    """The config that the flags ask for; with --resume, the interrupted run's own.

    Raises:
      UserError: A value is out of range, or --resume would change what the run computes.
    """
    if not flags.get("resume"):
        return preset(**flags)
    stored = distributed.broadcast_json("config", lambda: to_json(_resumed_config(flags)))
    own = {name: flags[name] for name in distributed.OWN_FLAGS if name in flags}
    return dataclasses.replace(from_json(stored), **own)


def _resumed_config(flags: dict[str, Any]) -> Config:
    # What goes with --resume is checked before there is a model to check the rest with.
    asked = preset(**{name: flags[name] for name in OF_THE_PROCESS if name in flags})
    if "workdir" in flags:
        folder = RunFolder.open(flags["workdir"])
    else:
        folder = RunFolder.newest_unfinished(flags.get("model", asked.model))
    stored = read_config(folder)
    began = dataclasses.asdict(stored)
    if (searched := folder.read_search()) is not None:
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
    config = dataclasses.replace(
        stored, **{"overwrite": False, "workdir": str(folder.path), **changes}
    )
    _refuse_finished(folder, config)
    return config


def _refuse_finished(folder: RunFolder, config: Config) -> None:
    epochs = read_config(folder).epochs
    if folder.finished and config.epochs <= epochs:
        raise UserError(
            f"resume: expected an interrupted run, {folder.path} holds a finished one "
            f"(--epochs above {epochs} goes on with it)"
        )


def read_config(folder: RunFolder) -> Config:
    """The run's own config, checked like one of flags.

    Raises:
      UserError: config.json is damaged or not a run's.
    """
    names = {field.name for field in dataclasses.fields(Config)}
    written = folder.read_config()
    if "model" not in written:
        raise UserError(f"{folder.path / CONFIG}: expected a run's, found no model in it")
    try:
        return from_json({name: value for name, value in written.items() if name in names})
    except (ValueError, TypeError, RecursionError) as error:  # Of another kind, or too deep.
        raise UserError(f"{folder.path / CONFIG}: damaged: {error}") from error


def load_data(config: Config) -> Dataset:
    """The config's data set."""
    return load_dataset(
        config.dataset,
        config.data_dir,
        config.validation_size,
        decode_size=config.decode_size,
        input_size=config.input_size,
        on_bad_image=config.on_bad_image,
    )


def open_run(config: Config, data: Dataset) -> RunFolder:
    """Makes the run folder and writes its config.json; with --resume, finds it. Locks it.

    Of several processes the first does; the others have a ReplicaRunFolder.

    Raises:
      UserError: The folder is taken or cannot be written, or it was begun with other data or
        another file of weights, or the processes have not the same.
    """
    inputs = inputs_sha256(config, data)
    distributed.assert_equal_across_processes("inputs", inputs)
    if not distributed.is_first():
        return ReplicaRunFolder(distributed.broadcast_json("folder", dict))
    folder = _open_run(config, data, inputs)
    distributed.broadcast_json("folder", lambda: metadata_snapshot(folder))
    return folder


def inputs_sha256(config: Config, data: Dataset) -> dict[str, str]:
    """The digests of what a run is given, by their names in config.json."""
    inputs = {"data_sha256": data.checksum}
    if config.init_from is not None:
        inputs[INIT_SHA256] = weights_sha256(config.init_from)
    return inputs


def _open_run(config: Config, data: Dataset, inputs: dict[str, str]) -> RunFolder:
    if config.resume:
        folder = RunFolder.open(str(config.workdir))
        folder.lock()
    else:
        folder = RunFolder.create(config.workdir, config.model, overwrite=config.overwrite)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder)  # Its lock is given back if it is refused.
        if config.resume:
            _refuse_finished(folder, config)  # Who had the lock may have come to the end.
            _refuse_other_inputs(folder, config, inputs)
            _update_config(folder, config, data, inputs)
        else:
            write_config(folder, config, data, inputs)
        stack.pop_all()
    folder.keep = config.keep
    return folder


def _refuse_other_inputs(folder: RunFolder, config: Config, inputs: dict[str, str]) -> None:
    began = folder.read_config()
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


def _update_config(
    folder: RunFolder, config: Config, data: Dataset, inputs: dict[str, str]
) -> None:
    """Writes down what the run goes on with, where that is not what it began with."""
    stored = read_config(folder)
    same = {name: getattr(config, name) for name in (*OF_THE_PROCESS, *SINGLE_PROCESS)}
    if dataclasses.replace(stored, **same) == config:
        return
    if config.epochs != stored.epochs:
        _warn_learning_rate_change(folder, stored, config, data)
        folder.mark_unfinished()  # First: with more epochs in config.json it would be half a run.
    write_config(folder, config, data, inputs)


def _warn_learning_rate_change(
    folder: RunFolder, stored: Config, config: Config, data: Dataset
) -> None:
    """Says how the learning rate changes if its schedule spans the whole run."""
    records = folder.records()
    step = records[-1]["step"] if records else 0
    was, now = (float(np.asarray(schedule_of(c, data)(step))) for c in (stored, config))
    if was != now:
        print(
            f"warning: schedule {config.schedule} spans {config.epochs} epochs instead of "
            f"{stored.epochs}: after step {step} the learning rate is {now:.3g} instead of "
            f"{was:.3g}",
            file=sys.stderr,
        )


def write_config(folder: RunFolder, config: Config, data: Dataset, inputs: dict[str, str]) -> None:
    """Writes config.json: every field, versions, device, `inputs_sha256`, the data's form."""
    devices = create_parallel(config).devices
    folder.write_config(
        {
            **to_json(dataclasses.replace(config, resume=False, **SINGLE_PROCESS)),
            "versions": versions(),
            "device_platform": devices[0].platform,
            "device": describe(devices),
            "num_devices": len(devices),
            **inputs,
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            "class_names": data.class_names,
        }
    )


def resume_command(folder: RunFolder) -> str:
    """The command that goes on with an interrupted run."""
    program = sys.argv[0] or "train.py"
    return f"go on with: python {shlex.join([program, '--resume', f'--workdir={folder.path}'])}"


def save(folder: RunFolder, checkpoint: Checkpoint, data: Dataset) -> None:
    """Saves how far the run has come.

    Raises:
      NonFiniteLossError: Not to a good end; the checkpoint before is kept.
    """
    if not distributed.is_first():
        return
    if not all_finite(checkpoint.state.params):
        raise NonFiniteLossError(
            f"the parameters after step {int(checkpoint.state.step)} are not finite"
        )
    folder.save(int(checkpoint.state.step), _tree(checkpoint, data))


def restore(folder: RunFolder, config: Config, state: TrainState, data: Dataset) -> Checkpoint:
    """Where the run was when it was last saved; records of later epochs are dropped.

    Args:
      folder: The run's.
      config: The run's.
      state: A fresh state, for its structure.
      data: The run's.
    """
    checkpoint = _last_saved(folder, config, state, data)
    folder.drop_records_after(int(checkpoint.state.step))
    return checkpoint


def explain(
    error: NonFiniteLossError, folder: RunFolder, config: Config, model: Chain, data: Dataset
) -> NonFiniteLossError:
    """The error with the step and the layer that went bad first, what is kept, and a hint."""
    explained = distributed.broadcast_json(
        "explained", lambda: _explain(error, folder, single_process(config), model, data)
    )
    return NonFiniteLossError(explained)


def _explain(
    error: NonFiniteLossError, folder: RunFolder, config: Config, model: Chain, data: Dataset
) -> str:
    folder.wait()
    last = _last_saved(folder, config, create_state(config, model, data), data)
    saved, records = int(last.state.step), folder.records()
    last_epoch = 1 + (records[-1]["epoch"] if records else 0)
    found = find_bad_step(config, model, last, data, last_epoch)
    kept = f"the checkpoint of step {saved} is kept" if saved else "nothing was saved before"
    return f"{found or error}; {kept}; try a --learning_rate below {config.learning_rate:g}"


def _last_saved(folder: RunFolder, config: Config, state: TrainState, data: Dataset) -> Checkpoint:
    like = _tree(Checkpoint(state), data)
    if not config.is_distributed:
        tree = folder.restore(like)
    else:
        tree = folder.restore(like) if distributed.is_first() else None
        if distributed.broadcast_json("restored", lambda: tree is not None):
            tree = distributed.broadcast_arrays(tree, like)
    if tree is None:
        return Checkpoint(state)
    parts = create_parallel(config).replicate((tree["step"], tree["params"], tree["opt_state"]))
    step, params, opt_state = parts
    metrics = Metrics(**tree["metrics"])
    return Checkpoint(
        TrainState(step=step, params=params, opt_state=opt_state, key=state.key),
        metrics if metrics.count else None,
        float(tree["seconds"]),
        float(tree["data_seconds"]),
    )


def _tree(checkpoint: Checkpoint, data: Dataset) -> dict[str, Any]:
    """A checkpoint as it is saved: its key is the seed's, and None has no array."""
    state, metrics = checkpoint.state, checkpoint.metrics or Metrics.zero(data.num_classes)
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "metrics": {
            field.name: getattr(metrics, field.name) for field in dataclasses.fields(metrics)
        },
        "seconds": np.float64(checkpoint.seconds),
        "data_seconds": np.float64(checkpoint.data_seconds),
    }


def headline(config: Config, state: TrainState, data: Dataset) -> str:
    """What is about to be trained, on what, where, in a line; from which weights, in another."""
    devices = create_parallel(config).devices
    place = describe(devices)
    if devices[0].platform == "cpu":
        place += " (no accelerator)"
    sizes = [f"{len(data.train):,} train"]
    if len(data.validation):
        sizes.append(f"{len(data.validation):,} validation")
    sizes.append(f"{len(data.test):,} test")
    line = (
        f"{config.model}: {num_params(state.params):,} parameters | {printable(data.name)}: "
        f"{', '.join(sizes)} images | {place} | {config.precision} | gradients {config.gradients}"
    )
    if config.init_from is not None:
        line += f"\n{describe_weights(config.init_from, state.params)}"
    return line


def num_params(params: Any) -> int:
    """How many numbers the network learns."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def finish(
    folder: RunFolder, config: Config, state: TrainState, data: Dataset, test: Metrics
) -> dict[str, Any]:
    """Writes result.json and returns what it holds."""
    history = folder.records()
    devices = create_parallel(config).devices
    result = {
        "model": config.model,
        "dataset": data.name,
        "num_params": num_params(state.params),
        "epochs": config.epochs,
        "steps": int(state.step),
        "seconds": sum(record["seconds"] for record in history),
        "train_loss": history[-1]["train_loss"],
        "validation_accuracy": history[-1]["validation_accuracy"],
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "test_top5_accuracy": test.top5_accuracy,
        "test_count": int(test.count),
        "gradients": config.gradients,
        "num_devices": len(devices),
        "platform": devices[0].platform,
        "params_sha256": params_sha256(state.params),
    }
    folder.finish(result)
    return result
