"""The slides' own procedure for the network coded by hand: search, choose, train anew, compare.

A run with --log_format=lecture prints the slides' lines in place of those of runs/progress.py.

Source: slide "全连接神经网络的自定义编码实现", its program's output. Each hidden size is
trained for 20 full-batch steps on all but a twelfth of the training images (5,000 of 60,000); the
best on those is trained anew, for 50 steps, on all of them.
"""

import collections
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxnets.base.display import show
from jaxnets.base.display import table as aligned
from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import Processes
from jaxnets.metrics import Metrics
from jaxnets.runs import stopping
from jaxnets.runs.progress import Progress
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import SEARCH, RunFolder
from jaxnets.training.loop import TrainLoader
from jaxnets.training.observer import Observer, Record, Stop
from jaxnets.training.step import Checkpoint, TrainState
from jaxnets.tune.many import TrainingSummary, held_out, summary_from_json, train_many, train_one

# The slide's numbers: training loss and accuracy, then validation's (the last: the test's).
SLIDE = {
    100: TrainingSummary(0.61235563, 0.798364, 0.5979167190591659, 0.797),
    200: TrainingSummary(0.5519253, 0.851945, 0.5074925231099131, 0.853),
    300: TrainingSummary(0.7119555, 0.773982, 0.5305907522703492, 0.842),
}
SLIDE_BEST, SLIDE_FINAL = 200, TrainingSummary(0.31931881, 0.91, 0.30098108, 0.916)


class Replay(NamedTuple):
    """One seed's whole procedure."""

    search: dict[int, TrainingSummary]  # The result of each hidden size, on validation images.
    final: TrainingSummary  # The result of the best one, on the test images.


def observers_of(run: Run) -> list[Observer]:
    """The observers that print a run's lines: as on the slides, where its config asks for that."""
    kind = Progress
    if run.config.log_format == "lecture":
        kind = HandwrittenLog if run.config.model == "mlp_handwritten" else KerasLog
    progress = kind(run.config.epochs, run.experiment.loader)
    return [progress, ClosingTable(run)] if run.folder.read(SEARCH) else [progress]


def choose(search: dict[int, TrainingSummary]) -> int:
    """The size of the largest validation accuracy; the first wins ties."""
    return max(search, key=lambda size: search[size].accuracy)


def search_first(experiment: Experiment, folder: RunFolder, processes: Processes) -> Experiment:
    """Trains every size of config.latent_dims for config.search_epochs, in the slide's lines.

    What was found is kept in the run folder. It returns the experiment of the best size.
    """
    config, parts = experiment.config, held_out(experiment.data)
    found: dict[int, TrainingSummary] = {}
    print("Start searching the best parameter...", flush=True)
    with stopping.stop_on_interrupt(processes) as signal_came:
        stop = Stop(signal_came)
        for size in config.latent_dims or ():
            trial = _single(config, size, config.seed, epochs=config.search_epochs)
            name = f"Parameter latent_dims={size}"
            watching = [stop, SlideBar(name, config.search_epochs)]
            same = experiment.parallel.devices, experiment.find_rule
            trained = Experiment.create(trial, parts, *same)
            found[size] = train_one(trained, parts.validation, watching)
            loss, accuracy = found[size].loss, found[size].accuracy
            show(f"{name}, validation_loss={loss}, validation_accuracy={accuracy}.\n")
    best = choose(found)
    print(f"The best parameter is {best}.\n", flush=True)
    folder.write(SEARCH, {str(size): found[size]._asdict() for size in found})
    single = _single(config, best, config.seed)
    same = experiment.data, experiment.parallel.devices, experiment.find_rule
    return Experiment.create(single, *same)


class ClosingTable(Observer):
    """Prints `table` at the end of a run that began with a search."""

    def __init__(self, run: Run):
        self._run = run

    def on_finish(self, test: Metrics) -> None:
        folder, config = self._run.folder, self._run.config
        try:
            kept = folder.read(SEARCH)
            found = {int(size): summary_from_json(values) for size, values in kept.items()}
            config = dataclasses.replace(config, latent_dims=tuple(found))
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise UserError("{}: damaged: {}", folder.path / SEARCH, error) from error
        last = folder.records()[-1]
        summary = last["train_loss"], last["train_accuracy"], test.loss, test.accuracy
        seeds = range(config.seed + 1, config.seed + config.replay_seeds)
        others = replay_many(config, self._run.experiment.data, seeds) if seeds else []
        print(f"\n{table([Replay(found, TrainingSummary(*summary)), *others])}\n")


def _single(config: Config, size: int, seed: int, **changes: int) -> Config:
    """The config of one network: of one size, so that there is nothing to search."""
    return dataclasses.replace(config, hidden=(size,), latent_dims=None, seed=seed, **changes)


def replay_many(config: Config, data: Dataset, seeds: Sequence[int]) -> list[Replay]:
    """The whole procedure for several seeds at once, as train_many does it."""
    parts, searches = held_out(data), [{} for _ in seeds]
    for size in config.latent_dims or ():
        trials = [_single(config, size, seed, epochs=config.search_epochs) for seed in seeds]
        summaries = train_many(trials, parts, parts.validation)
        for found, summary in zip(searches, summaries, strict=True):
            found[size] = summary
    best, finals = [choose(found) for found in searches], {}
    for size in sorted(set(best)):
        winners = [i for i in range(len(seeds)) if best[i] == size]
        runs = [_single(config, size, seeds[i]) for i in winners]
        finals |= zip(winners, train_many(runs, data, data.test), strict=True)
    return [Replay(found, finals[i]) for i, found in enumerate(searches)]


def table(replays: Sequence[Replay]) -> str:
    """The slide beside the first replay, and beside the spread over all if there are several."""
    sizes, bests = replays[0].search, [choose(replay.search) for replay in replays]
    rows = [["", "slide", "this run"]]
    for size in sizes:
        ours = [replay.search[size] for replay in replays]
        rows += _rows(f"{size}", "validation", SLIDE.get(size), ours)
    best = ["best size", str(SLIDE_BEST), str(bests[0])]
    if len(replays) > 1:
        rows[0].append(f"{len(replays)} seeds: mean ± sd, from to")
        counts = collections.Counter(bests)
        best.append(", ".join(f"{size}: {counts[size]}" for size in sizes) + " times")
    rows.append(best)
    rows += _rows("best, anew:", "test", SLIDE_FINAL, [replay.final for replay in replays])
    return "\n".join(aligned(rows, "<<<<"))


def _rows(
    name: str, judge: str, slide: TrainingSummary | None, ours: Sequence[TrainingSummary]
) -> Iterator[list[str]]:
    """The rows of the table for one network: the slide's numbers, the first of ours, the spread."""
    titles = ["training loss", "training accuracy", f"{judge} loss", f"{judge} accuracy"]
    printed = [f"{number:.4f}" for number in slide] if slide else [""] * len(titles)
    for title, number, values in zip(titles, printed, zip(*ours, strict=True), strict=True):
        row = [f"{name} {title}", number, f"{values[0]:.4f}"]
        if len(values) > 1:
            spread = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
            row.append(f"{spread}, {min(values):.4f} {max(values):.4f}")
        yield row


class KerasLog(Progress):
    """Slide "全连接神经网络实现图片识别": `Train Epoch: 45 Loss= 0.080445871 Accuracy= 0.88640...`.

    Its accuracies have a double's digits: Keras averages single-precision ones over the batches.
    """

    shows_every_epoch = True  # As the slide does.

    def epoch_line(self, record: Record) -> str:
        epoch, loss = f"{record['epoch']:02d}", f"{record['train_loss']:.9f}"
        accuracy = float(np.float32(record["train_accuracy"]))
        return f"Train Epoch: {epoch} Loss= {loss} Accuracy= {accuracy}"

    def test_line(self, test: Metrics) -> str:
        return f"acc: {np.float32(test.accuracy)!s}"


class SlideBar(Observer):
    """A bar of steps that ends with what the slide shows; without a terminal, that line alone."""

    def __init__(self, what: str, total: int, done: int = 0):
        """Starts the bar; `what` begins its text, and `done` of `total` steps are done."""
        self._what, self._text = what, ""
        self._bar = tqdm(
            total=total,
            initial=done,
            bar_format="{desc}: {percentage:3.0f}%|{bar}|",  # The slide's, cut where a line ends.
            disable=None,
            dynamic_ncols=True,
        )

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Moves on to a record's step: `..., epoch=20 , loss=0.5519253 , accuracy=0.851945`."""
        epoch, loss = record["epoch"], round(record["train_loss"], 8)
        accuracy = round(record["train_accuracy"], 6)
        self._text = f"{self._what}, epoch={epoch:<3}, loss={loss:<10}, accuracy={accuracy:<8}"
        self._bar.set_description_str(self._text, refresh=False)
        self._bar.update()

    def on_train_end(self) -> None:
        """Leaves the bar standing, or prints its text if there is none."""
        shown = not self._bar.disable  # Closing disables it.
        self._bar.close()
        if self._text and not shown:
            print(self._text, flush=True)


class HandwrittenLog(Progress):
    """Slide "程序运行结果": one bar over all full-batch steps, then the line of the test."""

    def __init__(self, epochs: int, loader: TrainLoader):
        super().__init__(epochs, loader, bar=False)

    def on_train_begin(self, start: Checkpoint) -> None:
        super().on_train_begin(start)
        print("Start training the best model...", flush=True)
        self._slide = SlideBar("Training the best model", self._epochs, self._epoch)

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._slide.on_epoch_end(record, state)  # The slide has no line for a step.

    def test_line(self, test: Metrics) -> str:
        return f"Evaluate the best model, test loss={test.loss:.8f}, accuracy={test.accuracy:.6f}."

    def on_train_end(self) -> None:
        super().on_train_end()
        self._slide.on_train_end()
