"""`jaxnets replay`: the slides' own programs, which print the slides' lines.

For the network coded by hand: search, choose, train anew, compare. For the listings in Keras: the
training.

Source: slide "全连接神经网络的自定义编码实现", its program's output. Each hidden size is
trained for 20 full-batch steps on all but a twelfth of the training images (5,000 of 60,000). The
best on these 5,000 is trained anew, for 50 steps, on all images.
"""

import collections
import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.base.bar import progress_bar
from jaxnets.base.display import show
from jaxnets.base.display import table as aligned
from jaxnets.base.errors import UserError, on_interrupt
from jaxnets.base.language import Text
from jaxnets.config.fields import Config
from jaxnets.course.procedure import Procedure
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import Experiment
from jaxnets.metrics import Metrics
from jaxnets.runs.progress import Progress
from jaxnets.runs.request import load_bytes, request
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import SEARCH
from jaxnets.training.loader import TrainLoader
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import Checkpoint, TrainState
from jaxnets.tune.train_many import (
    TrainingSummary,
    held_out,
    summary_from_json,
    train_many,
    train_one,
)

# The slide's numbers: training loss and accuracy, then those of validation (the last: of the test).
SLIDE = {
    100: TrainingSummary(0.61235563, 0.798364, 0.5979167190591659, 0.797),
    200: TrainingSummary(0.5519253, 0.851945, 0.5074925231099131, 0.853),
    300: TrainingSummary(0.7119555, 0.773982, 0.5305907522703492, 0.842),
}
SLIDE_BEST, SLIDE_FINAL = 200, TrainingSummary(0.31931881, 0.91, 0.30098108, 0.916)

HANDWRITTEN, KERAS = "mlp_handwritten", ("mlp", "mlp_sequential", "mlp_functional")
# Given explicitly, so that the recipe for few pictures changes nothing.
AS_ON_THE_SLIDE: dict[str, Any] = dict(epochs=50, batch_size=None, schedule="constant")


class Replay(NamedTuple):
    """One seed's whole procedure."""

    search: dict[int, TrainingSummary]  # The result of each hidden size, on validation images.
    final: TrainingSummary  # The result of the best one, on the test images.


def choose(search: dict[int, TrainingSummary]) -> int:
    """The size with the largest validation accuracy; the first wins ties."""
    return max(search, key=lambda size: search[size].accuracy)


def replay(
    flags: Mapping[str, Any],
    procedure: Procedure,
    train_run: Callable[..., Run],
) -> None:
    """Trains as a program of the slides did.

    A run of the network coded by hand keeps what the search found. It resumes without a search.

    Args:
      flags: Fields of Config.
      procedure: The search, and how often everything is repeated.
      train_run: Trains a run to its end, as cli/training.py does.

    Raises:
      UserError: The slides have no program for the network.
    """
    given, found, load = dict(flags), dict[int, TrainingSummary](), load_bytes
    resumes = given.get("resume", False)
    if not (resumes and "workdir" in given):
        given.setdefault("model", HANDWRITTEN)
    if (model := given.get("model", HANDWRITTEN)) not in (HANDWRITTEN, *KERAS):
        known = ", ".join([HANDWRITTEN, *KERAS])
        raise UserError("replay: expected a network of the slides, {}, got {}", known, model)
    if not given.get("test", True):
        raise UserError("replay: expected the test with which the slides end, got no_test")
    if model == HANDWRITTEN and not resumes:
        if "hidden" in given:
            raise UserError("hidden: replay compares --sizes, train.py trains one size")
        given = {**AS_ON_THE_SLIDE, **given}
        with on_interrupt(Text("the search keeps nothing: start it again")):
            config, data, _notes = request({**given, "hidden": procedure.sizes[:1]}, load)
            found = search(config, data, procedure)
        given["hidden"], load = (choose(found),), lambda _config: data

    @contextlib.contextmanager
    def keeping_the_search(run: Run) -> Iterator[list[Observer]]:
        if found:
            run.folder.write(SEARCH, {str(size): found[size]._asdict() for size in found})
        yield [ClosingTable(run, procedure)] if run.folder.read(SEARCH) else []

    train_run(
        given,
        lines=lambda run: HandwrittenLog if run.config.model == HANDWRITTEN else KerasLog,
        around=keeping_the_search,
        command=procedure.command,
        load=load,
    )


def search(config: Config, data: Dataset, procedure: Procedure) -> dict[int, TrainingSummary]:
    """Trains a network of every size, with the slide's lines; returns each result."""
    parts, found = held_out(data), dict[int, TrainingSummary]()
    print("Start searching the best parameter...", flush=True)
    for size in procedure.sizes:
        trial = _single(config, size, config.seed, epochs=procedure.search_epochs)
        name = f"Parameter latent_dims={size}"
        trained = Experiment.create(trial, parts)
        found[size] = train_one(trained, parts.validation, [SlideBar(name, trial.epochs)])
        loss, accuracy = found[size].loss, found[size].accuracy
        show(f"{name}, validation_loss={loss}, validation_accuracy={accuracy}.\n")
    print(f"The best parameter is {choose(found)}.\n", flush=True)
    return found


class ClosingTable(Observer):
    """Prints `table` at the end of a run that began with a search."""

    def __init__(self, run: Run, procedure: Procedure):
        self._run, self._procedure = run, procedure

    def on_finish(self, test: Metrics | None) -> None:
        assert test is not None  # `replay` refuses a run without it.
        folder, config = self._run.folder, self._run.config
        try:
            kept = folder.read(SEARCH)
            found = {int(size): summary_from_json(values) for size, values in kept.items()}
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise UserError("{}: damaged: {}", folder.path / SEARCH, error) from error
        last = folder.records()[-1]
        summary = last["train_loss"], last["train_accuracy"], test.loss, test.accuracy
        procedure = dataclasses.replace(self._procedure, sizes=tuple(found))
        seeds = range(config.seed + 1, config.seed + procedure.seeds)
        data = self._run.experiment.data
        others = replay_many(config, data, procedure, seeds) if seeds else []
        print(f"\n{table([Replay(found, TrainingSummary(*summary)), *others])}\n")


def _single(config: Config, size: int, seed: int, **changes: int) -> Config:
    """The config of a network of one size."""
    return dataclasses.replace(config, hidden=(size,), seed=seed, **changes)


def replay_many(
    config: Config, data: Dataset, procedure: Procedure, seeds: Sequence[int]
) -> list[Replay]:
    """The whole procedure for several seeds at once, by train_many."""
    parts, searches = held_out(data), [{} for _ in seeds]
    for size in procedure.sizes:
        trials = [_single(config, size, seed, epochs=procedure.search_epochs) for seed in seeds]
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
    """The slide compared with the first replay, and with the spread over several."""
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
    """A bar of steps that ends with what the slide shows; without a terminal, only that line."""

    def __init__(self, what: str, total: int, done: int = 0):
        """Starts the bar; `what` begins its text, and `done` of `total` steps are done."""
        self._what, self._text = what, ""
        look = "{desc}: {percentage:3.0f}%|{bar}|"  # The slide's, as far as its line goes.
        self._bar = progress_bar(total, initial=done, bar_format=look, leave=True)

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Moves on to a record's step: `..., epoch=20 , loss=0.5519253 , accuracy=0.851945`."""
        epoch, loss = record["epoch"], round(record["train_loss"], 8)
        accuracy = round(record["train_accuracy"], 6)
        self._text = f"{self._what}, epoch={epoch:<3}, loss={loss:<10}, accuracy={accuracy:<8}"
        self._bar.set_description_str(self._text, refresh=False)
        self._bar.update()

    def on_train_end(self) -> None:
        """Leaves the bar on the screen, or prints its text if there is no bar."""
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
