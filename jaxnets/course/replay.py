"""The slides' own procedure for the network coded by hand: search, choose, train anew, compare.

Source: slide "全连接神经网络的自定义编码实现", its program's output. Each hidden size is
trained for 20 full-batch steps on all but a twelfth of the training images (5,000 of 60,000); the
best on those is trained anew, for 50 steps, on all of them.
"""

import collections
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxnets.config.fields import Config
from jaxnets.course.slide_lines import HandwrittenLog, KerasLog, SlideBar
from jaxnets.data.datasets import Dataset
from jaxnets.display import show
from jaxnets.display import table as aligned
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import Processes
from jaxnets.metrics import Metrics
from jaxnets.runs import terminal
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import SEARCH, RunFolder
from jaxnets.runs.terminal import Progress
from jaxnets.training.observer import Observer, Stop
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
    with terminal.stop_on_interrupt() as signal_came:
        stop = Stop(processes.synchronised_stop(signal_came))
        for size in config.latent_dims or ():
            trial = _single(config, size, config.seed, epochs=config.search_epochs)
            name = f"Parameter latent_dims={size}"
            watching = [stop, SlideBar(name, config.search_epochs)]
            trained = Experiment.create(trial, parts, experiment.parallel.devices)
            found[size] = train_one(trained, parts.validation, watching)
            loss, accuracy = found[size].loss, found[size].accuracy
            show(f"{name}, validation_loss={loss}, validation_accuracy={accuracy}.\n")
    best = choose(found)
    print(f"The best parameter is {best}.\n", flush=True)
    folder.write(SEARCH, {str(size): found[size]._asdict() for size in found})
    single = _single(config, best, config.seed)
    return Experiment.create(single, experiment.data, experiment.parallel.devices)


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
            raise UserError(f"{folder.path / SEARCH}: damaged: {error}") from error
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
