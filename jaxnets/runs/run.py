"""A run: an experiment in its folder, new or resumed, logged, saved, stopped by signals."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import numpy as np

from jaxnets.config.fields import SINGLE_PROCESS, Config, preset
from jaxnets.config.options import name_of
from jaxnets.data.arrays import NAME as ARRAYS
from jaxnets.data.datasets import Dataset
from jaxnets.data.load import load_dataset
from jaxnets.display import columns, fold, printable, short_path, show
from jaxnets.errors import RunFailedError, interruptible
from jaxnets.experiment import Experiment, Record
from jaxnets.machine.platform import Processes, describe, keep_freed_memory, surroundings
from jaxnets.metrics import Metrics
from jaxnets.runs import terminal
from jaxnets.runs.checkpoints import CheckpointTimer, all_finite
from jaxnets.runs.run_folder import CONFIG, RunFolder, num_params, params_sha256
from jaxnets.runs.terminal import Progress
from jaxnets.system import memory_limits
from jaxnets.training.loop import Callbacks, Checkpoint, Interrupted, NonFiniteLossError
from jaxnets.training.step import TrainState


class Run:
    """One run of train.py. Open it with `Run.open`, train in `epochs`, end with `finish`.

    Attributes:
      experiment: The network, the data and what trains them.
      folder: The run's folder.
      processes: The exchange of values with the run's other processes.
      checkpoint: The run's progress.
      note: A line on what is unusual about the recipe, or "".
      progress: The class of the display: a bar, and a line an epoch.
      hooks: Objects whose epoch(record) and test(metrics) are called when these are known.
      closing_lines: Called with the run and its test metrics; returns what `finish` prints last.
    """

    def __init__(
        self, experiment: Experiment, folder: RunFolder, processes: Processes, state: TrainState
    ):
        self.experiment, self.folder, self.processes = experiment, folder, processes
        self.checkpoint, self.note = Checkpoint(state), ""
        self.progress: Callable[..., Progress] = Progress
        self.hooks: list[Any] = []
        self.closing_lines: Callable[[Run, Metrics], str | None] = lambda run, test: None

    @classmethod
    @contextlib.contextmanager
    def open(cls, flags: dict[str, Any]) -> Iterator["Run"]:
        """Opens the run that the flags ask for: a new one, or an interrupted one with --resume.

        It connects the processes, finds the devices, loads the data and locks the folder. What
        ends the run in between becomes one line that says what is kept and how to resume.

        Raises:
          UserError: The request cannot be met.
          RunFailedError: The run cannot reach its end: a loss is not finite, the disk is full.
          StoppedError: A signal stopped the run.
        """
        if flags.get("init_from"):
            from jaxnets.runs.fine_tune import with_weights_of_run

            flags = with_weights_of_run(flags)
        with _connected(flags) as processes:
            if flags.get("resume"):
                from jaxnets.runs.resume import config_to_resume, last_saved

                config = config_to_resume(flags, processes)
            else:
                config, last_saved = preset(**flags), None
            data, note = load_data(config, as_bytes=True), ""  # A quarter of the memory.
            if last_saved is None:
                config, note = adapted(config, flags, data)
            experiment = Experiment.create(config, data)
            if memory_limits():
                from jaxnets.runs.memory import check_enough_memory

                check_enough_memory(experiment)
            state = experiment.init_state()  # First, as it may raise: then no folder is made.
            folder = _open_folder(experiment, processes)
            with terminal.ends_in_one_line(folder.path, config.dry_run), folder:
                run = cls(experiment, folder, processes, state)
                run.note = note
                if last_saved is not None:
                    run.checkpoint = last_saved(run, state)
                    step = int(run.checkpoint.state.step)
                    folder.drop_records_after(step, step // experiment.loader.steps)
                yield run

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def headline(self) -> str:
        """The lines that name the network, the data and the devices; if resumed, the step, too."""
        config, data, devices = self.config, self.experiment.data, self.experiment.parallel.devices
        params = self.checkpoint.state.params
        accelerator = "" if devices[0].platform != "cpu" else " (no accelerator)"
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        sizes = [f"{len(part):,} {name}" for name, part in parts.items() if len(part)]
        line = (
            f"{config.model}: {num_params(params):,} parameters | {printable(data.name)}: "
            f"{', '.join(sizes)} images | {describe(devices)}{accelerator} | {config.precision} | "
            f"gradients {config.gradients}"
        )
        if config.init_from is not None:
            from jaxnets.models.weights import describe_weights

            line += f"\n{describe_weights(config.init_from, params)}"
        large = terminal.large_folder_note(self.checkpoint.state, config)
        line += "".join(f"\n{note}" for note in (self.note, large) if note)
        if config.resume:
            where = printable(short_path(str(self.folder.path)))
            step = int(self.checkpoint.state.step)
            line += f"\nresuming {where} after step {step:,}"
        return fold(line, columns())

    def epochs(self) -> Iterator[Record]:
        """Trains; after each epoch it validates, logs and yields the epoch's record.

        Raises:
          Interrupted: A signal came; the run was saved.
          NonFiniteLossError: The message names the first bad step and layer.
        """
        try:
            yield from self._epochs()
        except NonFiniteLossError as error:
            from jaxnets.runs.diagnosis import diagnose

            message = self.processes.broadcast_json("diagnosis", partial(diagnose, self, error))
            raise NonFiniteLossError(message) from None

    def _epochs(self) -> Iterator[Record]:
        loader, step = self.experiment.loader, int(self.checkpoint.state.step)
        self._timer = CheckpointTimer(*self.config.checkpoint_interval, loader.steps, step)
        with (
            terminal.stop_on_interrupt() as stop,
            self.progress(self.config.epochs, loader, self.checkpoint) as self._shown,
        ):
            callbacks = Callbacks(
                progress=self._shown.update,
                gradient_error=self._shown.gradient_error,
                stop=self.processes.synchronised_stop(stop),
                due=lambda step: self._timer.due(step, saving=self.folder.saving),
                save=self._save,
            )
            try:
                if not step:  # What cannot be saved to ends the run before it has cost time.
                    self._save(self.checkpoint)
                    self.folder.wait()
                trained = self.experiment.epochs(self.checkpoint, callbacks)
                for state, record in () if self._why_stopped() else trained:
                    self.checkpoint = Checkpoint(state)
                    self.folder.log(record)
                    yield record
                    is_last = record["epoch"] == self.config.epochs or bool(self._why_stopped())
                    if is_last or callbacks.due(record["step"]):
                        self._save(self.checkpoint)
                    if is_last:
                        break
                if number := stop():  # The signal came after the last step.
                    raise Interrupted(self.checkpoint, number)
            except Interrupted as interrupted:
                self._save(interrupted.checkpoint)
                self.folder.wait()  # In here, where a second SIGHUP does not cut it short.
                where = terminal.saved(interrupted.checkpoint, loader, self.config.epochs)
                interrupted.add_note(where)
                raise
            self.folder.wait()

    def _why_stopped(self) -> str | None:
        """The reason why training ends before its last epoch, or None."""
        config = self.config
        if config.early_stopping is None and not config.stop_at_target:
            return None
        from jaxnets.training.early_stopping import why_stopped

        target = config.target_accuracy if config.stop_at_target else None
        return why_stopped(self.folder.records(), config.early_stopping, target)

    def report(self, record: Record) -> None:
        try:
            self._shown.epoch(record)
        except BrokenPipeError:  # stdout's reader, such as `head`, has ended: so does the run.
            self._save(self.checkpoint)
            raise
        for hook in self.hooks:
            hook.epoch(record)

    def finish(self) -> Metrics:
        """Tests once, writes result.json, prints how the run ended; returns the test's metrics.

        Raises:
          RunFailedError: The test accuracy is below the target.
        """
        if reason := self._why_stopped():
            show(reason)
        test = self.experiment.evaluate(self.checkpoint.state.params, self.experiment.data.test)
        print(self._shown.test_line(test))
        result = self.result(test)
        self.folder.finish(result)
        for hook in self.hooks:
            hook.test(test)
        if self.config.weights_only and self.processes.is_first:
            from jaxnets.runs.weights_only import keep_weights_only

            keep_weights_only(self.folder, self.checkpoint.state.params)
        if lines := self.closing_lines(self, test):
            print(f"\n{lines}\n")
        where, names = short_path(str(self.folder.path)), self.experiment.data.class_names
        show(terminal.ending(test, names, self.config, where, self.folder.records()))
        target = self.config.target_accuracy
        if target is not None and test.accuracy < target:
            raise RunFailedError(
                f"target_accuracy: expected a test accuracy of {target}, got {test.accuracy}"
            )
        return test

    def result(self, test: Metrics | None) -> dict[str, Any]:
        """The content of result.json; without test images the test's values are None."""
        history, config = self.folder.records(), self.config
        state, devices = self.checkpoint.state, self.experiment.parallel.devices
        trained, validated = terminal.seconds_of(history)
        return {
            "model": config.model,
            "dataset": self.experiment.data.name,
            "num_params": num_params(state.params),
            "epochs": history[-1]["epoch"],
            "steps": int(state.step),
            "seconds": trained,
            "validation_seconds": validated,
            "train_loss": history[-1]["train_loss"],
            "validation_accuracy": history[-1]["validation_accuracy"],
            "test_loss": test and test.loss,
            "test_accuracy": test and test.accuracy,
            "test_top5_accuracy": test and test.top5_accuracy,
            "test_count": int(test.count) if test else 0,
            "gradients": config.gradients,
            "num_devices": len(devices),
            "platform": devices[0].platform,
            "params_sha256": params_sha256(state.params),
        }

    def _save(self, checkpoint: Checkpoint) -> None:
        """Saves the run's progress; NonFiniteLossError if a parameter is not finite."""
        step = int(checkpoint.state.step)
        if self.processes.is_first:
            if not all_finite(checkpoint.state.params):
                raise NonFiniteLossError(f"the parameters after step {step} are not finite")
            self.folder.save(step, self.tree(checkpoint))
        self._timer.saved(step)

    def tree(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """A checkpoint's arrays: without the key, which the seed determines, and zeros for None."""
        state = checkpoint.state
        return {
            "step": state.step,
            "params": state.params,
            "opt_state": state.opt_state,
            "metrics": checkpoint.metrics or Metrics.zero(self.experiment.data.num_classes),
            "seconds": np.float64(checkpoint.seconds),
            "data_seconds": np.float64(checkpoint.data_seconds),
        }


def load_data(config: Config, *, as_bytes: bool = False) -> Dataset:
    """The config's data set, limited as it asks."""
    keep_freed_memory()  # Before threads read pictures.
    two_batches = 2 * (config.batch_size or 128) if config.dry_run else None
    data = load_dataset(
        config.dataset,
        config.data_dir,
        config.validation_size,
        decode_size=config.decode_size,
        input_size=config.input_size,
        on_bad_image=config.on_bad_image,
        as_bytes=as_bytes,
    )
    return data.limited(config.limit or two_batches)


def adapted(config: Config, given: Collection[str], data: Dataset) -> tuple[Config, str]:
    """The config with another recipe if the set is a small one of pictures, and what to note.

    The fields in `given` keep their values.
    """
    are_pictures = data.name == ARRAYS or not isinstance(data.train.images, np.ndarray)
    if not are_pictures and "optimizer" not in given:
        return config, ""
    from jaxnets.config.adapt import adapt

    return adapt(config, given, len(data.train) if are_pictures else None, data.class_names)


def inputs_sha256(experiment: Experiment) -> dict[str, str]:
    """The digests of the data and the first weights, by their names in config.json."""
    inputs = {"data_sha256": experiment.data.checksum}
    if experiment.config.init_from is not None:
        from jaxnets.models.weights import weights_sha256

        inputs["init_from_sha256"] = weights_sha256(experiment.config.init_from)
    return inputs


def write_config(folder: RunFolder, experiment: Experiment, inputs: dict[str, str]) -> None:
    """Writes config.json: every field, versions, device, digests, the shape of the data.

    A resumed run keeps the versions and the machine on which it began: every resume elsewhere says
    so, and what config.json does not know stays unknown.
    """
    data, began = experiment.data, folder.read(CONFIG)
    where = surroundings(experiment.parallel.devices)
    if began:
        where = {name: began[name] for name in where if name in began}
    settings = dataclasses.replace(experiment.config, resume=False, **SINGLE_PROCESS)
    folder.write(
        CONFIG,
        {
            **{name: name_of(value) for name, value in dataclasses.asdict(settings).items()},
            **where,
            **inputs,
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            "class_names": data.class_names,
        },
    )


@contextlib.contextmanager
def _connected(flags: dict[str, Any]) -> Iterator[Processes]:
    """Connects with the run's other processes if the flags say so."""
    connection = {name: flags[name] for name in SINGLE_PROCESS if name in flags}
    # With --resume the other flags are checked later, when the run's model is known.
    config = preset(**(connection if flags.get("resume") else flags))
    if not config.is_distributed:
        yield Processes()
        return
    from jaxnets.machine.distributed import connected

    where = config.coordinator, config.num_processes, config.process_id, config.secret_file
    # It tells the others why it ends, so Ctrl-C must not end it at once.
    with interruptible(), connected(*where, flags) as processes:
        yield processes


def _open_folder(experiment: Experiment, processes: Processes) -> RunFolder:
    """Makes the run folder with its config.json or, with --resume, finds it; locks it.

    The first of several processes does; the others get a replica that writes nothing.
    """
    config, inputs = experiment.config, inputs_sha256(experiment)
    processes.assert_equal("inputs", inputs)
    if not processes.is_first:
        from jaxnets.runs.replica import ReplicaRunFolder

        return ReplicaRunFolder(processes.broadcast_json("folder", dict))  # Only receives.
    if config.resume:
        folder = RunFolder.open(str(config.workdir))
        folder.lock()
    else:
        workdir = tempfile.mkdtemp(prefix="jaxnets-") if config.dry_run else config.workdir
        folder = RunFolder.create(workdir, config.model, overwrite=config.overwrite)
    try:
        must_write = True
        if config.resume:
            from jaxnets.runs.resume import prepare_to_resume

            must_write = prepare_to_resume(folder, experiment, inputs)
        if must_write:
            write_config(folder, experiment, inputs)
    except BaseException:
        folder.close()  # Releases its lock: the request is refused.
        raise
    folder.keep, folder.is_temporary = config.keep, config.dry_run
    if config.is_distributed:
        processes.broadcast_json("folder", folder.snapshot)
    return folder
