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
from typing import Any

from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset, held_out
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.lecture.log import SlideBar
from jaxnets.lecture.many import TrainingSummary, summary_from_json, train_many, train_one
from jaxnets.metrics import Metrics
from jaxnets.runs import terminal
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import SEARCH
from jaxnets.table import table as aligned
from jaxnets.training.loop import Callbacks

# What the slide prints: training loss and accuracy, then validation's (the last: the test's).
SLIDE = {
    100: TrainingSummary(0.61235563, 0.798364, 0.5979167190591659, 0.797),
    200: TrainingSummary(0.5519253, 0.851945, 0.5074925231099131, 0.853),
    300: TrainingSummary(0.7119555, 0.773982, 0.5305907522703492, 0.842),
}
SLIDE_BEST, SLIDE_FINAL = 200, TrainingSummary(0.31931881, 0.91, 0.30098108, 0.916)


@dataclasses.dataclass(frozen=True)
class Replay:
    """One seed's whole procedure.

    Attributes:
      search: How each hidden size ended, judged on the validation images.
      final: How the best one ended, judged on the test images.
    """

    search: dict[int, TrainingSummary]
    final: TrainingSummary

    @property
    def best(self) -> int:
        """The hidden size chosen."""
        return choose(self.search)


def choose(search: dict[int, TrainingSummary]) -> int:
    """The size of the largest validation accuracy; the first wins ties."""
    return max(search, key=lambda size: search[size].accuracy)


def search_first(run: Run) -> None:
    """Searches, and leaves the run with the best size; both are kept in the run folder."""
    with terminal.stop_on_interrupt() as stop:
        callbacks = Callbacks(stop=run.processes.synchronised_stop(stop))
        found = search(run.experiment, callbacks)
    run.folder.write(SEARCH, {str(size): dataclasses.asdict(found[size]) for size in found})
    run.change_config(_final(run.config, choose(found)))


def closing_table(run: Run, test: Metrics) -> str:
    """`table` for a run that began with a search.

    Raises:
      UserError: search.json is damaged.
    """
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


def search(experiment: Experiment, callbacks: Callbacks) -> dict[int, TrainingSummary]:
    """Trains every size of config.latent_dims for config.search_epochs, in the slide's lines.

    Args:
      experiment: The run's experiment, with every training image in its train split.
      callbacks: May stop the search.
    """
    config, parts = experiment.config, held_out(experiment.data)
    found: dict[int, TrainingSummary] = {}
    print("Start searching the best parameter...", flush=True)
    for size in config.latent_dims or ():
        trial = Experiment.create(_trial(config, size), parts, experiment.parallel)
        name = f"Parameter latent_dims={size}"
        with contextlib.closing(SlideBar(name, trial.config.epochs)) as bar:
            found[size] = train_one(trial, parts.validation, bar.step, callbacks)
        print(
            f"{name}, validation_loss={found[size].loss}, "
            f"validation_accuracy={found[size].accuracy}.\n",
            flush=True,
        )
    print(f"The best parameter is {choose(found)}.\n", flush=True)
    return found


def _trial(config: Config, size: int, **changes: Any) -> Config:
    """The config of one size in the search."""
    return _final(config, size, replay_seeds=1, epochs=config.search_epochs, **changes)


def _final(config: Config, size: int, **changes: Any) -> Config:
    """The config of the run that follows a search which chose this size."""
    return dataclasses.replace(config, hidden=(size,), latent_dims=None, **changes)


def replay_many(config: Config, data: Dataset, seeds: Sequence[int]) -> list[Replay]:
    """The whole procedure for several seeds at once, as train_many does it.

    Args:
      config: The settings, with latent_dims.
      data: A data set with every training image in its train split.
      seeds: The seeds, one for each replay; at least one.
    """
    parts, searches = held_out(data), [{} for _ in seeds]
    for size in config.latent_dims or ():
        trials = [_trial(config, size, seed=seed) for seed in seeds]
        summaries = train_many(trials, parts, parts.validation)
        for found, summary in zip(searches, summaries, strict=True):
            found[size] = summary
    best, finals = [choose(found) for found in searches], {}
    for size in sorted(set(best)):
        winners = [i for i in range(len(seeds)) if best[i] == size]
        runs = [_final(config, size, seed=seeds[i]) for i in winners]
        finals |= zip(winners, train_many(runs, data, data.test), strict=True)
    return [Replay(found, finals[i]) for i, found in enumerate(searches)]


def table(replays: Sequence[Replay]) -> str:
    """The slide beside the first replay, and beside the spread over all if there are several."""
    search = replays[0].search
    heads = ["", "slide", "this run"]
    if len(replays) > 1:
        heads.append(f"{len(replays)} seeds: mean ± sd, from to")
    rows = [heads]
    for size in search:
        ours = [replay.search[size] for replay in replays]
        rows += _rows(f"{size}", "validation", SLIDE.get(size), ours)
    best = ["best size", str(SLIDE_BEST), str(replays[0].best)]
    if len(replays) > 1:
        counts = collections.Counter(replay.best for replay in replays)
        best.append(", ".join(f"{size}: {counts[size]} times" for size in search))
    rows.append(best)
    rows += _rows("best, anew:", "test", SLIDE_FINAL, [replay.final for replay in replays])
    return "\n".join(aligned(rows, "<" * len(heads)))


def _rows(
    name: str, judge: str, slide: TrainingSummary | None, ours: Sequence[TrainingSummary]
) -> Iterator[list[str]]:
    """The rows of the table for one network: the slide's numbers, the first of ours, the spread."""
    titles = {
        "train_loss": "training loss",
        "train_accuracy": "training accuracy",
        "loss": f"{judge} loss",
        "accuracy": f"{judge} accuracy",
    }
    for field, title in titles.items():
        values = [getattr(summary, field) for summary in ours]
        printed = "" if slide is None else f"{getattr(slide, field):.4f}"
        row = [f"{name} {title}", printed, f"{values[0]:.4f}"]
        if len(values) > 1:
            spread = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
            row.append(f"{spread}, {min(values):.4f} {max(values):.4f}")
        yield row
