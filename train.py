"""Trains a network of the lecture and reports its test accuracy.

    python train.py --model=cnn                      a CNN, on MNIST
    python train.py --model=cnn --gradients=manual   the same, gradients by hand
    python train.py --model=mlp --hidden=128,64 --epochs=5
    python train.py --model=cnn --dataset=cifar10    another data set

Everything about a run lands in its run folder. Exit status: 0 done; 1 fell short (the target
accuracy was missed, a loss not finite, the gradients disagreed, the disk full); 2 the request was
wrong; 130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP, a closed terminal) interrupted, after saving.
--resume goes on with the model's newest unfinished run, --resume --workdir=DIR with that one. A
second Ctrl-C stops at once, without saving.
"""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxnets.cli import exit_status
from jaxnets.cli.flags import parse_flags
from jaxnets.errors import DONE, RUN_FAILED, RunFailedError, StoppedError, printable

if TYPE_CHECKING:
    from jaxnets.config.fields import Config
    from jaxnets.data.datasets import Dataset
    from jaxnets.models.chain import Chain
    from jaxnets.runs.run_folder import RunFolder
    from jaxnets.training.step import TrainState


def main(arguments: Sequence[str]) -> int:
    """Configuration, data, model, state, run folder; returns the exit status."""
    flags = parse_flags(arguments, description=__doc__ or "")

    # Imported after the flags are known to be right: JAX takes a second.
    from jaxnets.runs import run

    with run.connected(flags):
        return prepare_and_train(flags)


def prepare_and_train(flags: dict[str, Any]) -> int:
    """The run, as this process or all that joined have it; returns the exit status."""
    from jaxnets.experiment import create_model, create_state
    from jaxnets.runs import run
    from jaxnets.training.loop import Interrupted

    config = run.config_of(flags)
    data = run.load_data(config)
    model = create_model(config, data)
    state = create_state(config, model, data)
    folder = run.open_run(config, data)
    try:
        with folder:
            return train(config, data, model, state, folder)
    except Interrupted as stopped:
        raise StoppedError(f"interrupted; {run.resume_command(folder)}", stopped.signal) from None
    except KeyboardInterrupt:
        message = f"stopped at once; {run.resume_command(folder)}"
        raise StoppedError(message, signal.SIGINT, at_once=True) from None
    except OSError as error:
        # A full disk, say; what is wrong outside of the run's folder is not its matter.
        if not str(error.filename).startswith(str(folder.path)):
            raise
        message = f"{error.filename}: {error.strerror}; {run.resume_command(folder)}"
        raise RunFailedError(message) from error


def train(
    config: "Config", data: "Dataset", model: "Chain", state: "TrainState", folder: "RunFolder"
) -> int:
    """Loop and report; returns the exit status."""
    from jaxnets.experiment import create_model, create_state, epochs, evaluate, loader_of
    from jaxnets.lecture import replay
    from jaxnets.lecture.log import progress_of
    from jaxnets.machine.distributed import synchronised_stop
    from jaxnets.runs import run
    from jaxnets.runs.checkpoint_timer import CheckpointTimer
    from jaxnets.runs.signals import stop_on_interrupt
    from jaxnets.training.loop import Callbacks, Checkpoint, Interrupted, NonFiniteLossError

    if config.latent_dims is not None:  # The slides search the hidden size of their own network.
        with stop_on_interrupt() as stop:
            callbacks = Callbacks(stop=synchronised_stop(stop))
            config = replay.search_first(config, folder, data, callbacks)
        model = create_model(config, data)
        state = create_state(config, model, data)
    print(run.headline(config, state, data), flush=True)

    checkpoint = Checkpoint(state)
    if config.resume:
        checkpoint = run.restore(folder, config, state, data)
        where = printable(str(folder.path))
        print(f"going on in {where} after step {int(checkpoint.state.step):,}", flush=True)
    state = checkpoint.state
    loader = loader_of(config, data)
    timer = CheckpointTimer(*config.checkpoint_interval, loader.steps, int(state.step))

    def save(checkpoint: Checkpoint) -> None:
        run.save(folder, checkpoint, data)
        timer.saved(int(checkpoint.state.step))

    def due(step: int) -> bool:
        return timer.due(step, saving=folder.saving)

    try:
        with (
            stop_on_interrupt() as stop,
            progress_of(config, loader, checkpoint) as bar,
        ):
            callbacks = Callbacks(
                bar.update, bar.gradient_error, synchronised_stop(stop), due, save
            )
            try:
                for state, record in epochs(config, model, checkpoint, data, callbacks):
                    folder.log(record)
                    bar.epoch(record)
                    if record["epoch"] == config.epochs or due(record["step"]):
                        save(Checkpoint(state))
                if number := stop():  # It came after the last step.
                    raise Interrupted(Checkpoint(state), number)
            except Interrupted as interrupted:
                save(interrupted.checkpoint)
                folder.wait()  # In here, where a second SIGHUP does not cut it short.
                raise
            folder.wait()
    except NonFiniteLossError as error:
        raise run.explain(error, folder, config, model, data) from None

    test = evaluate(config, model, state.params, data.test)
    print(bar.test_line(test))
    run.finish(folder, config, state, data, test)
    if comparison := replay.closing_table(config, folder, data, test):
        print(f"\n{comparison}\n")
    print(f"run folder: {printable(str(folder.path))}")
    if config.target_accuracy is not None and test.accuracy < config.target_accuracy:
        print(
            f"fell short: expected a test accuracy of {config.target_accuracy}, "
            f"reached {test.accuracy}",
            file=sys.stderr,
        )
        return RUN_FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(exit_status.run(main))
