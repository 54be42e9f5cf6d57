"""A run: an experiment in its folder, which is logged and saved, and can be resumed."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.display import columns, printable, short_path, show, wrap
from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.base.language import N_, Text, _, said
from jaxnets.config.fields import PLACE, SINGLE_PROCESS, Config
from jaxnets.config.options import name_of
from jaxnets.config.resolve import OwnNetwork, StoredRun, check_process
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import Experiment
from jaxnets.machine.distributed import ConnectedProcesses, connected
from jaxnets.machine.platform import (
    Processes,
    describe_devices,
    set_up_jax,
    surroundings,
    versions,
)
from jaxnets.metrics import Metrics
from jaxnets.models.weights import describe_weights, head_of, weights_sha256
from jaxnets.networks.rows import own_files
from jaxnets.runs import ending, stopping
from jaxnets.runs.checkpoints import CheckpointTimer, all_finite, tree_of
from jaxnets.runs.diagnosis import diagnose
from jaxnets.runs.request import load_bytes, request, run_to_resume
from jaxnets.runs.resume import load_checkpoint, prepare_to_resume
from jaxnets.runs.run_folder import (
    COMMAND,
    CONFIG,
    NO_RULES,
    RULES,
    WORD,
    ReplicaRunFolder,
    RunFolder,
    num_params,
    params_sha256,
)
from jaxnets.training.loop import Interrupted, NonFiniteLossError
from jaxnets.training.observer import EarlyStopping, Observer, Record, Stop
from jaxnets.training.parallel import find_devices
from jaxnets.training.step import Checkpoint, TrainState

LARGE_FOLDER = 500_000_000  # Bytes.
# Flags that may differ from process to process: only process 0's workdir counts, and the data are
# compared by their checksum.
OWN_FLAGS = ("process_id", "workdir", "data_dir")
SAVED = N_("saved after step {} (epoch {} of {})")


class Run(Observer):
    """One run of train.py. Open it with `Run.open`, then `train`, then `finish`.

    It is the first observer of its own training: it logs every epoch, and saves.

    Attributes:
      experiment: The network, the data and the parts that train it.
      folder: The run's folder.
      processes: The exchange of values with the run's other processes.
      checkpoint: The run's progress.
      notes: Lines on what is unusual about the recipe.
      rules: Texts that identify rules other than ours.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        processes: Processes,
        checkpoint: Checkpoint,
        notes: Sequence[str] = (),
        rules: Mapping[str, str] = NO_RULES,
    ):
        self.experiment, self.folder, self.processes = experiment, folder, processes
        self.checkpoint, self.notes, self.rules = checkpoint, notes, rules
        self._early = EarlyStopping(self.config, folder.records())
        step, steps = int(checkpoint.state.step), experiment.loader.steps
        self._timer = CheckpointTimer(*self.config.checkpoint_interval, steps, step)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        flags: dict[str, Any],
        *,
        command: Sequence[str] = ("train",),
        load: Callable[[Config], Dataset] = load_bytes,
        find_rule: FindRule = rule_of,
        rules: Mapping[str, str] = NO_RULES,
        judge: Callable[[Experiment], None] | None = None,
    ) -> Generator["Run"]:
        """Opens the run that the flags ask for: a new one, or an interrupted one with --resume.

        It connects the processes, finds the devices, loads the data and locks the folder. An error
        that ends the run becomes one line, which says what is kept and how to resume.

        Args:
          flags: Fields of Config.
          command: The words after `jaxnets` that start such a run, for the line that resumes it.
          load: Loads the data of a Config.
          find_rule: Finds the rules of the layers and of the loss, for a gradient by hand.
          rules: Texts that identify rules other than ours; a run continues only with the same.
          judge: Raises an error if the experiment should not train, before there is a folder.

        Raises:
          UserError: The request cannot be met.
          RunFailedError: The run cannot reach its end: a loss is not finite, the disk is full.
          StoppedError: A signal stopped the run.
        """
        with _connected(flags) as processes:
            resumed = None
            if flags.get("resume"):
                found = processes.broadcast_json(lambda: run_to_resume(flags).to_json())
                resumed = StoredRun.from_json(found)
            config, data, notes = request(flags, load, resumed=resumed)
            if resumed is not None:
                check_rules(resumed.rules, rules, resumed.command)
            experiment = Experiment.create(config, data, find_devices(config), find_rule)
            if judge is not None:
                judge(experiment)
            state = experiment.init_state()  # First: if it raises, no folder is made.
            folder = _open_folder(experiment, processes, command, rules)
            model = flags.get("model")
            file = model.file if isinstance(model, OwnNetwork) else None
            with stopping.ends_in_one_line(folder.path, command, file), folder:
                checkpoint = Checkpoint(state)
                if config.resume:
                    checkpoint = load_checkpoint(folder, experiment, state, processes)
                    step = int(checkpoint.state.step)
                    folder.drop_records_after(step, step // experiment.loader.steps)
                yield cls(experiment, folder, processes, checkpoint, notes, rules)

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def headline(self) -> str:
        """The lines that name the network, the data and the devices; if resumed, also the step."""
        config, data, devices = self.config, self.experiment.data, self.experiment.parallel.devices
        state, params = self.checkpoint.state, self.checkpoint.state.params
        where = said(describe_devices(devices))
        where += _(" (no accelerator)") if devices[0].platform == "cpu" else ""
        parts = {
            N_("{} train"): data.train,
            N_("{} validation"): data.validation,
            N_("{} test"): data.test,
        }
        sizes = [_(text, f"{len(part):,}") for text, part in parts.items() if len(part)]
        name, number = printable(data.name), f"{num_params(params):,}"
        data_text = N_("{}: {} points") if data.is_table else N_("{}: {} images")
        texts = [
            _("{}: {} parameters", config.model, number),
            _(data_text, name, _(", ").join(sizes)),
            where,
            config.precision,
            _("gradients {}", config.gradients),
        ]
        line = " | ".join(texts)
        if self.rules:
            line += _(" (yours: {})", ", ".join(self.rules))
        if config.init_from is not None:
            head = head_of(self.experiment.model, params)
            line += f"\n{describe_weights(config.init_from, params, head)}"
        line += "".join(f"\n{note}" for note in self.notes)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((params, state.opt_state)))
        total = (config.keep + 1) * size  # Including the best one.
        if total > LARGE_FOLDER:
            text = _(
                "note: the run folder takes up to {} MB, {} MB a checkpoint; --keep=1 keeps fewer",
                f"{total / 1e6:,.0f}",
                f"{size / 1e6:,.0f}",
            )
            line += f"\n{text}"
        if config.resume:
            where = printable(short_path(str(self.folder.path)))
            line += "\n" + _("resuming {} after step {}", where, f"{int(state.step):,}")
        return wrap(line, columns())

    def train(self, observers: Sequence[Observer] = ()) -> None:
        """Trains; after each epoch it validates, logs and saves.

        Raises:
          Interrupted: A signal came; the run was saved.
          NonFiniteLossError: The message names the first bad step and layer.
        """
        try:
            self._train(observers)
        except NonFiniteLossError as error:
            message = self.processes.broadcast_json(partial(self._diagnose, error))
            raise NonFiniteLossError("{}", message) from None

    def _train(self, observers: Sequence[Observer]) -> None:
        with stopping.stop_on_interrupt(self.processes) as signal_came:
            try:
                if not int(self.checkpoint.state.step):
                    # A place that cannot be written to ends the run before it has cost time.
                    self.on_save(self.checkpoint)
                    self.folder.wait()
                if not self._early.should_end():
                    stop = Stop(signal_came)
                    watching = [self._early, self, stop, *observers]
                    for state, record in self.experiment.epochs(self.checkpoint, watching):
                        is_last = record["epoch"] == self.config.epochs or self._early.should_end()
                        if is_last or self.should_save(int(state.step)):
                            self.on_save(self.checkpoint)
                if number := signal_came():  # The signal came after the last step.
                    raise Interrupted(self.checkpoint, number)
            except Interrupted as interrupted:
                self.on_save(interrupted.checkpoint)
                self.folder.wait()  # Here, where a second SIGHUP does not cut it short.
                step = int(interrupted.checkpoint.state.step)
                epoch = max(1, -(-step // self.experiment.loader.steps))  # The step's own epoch.
                interrupted.saved = Text(SAVED, f"{step:,}", epoch, self.config.epochs)
                raise
            except BrokenPipeError:  # stdout's reader, such as `head`, has ended.
                self.on_save(self.checkpoint)
                raise
            self.folder.wait()

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self.checkpoint = Checkpoint(state)
        self.folder.log(record)

    def should_save(self, step: int) -> bool:
        return self._timer.due(step, saving=self.folder.saving)

    def on_save(self, checkpoint: Checkpoint) -> None:
        """Saves the run's progress; NonFiniteLossError if a parameter is not finite."""
        step = int(checkpoint.state.step)
        if self.processes.is_first:
            if not all_finite(checkpoint.state.params):
                raise NonFiniteLossError("the parameters after step {} are not finite", step)
            self.folder.save(step, tree_of(checkpoint, self.experiment.data.num_classes))
        self._timer.saved(step)

    def _diagnose(self, error: NonFiniteLossError) -> Text:
        """Finds the first bad step and layer, and says what is kept."""
        self.folder.wait()
        experiment = self.experiment
        if self.config.is_distributed:  # From here on the other processes do not take part.
            single = dataclasses.replace(self.config, **SINGLE_PROCESS, devices=None)
            experiment = Experiment.create(single, experiment.data, find_rule=experiment.find_rule)
        last = load_checkpoint(self.folder, experiment, experiment.init_state())
        return diagnose(experiment, last, self.folder.records(), error)

    def finish(self, observers: Sequence[Observer] = ()) -> Metrics | None:
        """Tests once, writes result.json, prints how the run ended; returns the test's metrics.

        With test=False the test images stay closed, and the metrics are None.

        Raises:
          RunFailedError: The test accuracy is below the target.
        """
        if reason := self._early.reason:
            show(said(reason))
        test = None
        if self.config.test:
            test = self.experiment.evaluate(self.checkpoint.state.params)
            for observer in observers:
                observer.on_test(test)
        self.write_result(test)
        for observer in observers:
            observer.on_finish(test)
        where, names = short_path(str(self.folder.path)), self.experiment.data.class_names
        records = self.folder.records()
        show(ending.ending(test, names, self.config, where, records, ours=not self.rules))
        target = self.config.target_accuracy
        if test is not None and target is not None and test.accuracy < target:
            raise RunFailedError(
                "target_accuracy: expected a test accuracy of {}, got {}", target, test.accuracy
            )
        return test

    def write_result(self, test: Metrics | None) -> None:
        """Writes result.json, after which the run is finished."""
        self.folder.finish(self._result(test))

    def _result(self, test: Metrics | None) -> dict[str, Any]:
        """The content of result.json; without test images the test's values are None."""
        history, config = self.folder.records(), self.config
        state, devices = self.checkpoint.state, self.experiment.parallel.devices
        trained, validated = ending.seconds_of(history)
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
            "validation_count": len(self.experiment.data.validation),
            "test_loss": test and test.loss,
            "test_accuracy": test and test.accuracy,
            "test_top5_accuracy": test and test.top5_accuracy,
            "test_count": int(test.count) if test else 0,
            "gradients": config.gradients,
            "num_devices": len(devices),
            "platform": devices[0].platform,
            "params_sha256": params_sha256(state.params),
        }


def inputs_sha256(experiment: Experiment) -> dict[str, Any]:
    """The digests of the data and of the first weights, by their names in config.json."""
    inputs: dict[str, Any] = {"data_sha256": experiment.data.checksum}
    if experiment.config.init_from is not None:
        inputs["init_from_sha256"] = weights_sha256(experiment.config.init_from)
    return inputs


def check_rules(began: Mapping[str, str], now: Mapping[str, str], command: str) -> None:
    """Raises UserError unless a run continues with the user's own rules that it began with.

    Args:
      began: What identifies the rules in its folder.
      now: The same of the present rules.
      command: The words after `jaxnets` that continue the run.
    """
    if began == now:
        return
    if not now:
        raise UserError(
            "resume: expected your own {} again: jaxnets {} FILE... --resume, or "
            "jaxnets.load(DIR, find_rule=...)",
            ", ".join(began),
            command,
        )
    raise UserError(
        "resume: expected the passes with which the run began, SHA-256 {}, got {}",
        began or "none",
        now,
    )


def write_config(
    folder: RunFolder,
    experiment: Experiment,
    command: Sequence[str] = ("train",),
    rules: Mapping[str, str] = NO_RULES,
) -> None:
    """Writes config.json: every field, versions, device, digests, the shape of the data.

    A resumed run keeps the versions and the machine that it began with: every resume under others
    says so. Values that config.json lacks stay unknown.
    """
    data, began = experiment.data, folder.read(CONFIG)
    where = surroundings(experiment.parallel.devices)
    if began:
        where = {name: began[name] for name in where if name in began}
    folder.keep_files(own_files(experiment.config.layers))
    settings = dataclasses.replace(experiment.config, resume=False, **SINGLE_PROCESS)
    folder.write(
        CONFIG,
        {
            **{name: name_of(value) for name, value in dataclasses.asdict(settings).items()},
            **where,
            **inputs_sha256(experiment),
            **({RULES: dict(rules)} if rules else {}),
            COMMAND: " ".join(filter(WORD.fullmatch, command)),
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            "class_names": data.class_names,
        },
    )


@contextlib.contextmanager
def _connected(flags: dict[str, Any]) -> Generator[Processes]:
    """Connects with the run's other processes if the flags say so."""
    check_process(flags)
    coordinator, count, number = (flags.get(name) for name in PLACE)
    if not flags.get("distributed") and coordinator is None:
        yield Processes()
        return
    with connected(coordinator, count, number):
        # The processes exchange values through their devices.
        devices, platform = flags.get("devices"), flags.get("platform")
        set_up_jax(devices, platform=platform, cpu_devices=flags.get("cpu_devices"), connected=True)
        processes = ConnectedProcesses()
        shared = {name: value for name, value in flags.items() if name not in OWN_FLAGS}
        processes.assert_equal({**versions(), **shared})
        yield processes


def _open_folder(
    experiment: Experiment,
    processes: Processes,
    command: Sequence[str],
    rules: Mapping[str, str],
) -> RunFolder:
    """Makes the run folder with its config.json or, with --resume, finds it; locks it.

    With several processes, the first does this; the others get a replica that writes nothing.
    """
    config, inputs = experiment.config, inputs_sha256(experiment)
    processes.assert_equal({**inputs, **rules})
    if not processes.is_first:
        return ReplicaRunFolder(processes.broadcast_json(dict))  # Only receives.
    if config.resume:
        folder = RunFolder.open(str(config.workdir))
        folder.lock()
    else:
        folder = RunFolder.create(config.workdir, config.model, overwrite=config.overwrite)
    try:
        must_write = True
        if config.resume:
            must_write = prepare_to_resume(folder, experiment, inputs)
        if must_write:
            write_config(folder, experiment, command, rules)
    except BaseException:
        folder.close()  # Releases its lock: the request is refused.
        raise
    folder.keep = config.keep
    if config.is_distributed:
        processes.broadcast_json(folder.snapshot)
    return folder
