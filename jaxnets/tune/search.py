"""A search that knows about luck: every setting is trained with several seeds.

The slides' search gives each hidden size one seed and believes the result; between seeds the winner
changes. Here all settings have the same seeds, and ranking.py compares them in pairs.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxnets.config.fields import Config
from jaxnets.config.resolve import OwnNetwork, as_plain, preset
from jaxnets.data.datasets import Dataset
from jaxnets.display import show
from jaxnets.errors import UserError, on_interrupt
from jaxnets.experiment import Experiment
from jaxnets.files import check_only_files, locked, read_json
from jaxnets.machine.platform import surroundings
from jaxnets.runs.request import request
from jaxnets.runs.resume import warn_of_other_surroundings
from jaxnets.runs.run_folder import make_folder
from jaxnets.tune import results
from jaxnets.tune.many import (
    BAR,
    EpochBar,
    TrainingSummary,
    can_vmap,
    held_out,
    summary_from_json,
    train_many,
)

Point = tuple[Any, ...]  # One value of each field searched over.


@dataclasses.dataclass
class Search:
    """The settings of a search, and its results so far."""

    flags: dict[str, Any]  # The config's, without those searched over and the seed.
    over: dict[str, list[Any]]  # The values of each field searched over.
    folder: Path = Path()  # The folder of the results.
    began: dict[str, Any] = dataclasses.field(default_factory=dict)  # The first `surroundings`.
    runs: dict[tuple[Point, int], TrainingSummary] = dataclasses.field(default_factory=dict)

    @property
    def plain_flags(self) -> dict[str, Any]:
        """The flags as a file has them."""
        return as_plain(self.flags)

    @property
    def points(self) -> list[Point]:
        """Every combination, in the order given."""
        return list(itertools.product(*self.over.values()))

    @property
    def seeds(self) -> list[int]:
        """The seeds with which every point was trained."""
        seeds = sorted({seed for _, seed in self.runs})
        return [seed for seed in seeds if not self.missing([seed])]

    def config(self, point: Point, seed: int) -> Config:
        """The config of one run."""
        return preset(**self.flags, **self.values(point), seed=seed)

    def values(self, point: Point) -> dict[str, Any]:
        """A point's value of each field searched over."""
        return dict(zip(self.over, point, strict=True))

    def name(self, point: Point) -> str:
        """A text such as "hidden=64x32 learning_rate=0.1"."""
        return " ".join(f"{field}={value}" for field, value in self._texts(point).items())

    def _texts(self, point: Point) -> dict[str, str]:
        """Each field's value as --over takes it."""
        return {
            field: "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for field, value in self.values(point).items()
        }

    def missing(self, seeds: Sequence[int]) -> list[tuple[Point, int]]:
        """The points and seeds that are not trained yet."""
        everything = itertools.product(self.points, seeds)
        return [run for run in everything if run not in self.runs]

    def write(self) -> None:
        """Writes search.json, with which a search is resumed too, and search.csv."""
        runs, lines = [], []
        for (point, seed), summary in self.runs.items():
            ending = {"seed": seed, **summary._asdict()}
            runs.append({"point": point, **ending})
            lines.append({**self._texts(point), **ending})
        values = {"flags": self.plain_flags, "over": self.over, **self.began, "runs": runs}
        columns = [*self.over, "seed", *TrainingSummary._fields]
        results.write(self.folder / "search", values, columns, lines)

    @contextlib.contextmanager
    def open(self, workdir: str | None, resume: bool) -> Iterator[None]:
        """Locks the folder for a block, a new one or, with resume, one whose results are read."""
        name = "search.json"
        if resume and not (Path(os.path.expanduser(workdir or "")) / name).exists():
            raise UserError(f"resume: no {name} in {workdir or '--workdir'}")
        self.folder = make_folder(workdir, f"search-{self.plain_flags['model']}")
        with locked(self.folder):  # Looks again: another process may have begun in between.
            if resume:
                self._read(self.folder / name)
            elif (self.folder / name).exists():
                raise UserError(
                    f"workdir: {self.folder} already holds a search; --resume continues it"
                )
            self.write()  # What cannot be written is refused before anything is trained.
            yield

    def _read(self, path: Path) -> None:
        """Reads what is done."""
        check_only_files(self.folder)
        kept = read_json(path)
        theirs = {name: kept.get(name) for name in ("flags", "over")}
        ours = json.loads(json.dumps({"flags": self.plain_flags, "over": self.over}))
        if theirs != ours:
            raise UserError(f"resume: expected {theirs} as {path} was begun, got {ours}")
        warn_of_other_surroundings(kept, self.began)
        self.began = {name: kept[name] for name in self.began if name in kept}
        points = {json.dumps(point): point for point in self.points}
        try:
            for run in kept["runs"]:
                point, seed = points[json.dumps(run.pop("point"))], run.pop("seed")
                if type(seed) is not int:
                    raise ValueError(f"expected a whole number as seed, found {seed!r}")
                self.runs[point, seed] = summary_from_json(run)
        except Exception as error:  # Whatever is not as `write` wrote it.
            raise UserError(f"{path}: damaged: {error!r:.200}") from error


def search_all(given: dict[str, Any], over: dict[str, list[Any]], seeds: int) -> Search:
    """Trains all that is missing; `given` are flags, and the seeds count from theirs."""
    workdir, resume = given.pop("workdir", None), given.pop("resume", False)
    first = given.pop("seed", 0)
    for name in ("overwrite", "target_accuracy", "early_stopping", "stop_at_target", "dry_run"):
        value = given.pop(name, None)  # None or False, if a run's config.json names it.
        if not (value is None or value is False) or name in over:
            raise UserError(f"{name}: search has none")
    for name in over:
        if name in given or name in ("model", "seed", "dataset", "data_dir", "limit", "workdir"):
            raise UserError(f"over: {name} cannot be searched over here")
    search = Search(given, over)
    asked = search.config(search.points[0], first)
    config, data, notes = request({**given, **search.values(search.points[0]), "seed": first})
    if not len(data.validation):
        data = held_out(data)
    for note in notes:
        show(note, sys.stderr)
    if isinstance(own := given["model"], OwnNetwork):
        search.flags["model"] = own.for_data(data.image_shape, data.num_classes)
    search.flags |= {n: x for n, x in vars(config).items() if x != getattr(asked, n)}
    configs = [search.config(point, first) for point in search.points]
    for config in configs:
        experiment = Experiment.create(config, data)  # It raises if its batches do not fit.
        if config.schedule == "plateau":
            raise UserError("schedule: plateau watches the images on which a search judges")
    search.began = surroundings(experiment.parallel.devices)
    with search.open(workdir, resume):
        hint = f"kept: {search.folder} (--resume --workdir={search.folder} continues it)"
        with on_interrupt(f"interrupted; {hint}"):
            train_missing(search, range(first, first + seeds), data)
    return search


def train_missing(search: Search, seeds: Sequence[int], data: Dataset) -> None:
    """Trains what is not done yet, with validation images; writes after every program."""
    programs = collections.defaultdict(list)  # Each holds the runs that train side by side.
    for run in search.missing(seeds):
        config = search.config(*run)
        if can_vmap(config):
            config = dataclasses.replace(config, seed=0, learning_rate=1.0)
        programs[config].append(run)
    left = sum(config.epochs * len(runs) for config, runs in programs.items())
    with tqdm(total=left, **BAR) as bar:
        for runs in programs.values():
            bar.set_description(search.name(runs[0][0]))
            configs = [search.config(*run) for run in runs]
            observers = [EpochBar(bar, len(runs))]
            summaries = train_many(configs, data, data.validation, observers)
            search.runs.update(zip(runs, summaries, strict=True))
            search.write()
