"""What a power cut may leave of a run's files: records a run, yields the states, opens each.

What happens to each file and name is recorded, and each fsync. After every event the power is cut.
Until its fsync a write may be missing, cut short at any byte or zeros in part; a new name, a rename
and a removal may be missing until the fsync of their folder; and none waits for another. All
combinations are tried where they are few, others are drawn. Each state is opened as `--resume` does
it: it must continue with the very numbers that the run had at that step, or be refused in one line.
Nothing may be lost that was on the disk before the run went on.
Source: Pillai et al. 2014 (ALICE), section 3; Mohan et al. 2018 (CrashMonkey).
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import math
import os
import random
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from conftest import without_times

import train
from jaxnets import experiment
from jaxnets.base.display import one_line
from jaxnets.base.errors import StoppedError, UserError
from jaxnets.config.fields import Config
from jaxnets.experiment import Experiment
from jaxnets.runs import request, run
from jaxnets.runs.checkpoints import named_leaves, tree_of
from jaxnets.runs.request import read_config
from jaxnets.runs.run_folder import RESULT, RunFolder

# Python's own names for the calls that may change a name or a file.
CALLS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
State = dict[str, bytes | None]  # Each path's content; None is a folder's.
CREATE, INIT, LOAD = Experiment.create, Experiment.init_state, request.load_data


class Event(NamedTuple):
    """What happened: "link", "unlink", "rename", "write", "sync", "start" or "promise"."""

    kind: str
    inode: int = 0  # The folder whose name changes, or the file.
    details: tuple = ()


class Recorder:
    """Records what happens below a folder: the difference between before a call and the next.

    That sees every write, whoever makes it; an fsync changes nothing, so `os.fsync` is replaced.
    """

    active: "Recorder | None" = None

    def __init__(self, root: Path):
        """Takes what lies in the folder already for safe on the disk."""
        self.root, self.events = root, []
        self._handles: dict[int, int] = {}  # Open files keep their inode's number.
        self._names: dict[tuple[int, str], tuple[int, bool]] = {}
        self._contents: dict[int, bytes] = {}
        self._lock, self._looking = threading.RLock(), False

    def __enter__(self) -> "Recorder":
        _listen()
        self.look()
        self.events += [Event("sync", inode) for inode in (self.root.stat().st_ino, *self._handles)]
        self.events.append(Event("start"))
        Recorder.active, self._fsync = self, os.fsync
        os.fsync = self._note_fsync
        return self

    def __exit__(self, *exception) -> None:
        self.look()
        Recorder.active, os.fsync = None, self._fsync
        for handle in self._handles.values():
            os.close(handle)

    def promise(self, name: str, value: Any) -> None:
        """Notes what the run may rely on from here on; None withdraws it."""
        with self._lock:
            self.look()
            self.events.append(Event("promise", 0, (name, value)))

    def _note_fsync(self, file: Any) -> None:
        with self._lock:
            self.look()
            number = file if isinstance(file, int) else file.fileno()
            self.events.append(Event("sync", os.fstat(number).st_ino))
        self._fsync(file)

    def look(self) -> None:
        """Notes what has changed since the last look."""
        with self._lock:
            if self._looking:  # Called by what it calls.
                return
            self._looking = True
            try:
                self._compare()
            finally:
                self._looking = False

    def _compare(self) -> None:
        while True:
            with contextlib.suppress(FileNotFoundError):  # Another thread's; it is seen next time.
                names = self._walk()
                break
        gone = {key: inode for key, inode in self._names.items() if names.get(key) != inode}
        for key, child in names.items():
            if self._names.get(key) == child:
                continue
            folder, name = key
            before = [k for k, other in gone.items() if other == child and k[0] == folder]
            if before:
                self.events.append(Event("rename", folder, (before[0][1], name, *child)))
                del gone[before[0]]
            else:
                self.events.append(Event("link", folder, (name, *child)))
            gone.pop(key, None)
        for folder, name in gone:
            self.events.append(Event("unlink", folder, (name,)))
        self._names = names
        for inode in {inode for inode, is_folder in names.values() if not is_folder}:
            new, old = _read(self._handles[inode]), self._contents.get(inode, b"")
            if new != old:
                same = len(os.path.commonprefix([old, new]))
                self.events.append(Event("write", inode, (same, new[same:])))
                self._contents[inode] = new

    def _walk(self) -> dict[tuple[int, str], tuple[int, bool]]:
        """Each folder's names, with their inodes and whether they are folders."""
        names, folders = {}, [str(self.root)]
        while folders:
            path = folders.pop()
            folder = os.stat(path).st_ino
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.inode() not in self._handles:
                        handle = os.open(entry.path, os.O_RDONLY)
                        self._handles[os.fstat(handle).st_ino] = handle
                    is_folder = entry.is_dir(follow_symlinks=False)
                    names[folder, entry.name] = entry.inode(), is_folder
                    if is_folder:
                        folders.append(entry.path)
        return names


def _read(handle: int) -> bytes:
    return os.pread(handle, os.fstat(handle).st_size, 0)


@functools.cache
def _listen() -> None:
    """Lets Python tell the active recorder of each call; a hook stays to the process's end."""

    def heard(event: str, arguments: Any) -> None:
        if event in CALLS and Recorder.active is not None:
            Recorder.active.look()

    sys.addaudithook(heard)


def crash_states(
    events: Sequence[Event], root: int, limit: int, rng: random.Random, cuts: int = 8
) -> Iterator[tuple[dict[str, Any], State]]:
    """Yields what was promised and each different state that a power cut may leave, event by event.

    After an event all states are tried if they are at most `limit`, else so many are drawn. A write
    is cut at so many bytes in turn.
    """
    operations: dict[int, list[Event]] = collections.defaultdict(list)
    safe: dict[int, int] = collections.Counter()
    promised: dict[str, Any] = {}
    seen, started = set(), False
    for event in events:
        if event.kind == "start":
            started = True
        elif event.kind == "sync":
            safe[event.inode] = len(operations[event.inode])
        elif event.kind == "promise":
            promised = {**promised, event.details[0]: event.details[1]}
        else:
            operations[event.inode].append(event)
        if not started:
            continue
        pending = [(i, e) for i, all_of in operations.items() for e in all_of[safe[i] :]]
        options = [_outcomes(e, rng, cuts) for _, e in pending]
        if math.prod(map(len, options)) <= limit:
            chosen = itertools.product(*options)
        else:
            drawn = [[rng.choice(o) for o in options] for _ in range(limit - 2)]
            chosen = iter([[o[0] for o in options], [o[-1] for o in options], *drawn])
        for outcomes in chosen:
            applied = {i: [(e, e.details) for e in operations[i][: safe[i]]] for i in operations}
            for (inode, e), outcome in zip(pending, outcomes, strict=True):
                if outcome is not None:
                    applied[inode].append((e, outcome))
            state = dict(_tree(applied, root, ""))
            key = repr((promised, state))
            if key not in seen:
                seen.add(key)
                yield promised, state


def _outcomes(event: Event, rng: random.Random, most: int) -> list[tuple | None]:
    """What a crash may leave of an event that is not on the disk: nothing first, all of it last."""
    if event.kind != "write":
        return [None, event.details]
    start, data = event.details
    cuts = rng.sample(range(1, len(data)), min(most, len(data) - 1))
    parts = [data[:cut] for cut in cuts]
    for cut in (0, *cuts):
        parts += [data[:cut] + bytes(len(data) - cut), bytes(cut) + data[cut:]]
    return [None, *((start, part) for part in parts), event.details]


def _tree(applied: dict[int, list], folder: int, path: str) -> Iterator[tuple[str, bytes | None]]:
    """The paths below a folder, with their contents."""
    names: dict[str, tuple[int, bool]] = {}
    for event, details in applied.get(folder, []):
        if event.kind == "unlink":
            names.pop(details[0], None)
        elif event.kind == "link":
            names[details[0]] = details[1:]
        elif details[0] in names:  # Without the name before, a rename is as if it were missing.
            del names[details[0]]
            names[details[1]] = details[2:]
    for name, (inode, is_folder) in sorted(names.items()):
        if is_folder:
            yield f"{path}{name}", None
            yield from _tree(applied, inode, f"{path}{name}/")
            continue
        content = b""
        for _, (start, data) in applied.get(inode, []):
            content = content[:start].ljust(start, b"\0") + data
        yield f"{path}{name}", content


def write_state(state: State, root: Path) -> None:
    """Puts a state's files into a new folder."""
    root.mkdir()
    for path, content in state.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


class LostError(Exception):
    """A power cut lost what was promised, or left what is neither resumed nor refused."""


def digest(tree: Any) -> str:
    """The digest of a checkpoint's arrays but the times."""
    arrays = {name: x for name, x in named_leaves(tree).items() if "seconds" not in name}
    parts = (f"{name} {x.dtype} {np.asarray(x).tobytes()}" for name, x in sorted(arrays.items()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Runs:
    """Records runs of train.py, and opens what power cuts leave of them."""

    WORKDIR = "runs/a"  # Both are made by the run.

    def __init__(self, work: Path, flags: Sequence[str]):
        """The flags say what to train; work is a folder for the files."""
        self.work, self.root, self.flags = work, work / "root", list(flags)
        self.root.mkdir()
        self.folder = self.root / self.WORKDIR
        self.promised: dict[str, Any] = {}
        self.trees: dict[tuple[int, int], str] = {}  # By seed and step: what was saved.
        self.records: dict[tuple[int, int], dict] = {}
        self.results: dict[tuple[int, int], str] = {}  # By seed and epochs: params_sha256.
        self._created: dict[Any, tuple[Experiment, Any]] = {}

    def record(self, *flags: str, stop_after: int | None = None) -> list[Event]:
        """Trains in `folder`, and returns what happened; a run may stop after a step's record."""
        recorder, seed = Recorder(self.root), 0
        names = ("save", "_write_checkpoint", "log", "finish")
        save, write, log, finish = (getattr(RunFolder, name) for name in names)
        open_folder = run._open_folder

        def promise(name: str, value: Any) -> None:
            self.promised = {**self.promised, name: value}
            recorder.promise(name, value)

        def open_and_withdraw(experiment: Experiment, *arguments: Any) -> RunFolder:
            nonlocal seed
            seed = experiment.config.seed
            promise("finished", None)  # It is asked to go on.
            if experiment.config.overwrite:
                promise("saved", None)
            return open_folder(experiment, *arguments)

        def save_at_once(folder: RunFolder, step: int, tree: Any) -> None:
            self.trees[seed, step] = digest(tree)
            save(folder, step, tree)
            folder.wait()  # The order of two threads would differ from time to time.

        def write_and_promise(folder: RunFolder, step: int, arrays: Any) -> None:
            write(folder, step, arrays)
            promise("saved", (seed, step))

        def log_or_stop(folder: RunFolder, record: dict) -> None:
            self.records[seed, record["step"]] = without_times(record)
            log(folder, record)
            if record["step"] == stop_after:
                raise KeyboardInterrupt

        def finish_and_promise(folder: RunFolder, result: dict) -> None:
            finish(folder, result)
            promise("finished", (seed, result["epochs"]))
            self.results[seed, result["epochs"]] = result["params_sha256"]

        replaced = (save_at_once, write_and_promise, log_or_stop, finish_and_promise)
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                mock.patch.multiple(RunFolder, **dict(zip(names, replaced, strict=True)))
            )
            stack.enter_context(mock.patch.object(run, "_open_folder", open_and_withdraw))
            # Steps one by one, so that there is something to save between them.
            stack.enter_context(mock.patch.object(experiment, "prefers_scan", lambda *_: False))
            stack.enter_context(recorder)
            for name, value in self.promised.items():
                recorder.promise(name, value)
            with contextlib.suppress(*[StoppedError] if stop_after else []):
                self._train(f"--workdir={self.folder}", *flags)
        return recorder.events

    def _train(self, *flags: str) -> None:
        given = [] if "--resume" in flags else self.flags
        with contextlib.redirect_stdout(io.StringIO()):
            train.main([*given, *flags])

    def states(self, events: Sequence[Event], limit: int, rng: random.Random, cuts: int = 8):
        """`crash_states` of what was recorded."""
        return crash_states(events, self.root.stat().st_ino, limit, rng, cuts)

    def check(self, promised: dict[str, Any], state: State, *, train_on: bool = False) -> str:
        """Opens a state; returns what came of it, or raises LostError."""
        root = self.work / "state"
        write_state(state, root)
        try:
            promised = {name: value for name, value in promised.items() if value is not None}
            return self._check(root / self.WORKDIR, promised, train_on)
        finally:
            shutil.rmtree(root)

    def _check(self, folder: Path, promised: dict[str, Any], train_on: bool) -> str:
        try:
            with self._resumed(folder) as resumed:
                seed, step = resumed.config.seed, int(resumed.checkpoint.state.step)
                found = digest(tree_of(resumed.checkpoint, resumed.experiment.data.num_classes))
                records = [without_times(record) for record in resumed.folder.records()]
        except UserError as error:
            message = str(error)
            if one_line(message) != message:
                raise LostError(f"not one line: {message!r}") from error
            if "holds a finished one" in message:
                return self._check_finished(folder, promised)
            if promised:
                raise LostError(f"{promised}, but {message}") from error
            with contextlib.suppress(UserError):
                RunFolder.create(str(folder), "softmax").close()
            return "refused, nothing saved"
        if "finished" in promised:
            raise LostError(f"{promised}, but it is not finished")
        if (seed, step) < promised.get("saved", (seed, step)):
            raise LostError(f"{promised}, but it resumes after step {step} of seed {seed}")
        if found != self.trees[seed, step]:
            raise LostError(f"it resumes after step {step} of seed {seed} with other numbers")
        expected = [self.records[key] for key in sorted(self.records) if key[0] == seed]
        if records != [record for record in expected if record["step"] <= step]:
            raise LostError(f"it resumes after step {step} with {len(records)} records")
        if train_on:
            self._train("--resume", f"--workdir={folder}")
            self._check_finished(folder, {})
            return "trained to its end"
        return "resumed"

    def _check_finished(self, folder: Path, promised: dict[str, Any]) -> str:
        opened = RunFolder.open(str(folder))
        try:
            config, result = read_config(opened), opened.read(RESULT)
            step, params = opened.read_params(self._made(config)[1].params)
        except UserError as error:
            raise LostError(f"finished, but {error}") from error
        which = config.seed, config.epochs
        if which != promised.get("finished", which) or result["epochs"] != config.epochs:
            raise LostError(f"{promised}, but the result is of {result['epochs']} epochs")
        found = {result["params_sha256"], run.params_sha256(params)}
        if found != {self.results.get(which)} or step != result["steps"]:
            raise LostError(f"the result or the checkpoint of step {step} has other numbers")
        return "finished"

    def _made(self, config: Config) -> tuple[Experiment, Any]:
        """The config's experiment and first state; building them takes a second."""
        key = dataclasses.replace(config, workdir=None, resume=False, overwrite=False)
        if key not in self._created:
            made = CREATE(config, LOAD(config))
            self._created[key] = made, INIT(made)
        return self._created[key]

    @contextlib.contextmanager
    def _resumed(self, folder: Path) -> Iterator[run.Run]:
        """Opens a run as --resume does, except that data and experiment are made once."""

        def load(config: Config) -> Any:
            return self._made(config)[0].data

        def create(config: Config, *_: Any) -> Experiment:
            return dataclasses.replace(self._made(config)[0], config=config)

        with contextlib.ExitStack() as stack:
            for target, name, value in (
                (Experiment, "create", create),
                (Experiment, "init_state", lambda ours: self._made(ours.config)[1]),
                (os, "fsync", lambda file: None),
            ):
                stack.enter_context(mock.patch.object(target, name, value))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            flags = {"resume": True, "workdir": str(folder)}
            yield stack.enter_context(run.Run.open(flags, load=load))
