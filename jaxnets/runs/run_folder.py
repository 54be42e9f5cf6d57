"""The run folder: config.json, metrics.jsonl, checkpoints/ and, last of all, result.json.

A run that began with a search also has search.json, a run with --track the folder tracking/, and a
run with --report the file report.html. A training by wrong passes has comparison.json.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxnets.base import files
from jaxnets.base.errors import RunFailedError, UserError, first_line
from jaxnets.base.language import Text
from jaxnets.base.trees import Params, Tree
from jaxnets.runs import checkpoints

CONFIG, METRICS, CHECKPOINTS, RESULT = "config.json", "metrics.jsonl", "checkpoints", "result.json"
SEARCH, TRACKING, REPORT = "search.json", "tracking", "report.html"
COMPARISON = "comparison.json"  # What the course compares the run with; nothing else reads it.
RULES = "rules"  # In config.json: what identifies the user's own rules, such as digests.
NO_RULES: Mapping[str, str] = MappingProxyType({})  # Of a run that trains with ours.
COMMAND = "command"  # In config.json: the words that continue the run, without files and flags.
WORD = re.compile(r"(--)?[a-z_]+(=\d+)?")  # A word of such a command.
LAYERS = "layers"  # A folder with the files of the user's own layers; nothing runs them from here.
RUNS = Path("runs")


def rules_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the user's own rules in a config.json, which may be untrusted."""
    found = config.get(RULES)
    return {name: str(one) for name, one in found.items()} if isinstance(found, dict) else {}


def command_of(config: Mapping[str, Any]) -> str:
    """The words after `jaxnets` that continue a config.json's run, without files and flags.

    The folder may be a stranger's: the words name no file to run.
    """
    found = config.get(COMMAND)
    is_command = isinstance(found, str) and all(map(WORD.fullmatch, found.split()))
    return found if found and is_command else "train"


def num_params(params: Params) -> int:
    """The number of parameters, each a single number."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def params_sha256(params: Params) -> str:
    """The digest of the parameters' bytes, leaf by leaf in tree order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class RunFolder:
    """The folder of a run: all that evaluating, predicting and serving need."""

    def __init__(self, path: Path):
        """A folder that `create` made or `open` found."""
        self.path = path
        self.keep = 1  # The last checkpoints, in addition to the best.
        self._pending: Future[None] | None = None  # The save in progress.
        self._saved_step: int | None = None
        self._lock: int | None = None  # The folder, opened and locked.

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is KeyboardInterrupt:  # At once, without waiting for the checkpoint being written.
            self._pending = None
        self.close()

    @classmethod
    def create(cls, workdir: str | None, model: str, *, overwrite: bool = False) -> "RunFolder":
        """Makes the folder, by default runs/<model>-<date>-<time>, and locks it.

        Raises UserError if it holds a run (without overwrite) or other files, cannot be written, or
        another process trains in it.
        """
        path = make_folder(workdir, model)
        folder = cls(path)
        folder.lock()
        with contextlib.ExitStack() as stack, _writing(path):
            stack.enter_context(folder)  # Its lock is released if the folder is refused.
            found = _replaceable(path, overwrite)  # Under the lock: another may have just begun.
            if CONFIG in found:  # First: a crash must not leave half of the old run.
                found.remove(CONFIG)
                (path / CONFIG).unlink()
                files.sync_folder(path)
            for name in found:
                shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
            (path / METRICS).touch()
            files.sync_folder(path)  # Nothing of the old run reappears with a new config.json.
            stack.pop_all()
        return folder

    @classmethod
    @contextlib.contextmanager
    def replace(cls, workdir: str, model: str, *, overwrite: bool) -> Generator["RunFolder"]:
        """Yields a new folder, which replaces workdir when the block has filled it.

        Until then the run in workdir stays as it is. Raises UserError as `create` does.
        """
        path = _place(workdir)
        with contextlib.ExitStack() as stack, _writing(path):
            if path.exists():
                stack.enter_context(files.locked(path))
                _replaceable(path, overwrite)
            new = stack.enter_context(files.replacing_folder(path))
            with cls.create(str(new), model) as folder:
                yield folder

    @classmethod
    def open(cls, workdir: str) -> "RunFolder":
        """Finds a run, whose folder may be untrusted; UserError if it is missing or holds links."""
        path = Path(os.path.expanduser(workdir))
        _place(workdir)
        if not (path / CONFIG).is_file():
            raise UserError("expected a run folder, found no {} in {}", CONFIG, path)
        path = path.resolve()
        files.check_only_files(path)
        return cls(path)

    def lock(self) -> None:
        """Locks the folder until `close`, or until the process ends in any way."""
        with _writing(self.path):
            self._lock = files.lock(self.path)

    def check_in_place(self) -> None:
        """Checks that the folder is the one that was locked, before anything is written to it."""
        with contextlib.suppress(OSError):
            now = os.stat(self.path)
            if self._lock is None or os.path.samestat(now, os.fstat(self._lock)):
                return
        raise RunFailedError(
            "{}: deleted, moved or replaced while the run was training in it", self.path
        )

    @property
    def finished(self) -> bool:
        return (self.path / RESULT).exists()

    @property
    def steps(self) -> list[int]:
        """The steps of its checkpoints, in ascending order; UserError if there are other files."""
        folder = self.path / CHECKPOINTS
        try:
            return checkpoints.steps_in(folder)
        except (OSError, ValueError) as error:
            raise UserError("{}: {}", folder, first_line(error)) from error

    def mark_unfinished(self) -> None:
        """Removes result.json: with a config.json of more epochs it would describe half a run.

        The removal is on the disk before anything else is written.
        """
        (self.path / RESULT).unlink(missing_ok=True)
        files.sync_folder(self.path)

    def finish(self, result: dict[str, Any]) -> None:
        """Waits for the checkpoints and writes result.json.

        A run that was killed before it could remove an old checkpoint removes it now.
        """
        self.wait()
        if (folder := self.path / CHECKPOINTS).exists():
            checkpoints.prune(folder, self.keep, self.records())
        self.write(RESULT, result)

    def read(self, name: str) -> dict[str, Any]:
        """Reads config.json, search.json or comparison.json; a missing file is empty."""
        return files.read_json(self.path / name) if (self.path / name).exists() else {}

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Writes config.json, search.json, comparison.json or result.json."""
        self.check_in_place()
        files.write_text(self.path / name, json.dumps(values, indent=2) + "\n")

    def keep_files(self, kept: Iterable[Path]) -> None:
        """Copies files that define the user's own layers into the folder."""
        for path in kept:
            files.mkdir(self.path / LAYERS)
            with files.replacing(self.path / LAYERS / path.name) as stream:
                stream.write(path.read_bytes())  # Its SHA-256 names it.

    def snapshot(self) -> dict[str, Any]:
        """The path and the contents as JSON; another process makes a replica from them."""
        contents = {name: self.read(name) for name in (CONFIG, SEARCH, COMPARISON)}
        return {"path": str(self.path), METRICS: self.records(), **contents}

    def records(self) -> list[dict[str, Any]]:
        return files.read_records(self.path / METRICS)

    def log(self, record: dict[str, Any]) -> None:
        """Appends an epoch's record to metrics.jsonl."""
        self.check_in_place()
        with files.naming(self.path / METRICS), (self.path / METRICS).open("ab") as stream:
            stream.write(json.dumps(record).encode() + b"\n")

    def drop_records_after(self, step: int, epochs: int) -> None:
        """Drops the records of epochs that ended after a step, whose checkpoint was lost.

        Raises UserError if the records of the epochs before it are missing.
        """
        kept = [record for record in self.records() if record["step"] <= step]
        if [record["epoch"] for record in kept] != list(range(1, epochs + 1)):
            raise UserError(
                "{}: expected a line for each of the {} epochs before the checkpoint of step "
                "{}, found {}; --overwrite trains anew",
                self.path / METRICS,
                epochs,
                step,
                len(kept),
            )
        text = "".join(json.dumps(record) + "\n" for record in kept)
        if text.encode() != (self.path / METRICS).read_bytes():  # Half a line may not be UTF-8.
            files.write_text(self.path / METRICS, text)

    def save(self, step: int, tree: object) -> None:
        """Saves a checkpoint in the background; the next call, or `wait`, raises its error."""
        self.check_in_place()
        self.wait()
        if step == self._saved_step:  # Interrupted once more before the next step.
            return
        # Copies: the next step reuses the arrays' memory before they are written.
        arrays = checkpoints.copied(tree)
        thread = ThreadPoolExecutor(1)
        self._pending = thread.submit(self._write_checkpoint, step, arrays)
        thread.shutdown(wait=False)
        self._saved_step = step

    def _write_checkpoint(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        # No checkpoint without its history. Windows syncs only a file that may be written.
        with (self.path / METRICS).open("r+b") as stream:
            os.fsync(stream.fileno())
        folder = self.path / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        files.sync_folder(self.path)
        checkpoints.write(checkpoints.path_of(folder, step), arrays)
        checkpoints.prune(folder, self.keep, self.records())

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._pending is not None and not self._pending.done()

    def wait(self) -> None:
        """Waits until the last checkpoint is written; raises OSError if it could not be."""
        save, self._pending = self._pending, None
        try:
            if save is not None:
                save.result()
        except Exception as error:
            self._saved_step = None
            self.check_in_place()  # Says more about a missing folder.
            number = getattr(error, "errno", None) or errno.EIO
            reason = f"cannot be saved: {first_line(error)}"
            raise OSError(number, reason, str(self.path / CHECKPOINTS)) from error

    def close(self) -> None:
        """Waits as `wait` does, and releases the lock."""
        try:
            self.wait()
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)

    def restore(self, like: Tree) -> Tree | None:
        """Reads the last checkpoint as NumPy arrays in the structure of `like`; None without one.

        A damaged one is reported on stderr; under the lock it is removed if an older one is sound.
        """
        self._saved_step, tree = self._read_newest(like) or (None, None)
        return tree

    def read_params(self, like: Tree) -> tuple[int, Tree]:
        """The last sound checkpoint's step and parameters, in the structure of `like`.

        A damaged one is reported on stderr; nothing is written. Raises UserError if nothing is
        trained.
        """
        found = self._read_newest({"params": like}, whole=False)
        if found is None or not found[0]:
            only = "" if found is None else Text(", only that of step 0, before training")
            raise UserError(
                "{}: no checkpoint of a trained network{}", self.path / CHECKPOINTS, only
            )
        return found[0], found[1]["params"]

    def _read_newest(self, like: Tree, *, whole: bool = True) -> tuple[int, Tree] | None:
        """The newest sound checkpoint's step and tree; if read whole, damaged ones are removed."""
        folder, remove = self.path / CHECKPOINTS, whole and self._lock is not None
        while True:
            paths = {step: checkpoints.path_of(folder, step) for step in reversed(self.steps)}
            # The run that trains in the folder may have just removed one.
            with contextlib.suppress(FileNotFoundError):
                return checkpoints.read_newest(paths, like, whole=whole, remove=remove)


class ReplicaRunFolder(RunFolder):
    """The run folder in a process that does not write: it touches no file.

    Every process trains with the same calls, so no caller asks which process writes.
    """

    def __init__(self, snapshot: dict[str, Any]):
        """Takes the first process's `RunFolder.snapshot`."""
        super().__init__(Path(snapshot["path"]))
        self._contents = snapshot

    def read(self, name: str) -> dict[str, Any]:
        return self._contents[name]

    def write(self, name: str, values: dict[str, Any]) -> None:
        self._contents[name] = values

    def records(self) -> list[dict[str, Any]]:
        return list(self._contents[METRICS])

    def log(self, record: dict[str, Any]) -> None:
        self._contents[METRICS].append(record)

    def drop_records_after(self, step: int, epochs: int) -> None:
        self._contents[METRICS] = [r for r in self.records() if r["step"] <= step]

    def save(self, step: int, tree: object) -> None:
        """Does nothing: the first process saves."""


def make_folder(workdir: str | None, name: str) -> Path:
    """Makes the requested folder or, by default, a new one named by a name and the time.

    That is runs/<name>-<date>-<time> or, if it exists, the first free one of -2, -3, ...; no other
    process gets the same folder.
    """
    if workdir:
        path = _place(workdir)
        with _writing(path):
            files.mkdir(path)
            return path.resolve()
    path, number = RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", 1
    first = path.name
    with _writing(path):
        files.mkdir(RUNS)
        while True:
            try:
                files.mkdir(path, exist_ok=False)
                return path.resolve()
            except FileExistsError:
                number += 1
                path = RUNS / f"{first}-{number}"


def _place(workdir: str) -> Path:
    """The path of a run's folder, without links; completes a replacement after a crash."""
    path = Path(os.path.realpath(os.path.expanduser(workdir)))
    with _writing(path):
        files.end_replacing(path)
    return path


def _replaceable(path: Path, overwrite: bool) -> list[str]:
    """The names in a folder; UserError if it holds a run (without overwrite) or other files."""
    found = sorted(os.listdir(path))
    ours = (CONFIG, SEARCH, METRICS, CHECKPOINTS, RESULT, TRACKING, REPORT, COMPARISON, LAYERS)
    others = [name for name in found if files.PARTIAL.sub("", name) not in ours]
    if others:
        raise UserError("workdir: expected an empty folder, {} holds {}", path, others[0])
    begun = [name for name in found if not name.endswith(".partial")]
    if begun == [METRICS] and not (path / METRICS).stat().st_size:
        begun = []  # A process ended before its run began.
    if begun and not overwrite:
        raise UserError(
            "workdir: {} already holds a run; --overwrite replaces it, --resume continues it", path
        )
    return found


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None]:
    """Turns errors in a run folder into one line; rmtree recurses into its folders."""
    try:
        yield
    except (OSError, RecursionError) as error:
        raise UserError("workdir: cannot write to {}: {}", path, first_line(error)) from error
