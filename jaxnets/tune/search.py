"""A search that allows for luck: every setting is trained with several seeds.

The slides' search gives each hidden size one seed and believes the result, but other seeds have
other winners. Here all settings have the same seeds, and ranking.py compares them in pairs.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxnets.base.bar import progress_bar
from jaxnets.base.display import one_line, show
from jaxnets.base.errors import UserError, on_interrupt
from jaxnets.base.files import check_only_files, locked, read_json
from jaxnets.base.language import Text, _
from jaxnets.config.fields import Config
from jaxnets.config.resolve import OwnNetwork, as_plain, preset
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.layer_check import judge_own_layers
from jaxnets.machine.platform import surroundings
from jaxnets.runs.request import request
from jaxnets.runs.resume import warn_of_other_surroundings
from jaxnets.runs.run_folder import make_folder
from jaxnets.tune import cells, results
from jaxnets.tune.backends import Backend, Failed
from jaxnets.tune.race import Drop, drops, first_look
from jaxnets.tune.train_many import (
    EpochBar,
    TrainingSummary,
    can_vmap,
    held_out,
    summary_from_json,
    train_many,
)
from jaxnets.tune.workers import Workers

JSON = "search.json"
Point = tuple[Any, ...]  # One value of each field searched over.


@dataclasses.dataclass
class Search:
    """The settings of a search, and its results so far."""

    flags: dict[str, Any]  # Those of the config, without those searched over and the seed.
    over: dict[str, list[Any]]  # The values of each field searched over.
    folder: Path = Path()  # The folder of the results.
    began: dict[str, Any] = dataclasses.field(default_factory=dict)  # The first `surroundings`.
    checksum: str = ""  # That of the data set.
    num_images: int = 0  # The number of validation images, by which the points are ranked.
    workers: Workers = Workers()
    backend: Backend = dataclasses.field(init=False)  # Trains the cells.
    training: "Training" = dataclasses.field(init=False)
    runs: dict[tuple[Point, int], TrainingSummary] = dataclasses.field(default_factory=dict)
    race_from: int | None = None  # A race's first seed; None: every point gets every seed.

    @property
    def plain_flags(self) -> dict[str, Any]:
        """The flags as they are in a file."""
        return as_plain(self.flags)

    @property
    def points(self) -> list[Point]:
        """Every combination, in the order given."""
        return list(itertools.product(*self.over.values()))

    @property
    def drops(self) -> dict[Point, Drop]:
        """The points that a race has dropped."""
        if self.race_from is None:
            return {}
        points, rows = self.points, []
        for seed in itertools.count(self.race_from):
            runs = [self.runs.get((point, seed)) for point in points]
            if not any(runs):
                break
            rows.append([run.accuracy if run else math.nan for run in runs])
        accuracies = np.array(rows).reshape(-1, len(points))
        return {points[index]: drop for index, drop in drops(accuracies).items()}

    @property
    def racing(self) -> list[Point]:
        """The points that a race has not dropped; all of them if this is not a race."""
        dropped = self.drops
        return [point for point in self.points if point not in dropped]

    @property
    def seeds(self) -> list[int]:
        """The seeds with which every point that is still in the race was trained."""
        seeds = sorted({seed for _, seed in self.runs})
        return [seed for seed in seeds if not self.missing([seed])]

    def config(self, point: Point, seed: int) -> Config:
        """The config of one run."""
        return preset(**self.flags, **self.values(point), seed=seed)

    def values(self, point: Point) -> dict[str, Any]:
        """A point's value of each field searched over."""
        return dict(zip(self.over, point, strict=True))

    def name(self, point: Point) -> str:
        """The point's name, such as "hidden=64x32 learning_rate=0.1"."""
        return " ".join(f"{field}={value}" for field, value in self._texts(point).items())

    def _texts(self, point: Point) -> dict[str, str]:
        """Each field's value in the form of --over."""
        return {
            field: "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for field, value in self.values(point).items()
        }

    def cell(self, point: Point, seed: int) -> cells.Cell:
        """Everything that determines the result of one run."""
        return cells.cell(self.config(point, seed), self.checksum)

    def missing(self, seeds: Sequence[int]) -> list[tuple[Point, int]]:
        """The points and seeds that are not trained yet."""
        everything = itertools.product(self.racing, seeds)
        return [run for run in everything if run not in self.runs]

    def write(self) -> None:
        """Writes search.json and search.csv, with the finished cells in order."""
        runs, lines, places = [], [], {point: place for place, point in enumerate(self.points)}
        for point, seed in sorted(self.runs, key=lambda run: (places[run[0]], run[1])):
            ending = {"seed": seed, **self.runs[point, seed]._asdict()}
            runs.append({"point": point, **ending})
            lines.append({**self._texts(point), **ending})
        values = {"flags": self.plain_flags, "over": self.over}
        values |= {"race_from": self.race_from, **self.began, "runs": runs}
        columns = [*self.over, "seed", *TrainingSummary._fields]
        results.write(self.folder / "search", values, columns, lines)

    def keep(self, runs: Sequence[tuple[Point, int]], summaries: Sequence[TrainingSummary]) -> None:
        """Keeps the results of the runs of one program, first in the files of their cells."""
        program = [self.cell(*run) for run in runs]
        cells.write(self.folder, program, [summary._asdict() for summary in summaries])
        self.runs.update(zip(runs, summaries, strict=True))
        if not self.workers.are_several:
            self.write()

    @contextlib.contextmanager
    def open(self, workdir: str | None, resume: bool) -> Iterator[None]:
        """Locks the folder for a block: a new one or, with resume, one whose cells are read."""
        given = Path(os.path.expanduser(workdir or ""))
        if resume and not any((given / name).exists() for name in (JSON, cells.FOLDER)):
            raise UserError("resume: no {} in {}", JSON, workdir or "--workdir")
        if self.workers.are_several and not workdir:
            raise UserError("cell: expected --workdir=FOLDER too, the same in all processes")
        self.folder = make_folder(workdir, f"search-{self.plain_flags['model']}")
        with locked(self.folder, shared=self.workers.are_several):
            # Looks again: another process may have started in between.
            if any((self.folder / name).exists() for name in (JSON, cells.FOLDER)):
                if not (resume or self.workers.are_several):
                    raise UserError(
                        "workdir: {} already holds a search; --resume continues it", self.folder
                    )
                self._read()
            if not self.workers.are_several:
                self.write()  # Fails before training if the folder cannot be written.
            yield

    def _read(self) -> None:
        """Reads the finished cells; search.json says which search they belong to."""
        check_only_files(self.folder)
        path = self.folder / JSON
        if path.exists():
            kept = read_json(path)
            ours = {"flags": self.plain_flags, "over": self.over, "race_from": self.race_from}
            ours = json.loads(json.dumps(ours))
            theirs = {name: kept.get(name) for name in ours}
            if theirs != ours:
                raise UserError("resume: expected {} as {} was begun, got {}", theirs, path, ours)
            if kept.get("runs") and not (self.folder / cells.FOLDER).exists():
                raise UserError("{}: expected its cells in {}/ next to it", path, cells.FOLDER)
            warn_of_other_surroundings(kept, self.began)
            self.began = {name: kept[name] for name in self.began if name in kept}
        for name, (of, result) in cells.read(self.folder).items():
            where = self.folder / cells.FOLDER / f"{name}.json"
            try:
                seed = of["config"].get("seed", 0)
                runs = [(x, seed) for x in self.points if cells.digest(self.cell(x, seed)) == name]
                summary = summary_from_json(result)
            except Exception as error:  # Anything that `keep` did not write.
                raise UserError("{}: damaged: {}", where, f"{error!r:.200}") from error
            if not runs:
                raise UserError("{}: expected a cell of this search and its data", where)
            self.runs[runs[0]] = summary


class Training:
    """The work of a search: trains the configs of one program on the search's data."""

    bar: tqdm | None = None  # It counts epochs, in the process of the search.

    def __init__(self, data: Dataset):
        self._data = data

    def __call__(self, configs: Sequence[Config]) -> list[TrainingSummary]:
        observers = [] if self.bar is None else [EpochBar(self.bar, len(configs))]
        return train_many(configs, self._data, self._data.validation, observers)


def search_all(
    given: dict[str, Any],
    over: dict[str, list[Any]],
    seeds: int,
    workers: Workers | None = None,
    race: bool = False,
) -> Search:
    """Trains the missing cells; `given` are flags, and the seeds count from the flags' seed.

    A race trains the points that are still in it, until one is left or the seeds are used up.
    """
    workdir, resume = given.pop("workdir", None), given.pop("resume", False)
    first = given.pop("seed", 0)
    for name in ("overwrite", "target_accuracy", "early_stopping", "stop_at_target"):
        value = given.pop(name, None)  # None or False, if a run's config.json names it.
        if not (value is None or value is False) or name in over:
            raise UserError("{}: search does not take it", name)
    for name in over:
        if name in given or name in ("model", "seed", "dataset", "data_dir", "limit", "workdir"):
            raise UserError("over: {} cannot be searched over", name)
    race_from = first if race else None
    search = Search(given, over, workers=workers or Workers(), race_from=race_from)
    if race and len(search.points) < 2:
        raise UserError("race: expected two settings or more, got one")
    if race and search.workers.are_several:
        raise UserError("race: expected no --cell: a share does not know the others' results")
    asked = search.config(search.points[0], first)
    config, data, notes = request({**given, **search.values(search.points[0]), "seed": first})
    config = dataclasses.replace(config, early_stopping=None)  # A folder's recipe may set it.
    if not len(data.validation):
        data = held_out(data)
    for note in notes:
        show(note, sys.stderr)
    if isinstance(own := given["model"], OwnNetwork):
        search.flags["model"] = own.for_data(data.image_shape, data.num_classes)
    search.flags |= {n: x for n, x in vars(config).items() if x != getattr(asked, n)}
    configs = [search.config(point, first) for point in search.points]
    for config in configs:
        experiment = Experiment.create(config, data)  # Raises if its batches do not fit.
        judge_own_layers(experiment)
        if config.schedule == "plateau":
            raise UserError("schedule: plateau uses the images that a search judges by")
    search.began, search.checksum = surroundings(experiment.parallel.devices), data.checksum
    if search.began["cores"] is not None:  # A worker's cores count: they change the last bits.
        search.began["cores"] = search.workers.threads
    elif search.workers.processes > 1:
        raise UserError("processes: expected a CPU, got {}; ray shares it", search.began["device"])
    search.num_images = len(data.validation)
    search.training = Training(data)
    with search.open(workdir, resume), search.workers.started(search.training) as search.backend:
        hint = Text("kept: {} (--resume --workdir={} continues it)", search.folder, search.folder)
        with on_interrupt(hint):
            # Before the first look of a race all its settings train side by side.
            together = first_look(len(search.points)) if race else seeds
            train_missing(search, range(first, first + seeds)[:together])
            for seed in range(first, first + seeds)[together:]:
                if len(search.racing) > 1:
                    train_missing(search, [seed])
    return search


def train_missing(search: Search, seeds: Sequence[int]) -> None:
    """Trains the points that no race has dropped with these seeds, unless they are done.

    The programs are made of all requested cells, not of the missing ones, so processes that share
    the search make the same programs.

    Args:
      search: The search, whose `backend` has been started.
      seeds: The seeds to train.

    Raises:
      UserError, RunFailedError: Some runs have no result; all others are kept.
    """
    programs = collections.defaultdict(list)  # Each holds the runs that train side by side.
    for run in itertools.product(search.racing, seeds):
        config = search.config(*run)
        if can_vmap(config):
            config = dataclasses.replace(config, seed=0, learning_rate=1.0)
        programs[config].append(run)
    tasks = {}
    for runs in search.workers.share_of(list(programs.values())):
        if left := [run for run in runs if run not in search.runs]:
            tasks[tuple(search.config(*run) for run in left)] = left
    for configs in tasks:
        search.backend.submit(configs)
    failures, epochs = [], 0
    total = sum(configs[0].epochs * len(configs) for configs in tasks)
    with progress_bar(total, unit="epoch") as search.training.bar:
        bar = search.training.bar
        while tasks:
            bar.set_description(search.name(next(iter(tasks.values()))[0][0]))
            configs, outcome = search.backend.collect()
            runs = tasks.pop(configs)
            if isinstance(outcome, Failed):
                (point, seed), more = runs[0], len(runs) - 1
                name = f"{search.name(point)} seed={seed}{f' and {more} more' * (more > 0)}"
                failures.append(outcome._replace(message=Text("{}: {}", name, outcome.message)))
                if tasks:  # The others continue.
                    bar.clear()
                    show(one_line(_("warning: {}", failures[-1].message)), sys.stderr)
            else:
                search.keep(runs, outcome)
            epochs += configs[0].epochs * len(runs)
            bar.update(epochs - bar.n)
    if failures:
        kept = Text("kept: {} (--resume tries again)", search.folder)
        if others := len(failures) - 1:
            kept = Text("{} others failed, too; {}", others, kept)
        raise failures[-1].error(kept)
