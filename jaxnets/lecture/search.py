"""A search that knows about luck: every setting is trained with several seeds.

The slides' search gives each hidden size one seed and believes the result; between seeds the winner
changes. Here all settings have the same seeds, and ranking.py compares them in pairs.
"""

import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxnets.config.fields import Config, preset
from jaxnets.data.datasets import Dataset, held_out
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.lecture.many import TrainingSummary, can_vmap, train_many
from jaxnets.runs.run import load_data
from jaxnets.runs.run_folder import fresh_path, make_folder, write_text
from jaxnets.runs.untrusted import check_only_files

RESULTS, TABLE, PLOT = "search.json", "search.csv", "search.png"

Point = tuple[Any, ...]  # One value of each field searched over.


@dataclasses.dataclass
class Search:
    """What is searched, and what is known so far.

    Attributes:
      flags: Of the config, without those searched over and the seed.
      over: The values of each field.
      folder: Where the results lie.
      runs: The outcome of every point and seed that is done.
    """

    flags: dict[str, Any]
    over: dict[str, list[Any]]
    folder: Path
    runs: dict[tuple[Point, int], TrainingSummary] = dataclasses.field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        """Every combination, in the order given."""
        return list(itertools.product(*self.over.values()))

    def config(self, point: Point, seed: int) -> Config:
        """The config of one run."""
        return preset(**self.flags, **dict(zip(self.over, point, strict=True)), seed=seed)

    def name(self, point: Point) -> str:
        """As "hidden=64x32 learning_rate=0.1"."""
        return " ".join(
            f"{field}={show(value)}" for field, value in zip(self.over, point, strict=True)
        )

    def missing(self, seeds: Sequence[int]) -> list[tuple[Point, int]]:
        """The points and seeds that are not done yet."""
        everything = itertools.product(self.points, seeds)
        return [run for run in everything if run not in self.runs]

    def scores(self, point: Point) -> dict[int, float]:
        """Each seed's validation accuracy."""
        return {seed: run.accuracy for (at, seed), run in self.runs.items() if at == point}


def show(value: Any) -> str:
    """A value as --over takes it."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def run_missing(
    search: Search, seeds: Sequence[int], data: Dataset, progress: Callable[[int, str], Any]
) -> None:
    """Trains what is not done yet, and writes the results after every program.

    Args:
      search: Its runs are filled.
      seeds: Of every point.
      data: With validation images, on which the points are judged.
      progress: Called with how many epochs of single runs are done, and a point's name.
    """
    for group in _groups(search, seeds):
        configs = [search.config(point, seed) for point, seed in group]
        name = search.name(group[0][0])
        count = len(group)
        outcomes = train_many(
            configs, data, data.validation, lambda count=count, name=name: progress(count, name)
        )
        search.runs.update(zip(group, outcomes, strict=True))
        write(search)


def _groups(search: Search, seeds: Sequence[int]) -> list[list[tuple[Point, int]]]:
    """The runs to do, those together that train side by side."""
    groups: dict[Any, list[tuple[Point, int]]] = {}
    for point, seed in search.missing(seeds):
        config = search.config(point, seed)
        program = dataclasses.replace(config, seed=0, learning_rate=1.0)
        together = can_vmap(config)
        groups.setdefault(program if together else (point, seed), []).append((point, seed))
    return list(groups.values())


def write(search: Search) -> None:
    """Writes the results: JSON for programs and for going on, CSV for tables."""
    values = {
        "flags": search.flags,
        "over": search.over,
        "runs": [
            {"point": point, "seed": seed, **finite(dataclasses.asdict(outcome))}
            for (point, seed), outcome in search.runs.items()
        ],
    }
    write_text(search.folder / RESULTS, json.dumps(values, indent=1) + "\n")
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(
        [*search.over, "seed", *(field.name for field in dataclasses.fields(TrainingSummary))]
    )
    for (point, seed), outcome in search.runs.items():
        rows.writerow([*map(show, point), seed, *dataclasses.astuple(outcome)])
    write_text(search.folder / TABLE, table.getvalue())


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN, which is how a run ends that diverged."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def open_folder(search: Search, resume: bool) -> None:
    """Makes the folder; with resume, reads what is done.

    Raises:
      UserError: The folder is taken, or holds another search.
    """
    path = search.folder / RESULTS
    if path.exists() and not resume:
        raise UserError(
            f"workdir: {search.folder} already holds a search; --resume goes on with it"
        )
    if resume and not path.exists():
        raise UserError(f"resume: expected {RESULTS} in {search.folder}, found none")
    make_folder(search.folder)
    if resume:
        check_only_files(search.folder)
        try:
            _read(search, path)
        except UserError:
            raise
        except Exception as error:  # Whatever is not as `write` wrote it.
            raise UserError(f"{path}: damaged: {error!r:.200}") from error


def _read(search: Search, path: Path) -> None:
    """Fills the runs with those of a file.

    Raises:
      UserError: They are another search's.
    """
    kept = json.loads(path.read_text())
    ours = json.loads(json.dumps({"flags": search.flags, "over": search.over}))
    theirs = {"flags": kept["flags"], "over": kept["over"]}
    if theirs != ours:
        raise UserError(f"resume: expected {theirs} as {path} was begun, got {ours}")
    for run in kept["runs"]:
        point = tuple(tuple(v) if isinstance(v, list) else v for v in run.pop("point"))
        seed = run.pop("seed")
        if point not in search.points or type(seed) is not int:
            raise ValueError(f"no run of this search: {point}, seed {seed}")
        values = {name: math.nan if value is None else float(value) for name, value in run.items()}
        if abs(values["accuracy"]) > 1 or math.inf in map(abs, values.values()):
            raise ValueError(f"no outcome of a run: {values}")
        search.runs[point, seed] = TrainingSummary(**values)


def search_all(given: dict[str, Any], over: dict[str, list[Any]], seeds: int) -> Search:
    """What `python -m jaxnets search` does first: trains all that is missing.

    Args:
      given: Fields of Config that were given as flags.
      over: The values of each field searched over.
      seeds: How many; they count from the config's seed.
    """
    workdir, resume = given.pop("workdir", None), given.pop("resume", False)
    first = given.pop("seed", 0)
    for name in ("overwrite", "target_accuracy"):
        if name in given:
            raise UserError(f"{name}: search has none")
    for name in over:
        if name in given or name in ("model", "seed", "dataset", "data_dir", "workdir"):
            raise UserError(f"over: {name} cannot be searched over here")
    path = Path(workdir).expanduser() if workdir else fresh_path(f"search-{given['model']}")
    search = Search(given, over, path)
    configs = [search.config(point, first) for point in search.points]
    data = load_data(configs[0])
    if not len(data.validation):
        data = held_out(data)
    for config in configs:
        Experiment.create(
            config, data
        )  # Raises if its batches do not fit, before anything is made.
        if config.schedule == "plateau":
            raise UserError("schedule: plateau watches the images on which a search judges")
    open_folder(search, resume)
    names = range(first, first + seeds)
    left = sum(search.config(point, seed).epochs for point, seed in search.missing(names))
    try:
        with tqdm(total=left, unit="epoch", disable=None, leave=False, dynamic_ncols=True) as bar:

            def progress(epochs: int, name: str) -> None:
                bar.set_description(name, refresh=False)
                bar.update(epochs)

            run_missing(search, names, data, progress)
    except KeyboardInterrupt:
        print(f"kept: {search.folder} (--resume --workdir={search.folder} goes on)")
        raise
    return search
