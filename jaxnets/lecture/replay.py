"""The slides' own procedure for the network coded by hand: search, choose, train anew, compare.

Source: slide "全连接神经网络的自定义编码实现", its program's output. Each hidden size is
trained for 20 full-batch steps on all but a twelfth of the training images (5,000 of 60,000); the
best on those is trained anew, for 50 steps, on all of them.
"""

import collections
import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset
from jaxnets.display import show
from jaxnets.display import table as aligned
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.lecture.log import SlideBar
from jaxnets.lecture.many import TrainingSummary, summary_from_json, train_many, train_one
from jaxnets.metrics import Metrics
from jaxnets.runs import terminal
from jaxnets.runs.run import Run, inputs_sha256, write_config
from jaxnets.runs.run_folder import SEARCH
from jaxnets.training.loop import Callbacks, Checkpoint

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


def held_out(data: Dataset) -> Dataset:
    """The first twelfth of the training images as validation images: 5,000 of MNIST's 60,000."""
    if not (count := len(data.train) // 12):
        raise UserError(f"expected 12 training images or more to search, found {len(data.train)}")
    return dataclasses.replace(data, train=data.train[count:], validation=data.train[:count])


def choose(search: dict[int, TrainingSummary]) -> int:
    """The size of the largest validation accuracy; the first wins ties."""
    return max(search, key=lambda size: search[size].accuracy)


def search_first(run: Run) -> None:
    """Trains every size of config.latent_dims for config.search_epochs, in the slide's lines.

    It leaves the run with the best size; what was found is kept in the run folder.
    """
    config, parts = run.config, held_out(run.experiment.data)
    found: dict[int, TrainingSummary] = {}
    print("Start searching the best parameter...", flush=True)
    with terminal.stop_on_interrupt() as stop:
        callbacks = Callbacks(stop=run.processes.synchronised_stop(stop))
        for size in config.latent_dims or ():
            trial = _single(config, size, config.seed, epochs=config.search_epochs)
            experiment = Experiment.create(trial, parts, run.experiment.parallel)
            name = f"Parameter latent_dims={size}"
            with contextlib.closing(SlideBar(name, config.search_epochs)) as bar:
                found[size] = train_one(experiment, parts.validation, bar.step, callbacks)
            loss, accuracy = found[size].loss, found[size].accuracy
            show(f"{name}, validation_loss={loss}, validation_accuracy={accuracy}.\n")
    best = choose(found)
    print(f"The best parameter is {best}.\n", flush=True)
    run.folder.write(SEARCH, {str(size): found[size]._asdict() for size in found})
    old, single = run.experiment, _single(config, best, config.seed)
    run.experiment = Experiment.create(single, old.data, old.parallel)
    run.checkpoint = Checkpoint(run.experiment.init_state())
    write_config(run.folder, run.experiment, inputs_sha256(run.experiment))


def closing_table(run: Run, test: Metrics) -> str:
    """`table` for a run that began with a search."""
    folder, config = run.folder, run.config
    try:
        kept = folder.read(SEARCH)
        found = {int(size): summary_from_json(values) for size, values in kept.items()}
        config = dataclasses.replace(config, latent_dims=tuple(found))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder.path / SEARCH}: damaged: {error}") from error
    last = folder.records()[-1]
    final = TrainingSummary(last["train_loss"], last["train_accuracy"], test.loss, test.accuracy)
    seeds = range(config.seed + 1, config.seed + config.replay_seeds)
    others = replay_many(config, run.experiment.data, seeds) if seeds else []
    return table([Replay(found, final), *others])


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
