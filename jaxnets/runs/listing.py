"""`jaxnets runs`: lists the runs of a folder from their files; it executes nothing in them."""

import contextlib
import dataclasses
import os
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnets.base import files
from jaxnets.base.display import (
    RESUME,
    columns,
    command_line,
    fill,
    one_line,
    printable,
    program,
    short_path,
    shortened,
    table,
    width_of,
)
from jaxnets.base.errors import UserError
from jaxnets.base.language import N_, Text, _, said
from jaxnets.config.command import CommandResult
from jaxnets.config.fields import Config
from jaxnets.config.resolve import RESUME_MAY_CHANGE
from jaxnets.runs.run_folder import (
    CONFIG,
    METRICS,
    RESULT,
    RUNS,
    SEARCH,
    RunFolder,
    command_of,
    rules_of,
)

# Settings that decide what a run computes; model, data, epochs and seed have their own columns.
SETTINGS = {*Config.__dataclass_fields__} - {*RESUME_MAY_CHANGE, "model", "layers", "seed"}
SETTINGS |= {"init_from", "early_stopping"}
LONGEST = 30  # Characters of a value in a table.
SEARCHED = N_("a search over {}, {} runs")


class ListedRun(NamedTuple):
    """A run, read from its files. Its texts may be anything: escape them."""

    path: Path
    written: float  # When its folder or a file in it last changed, in seconds since 1970.
    config: dict[str, Any]  # As written.
    result: dict[str, Any]  # As written; empty in an unfinished run.
    records: Sequence[dict[str, Any]]
    finished: bool
    differs: dict[str, Any] = {}  # Settings that differ from most listed runs of its network.

    @property
    def dataset(self) -> str:
        name = self.result.get("dataset", self.config.get("dataset"))
        return os.path.basename(str(name).rstrip("/")) or str(name)

    @property
    def epochs(self) -> tuple[int, int | None]:
        """The number of epochs that have ended, and of those requested."""
        wanted = self.config.get("epochs")
        return (
            self.records[-1]["epoch"] if self.records else 0,
            wanted if type(wanted) is int else None,
        )

    @property
    def validation_accuracy(self) -> float | None:
        return files.number_in(self.records[-1], "validation_accuracy") if self.records else None

    @property
    def test_accuracy(self) -> float | None:
        return files.number_in(self.result, "test_accuracy")

    @property
    def resume(self) -> str | None:
        """The command that continues an unfinished run."""
        if self.finished:
            return None
        name, *words = command_of(self.config).split()
        words = [*program(name), *words, *(["FILE"] if rules_of(self.config) else [])]
        words += ["--resume", f"--workdir={short_path(str(self.path))}"]
        if self.config.get("layers"):
            words.append("--model=FILE.py")  # The folder does not name the file.
        return command_line(words)


@dataclasses.dataclass(frozen=True)
class Listing(CommandResult):
    """The contents of a folder of runs; each part lists the newest first."""

    folder: Path
    runs: list[ListedRun]  # The best validation accuracy first.
    others: list[tuple[Path, Text]]  # Searches: what they are.
    damaged: list[tuple[Path, Text]]  # Folders that cannot be read, and why.

    def values(self) -> dict[str, Any]:
        """The listing for programs."""
        return {
            "folder": str(self.folder),
            "runs": [
                {
                    "name": run.path.name,
                    "path": str(run.path),
                    "model": run.config["model"],
                    "dataset": run.dataset,
                    "epochs_done": run.epochs[0],
                    "epochs": run.epochs[1],
                    "validation_accuracy": run.validation_accuracy,
                    "test_accuracy": run.test_accuracy,
                    "seed": run.config.get("seed"),
                    "finished": run.finished,
                    "resume": run.resume,
                    "differs": run.differs,
                }
                for run in self.runs
            ],
            "others": [{"path": str(path), "is": str(text)} for path, text in self.others],
            "damaged": [
                {"path": str(path), "reason": str(reason)} for path, reason in self.damaged
            ],
        }

    def text(self) -> str:
        """The runs as a table; text too wide for the terminal is on separate lines."""
        lines = _table(self.runs)
        for run in self.runs:
            if run.resume:
                done, wanted = run.epochs
                epochs = _("{} epochs", f"{done:,}")
                if wanted is not None:
                    epochs = _("{} of {} epochs", f"{done:,}", _shown(wanted))
                name, resume = printable(run.path.name), printable(run.resume)
                lines += ["", _("{}: unfinished, {}; {}", name, epochs, _(RESUME, resume))]
        others = [f"{printable(path.name)}: {printable(said(text))}" for path, text in self.others]
        lines += ["", *others] if others else []
        bad = [f"{printable(path.name)}: {one_line(said(reason))}" for path, reason in self.damaged]
        lines += ["", _("damaged:"), *bad] if bad else []
        if not any((self.runs, others, bad)):
            where = printable(short_path(str(self.folder)))
            return _("no runs in {}; each run of train.py has a folder in {}", where, RUNS)
        return "\n".join(lines).strip("\n")


def list_runs(folder: str | None = None) -> Listing:
    """Lists the runs and searches of a folder, by default `runs`; or one run.

    Raises:
      UserError: There is no such folder, or it cannot be read.
    """
    root = Path(folder).expanduser() if folder else RUNS
    if not root.is_dir():
        hint = Text("train.py makes it") if folder is None else Text("expected one of runs")
        raise UserError("{}: no such folder; {}", root, hint)
    try:
        paths = [root] if (root / CONFIG).exists() else _folders(root)
        newest = sorted(paths, key=_written, reverse=True)
    except OSError as error:
        raise UserError("{}: cannot be read: {}", root, error.strerror) from error
    found = Listing(root, [], [], [])
    for path in newest:
        if not any((path / name).exists() for name in (CONFIG, SEARCH)):
            continue
        try:
            if (path / CONFIG).exists():
                found.runs.append(_read(path))
            else:
                files.check_only_files(path)
                found.others.append((path, _search(files.read_json(path / SEARCH))))
        except UserError as error:
            found.damaged.append((path, error))
    best_first = sorted(found.runs, key=lambda run: -(run.validation_accuracy or 0.0))
    return dataclasses.replace(found, runs=_with_differences(best_first))


def _folders(root: Path) -> list[Path]:
    """The folders in a folder, without hidden ones, links and what is being written."""
    with os.scandir(root) as entries:
        return [
            root / entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
            and not entry.name.startswith(".")
            and not entry.name.endswith(".partial")
        ]


def _written(path: Path) -> float:
    times = [path.stat().st_mtime]
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # It has just been replaced.
                times.append(entry.stat(follow_symlinks=False).st_mtime)
    return max(times)


def _read(path: Path) -> ListedRun:
    folder = RunFolder.open(str(path))
    config = folder.read(CONFIG)
    if not isinstance(config.get("model"), str):
        raise UserError("{}: expected the config of a run, found no model", path / CONFIG)
    records = folder.records() if (path / METRICS).exists() else []
    return ListedRun(path, _written(path), config, folder.read(RESULT), records, folder.finished)


def _search(values: dict[str, Any]) -> Text:
    over, runs = values.get("over"), values.get("runs")
    names = ", ".join(map(str, over)) if isinstance(over, dict) else "?"
    return Text(SEARCHED, names, len(runs) if isinstance(runs, list) else 0)


def _with_differences(runs: list[ListedRun]) -> list[ListedRun]:
    """The runs with the settings that differ from most runs of the same network."""
    groups: dict[Any, list[ListedRun]] = defaultdict(list)
    for run in runs:
        groups[run.config["model"]].append(run)

    def differing(run: ListedRun) -> dict[str, Any]:
        group, found = groups[run.config["model"]], {}
        for name in Config.__dataclass_fields__:
            value = run.config.get(name)
            equal = sum(_shown(other.config.get(name)) == _shown(value) for other in group)
            if name in SETTINGS and value is not None and 2 * equal <= len(group):
                found[name] = value
        return found

    return [run._replace(differs=differing(run)) for run in runs]


def _shown(value: object) -> str:
    """A value of a file in a table."""
    if isinstance(value, list):
        value = "x".join(map(str, value))
    return shortened(printable("none" if value is None else f"{value}"), LONGEST)


def _table(runs: Sequence[ListedRun]) -> list[str]:
    if not runs:
        return []
    head = _("run"), _("model"), _("data"), _("epochs"), _("val acc"), _("test acc"), _("seed")
    rows = [[*head]]
    for run in runs:
        done, wanted = run.epochs
        epochs = f"{done}" if wanted in (done, None) else f"{done}/{_shown(wanted)}"
        numbers = run.validation_accuracy, run.test_accuracy
        accuracies = ["-" if x is None else f"{x:.4f}" for x in numbers]
        texts = map(_shown, (run.path.name, run.config["model"], run.dataset))
        rows.append([*texts, epochs, *accuracies, _shown(run.config.get("seed"))])
    differs = [" ".join(f"{k}={_shown(v)}" for k, v in run.differs.items()) for run in runs]
    align = "<<<>>>>"
    if any(differs):
        last = [_("differs"), *differs]
        whole = [[*row, text] for row, text in zip(rows, last, strict=True)]
        lines = table(whole, align + "<")
        if max(map(width_of, lines)) <= columns():
            return lines
    lines = table(rows, align)
    if max(map(width_of, lines)) > columns():  # Each name gets its own line.
        names, rest = [row[0] for row in rows], table([row[1:] for row in rows], align[1:])
        lines = [f"{name}\n    {line}" for name, line in zip(names, rest, strict=True)]
    indent = " " * 4
    wrapped = [textwrap.indent(fill(text, columns() - len(indent)), indent) for text in differs]
    below = ["", *(f"\n{text}" if text else "" for text in wrapped)]
    return [line + text for line, text in zip(lines, below, strict=True)]
