"""The run folder: config.json, metrics.jsonl, checkpoints/ and, last of all, result.json.

A run that began with a search has search.json too.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets.errors import UserError, one_line
from jaxnets.runs import checkpoints, untrusted
from jaxnets.runs.lock import Lock

CONFIG, METRICS, CHECKPOINTS, RESULT = "config.json", "metrics.jsonl", "checkpoints", "result.json"
SEARCH = "search.json"
RUNS = Path("runs")


def params_sha256(params: Any) -> str:
    """The digest of the parameters' bytes, leaf by leaf in tree order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class RunFolder:
    """Where a run is kept; all that evaluating, predicting and serving need."""

    def __init__(self, path: Path):
        """A folder made by `create` or found by `open`."""
        self.path = self.home = path  # They differ where another process writes the run.
        self.keep = 1  # The last checkpoints, beside the best.
        self._manager = None
        self._lock = Lock(path)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception) -> None:
        if kind is KeyboardInterrupt:  # At once: the checkpoint being written is not waited for.
            self._manager = None
        self.close()

    @classmethod
    def create(cls, workdir: str | None, model: str, *, overwrite: bool = False) -> "RunFolder":
        """Makes the folder and takes it.

        Args:
          workdir: Where; None is runs/<model>-<date>-<time>.
          model: For the default name.
          overwrite: Replace the run that the folder holds.

        Raises:
          UserError: It holds a run (without overwrite) or other files, cannot be written, or
            another process is at work in it.
        """
        path = Path(workdir).expanduser() if workdir else fresh_path(model)
        make_folder(path)
        folder = cls(path.resolve())
        folder.lock()
        found = make_folder(path)  # Read under the lock: another may have begun in between.
        with contextlib.ExitStack() as stack, _writing(path):
            stack.enter_context(folder)  # Its lock is given back if it is refused.
            ours = (CONFIG, SEARCH, METRICS, CHECKPOINTS, RESULT)
            others = [name for name in found if name.removesuffix(".partial") not in ours]
            if others:
                raise UserError(f"workdir: expected an empty folder, {path} holds {others[0]}")
            if not overwrite and not _only_just_made(path, found):
                raise UserError(
                    f"workdir: {path} already holds a run; --overwrite replaces it, "
                    "--resume goes on with it"
                )
            for name in found:
                if (path / name).is_dir():
                    shutil.rmtree(path / name)
                else:
                    (path / name).unlink()
            (path / METRICS).touch()
            stack.pop_all()
        return folder

    @classmethod
    def open(cls, workdir: str) -> "RunFolder":
        """Finds a run.

        Raises:
          UserError: There is none, or it holds links: it may be anybody's.
        """
        path = Path(os.path.expanduser(workdir))
        if not (path / CONFIG).is_file():
            raise UserError(f"workdir: expected a run folder, found no {CONFIG} in {path}")
        path = path.resolve()
        untrusted.check_only_files(path)
        return cls(path)

    @classmethod
    def newest_unfinished(cls, model: str) -> "RunFolder":
        """Finds, of a model's runs under runs/, the unfinished one that was last written to.

        Raises:
          UserError: There is none.
        """
        found = []
        for path in RUNS.glob(f"*/{CONFIG}"):
            try:
                folder = cls.open(str(path.parent))
                ours = folder.read_config().get("model") == model
            except UserError as error:
                print(one_line(f"warning: {error}; looking for another run"), file=sys.stderr)
                continue
            if ours and not folder.finished:
                written = max(entry.stat().st_mtime_ns for entry in folder.path.iterdir())
                found.append((written, folder.path.name, folder))
        if not found:
            raise UserError(
                f"resume: found no unfinished run of {model} in {RUNS.resolve()}; "
                "--workdir=DIR names another folder, --model=NAME another model"
            )
        return max(found)[2]

    def lock(self) -> None:
        """Takes the folder for this process, until `close` or the process' end, however it ends.

        Raises:
          UserError: Another process has taken it.
        """
        with _writing(self.path):
            self._lock.take()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / RESULT).exists()

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote."""
        return untrusted.read_json(self.path / CONFIG)

    def write_config(self, values: dict[str, Any]) -> None:
        """Writes config.json."""
        _write_json(self.path / CONFIG, values)

    def write_search(self, values: dict[str, Any]) -> None:
        """Writes search.json."""
        _write_json(self.path / SEARCH, values)

    def read_search(self) -> dict[str, Any] | None:
        """What `write_search` wrote, or None."""
        return untrusted.read_json(self.path / SEARCH) if (self.path / SEARCH).is_file() else None

    def log(self, record: dict[str, Any]) -> None:
        """Appends an epoch's record to metrics.jsonl."""
        self._lock.check()
        with _naming(self.path / METRICS), (self.path / METRICS).open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The epochs' records."""
        return untrusted.read_records(self.path / METRICS)

    def drop_records_after(self, step: int) -> None:
        """Drops the records of epochs that ended after a step, whose checkpoint was lost."""
        kept = [record for record in self.records() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        if text != (self.path / METRICS).read_text():
            write_text(self.path / METRICS, text)

    def save(self, step: int, tree: Any) -> None:
        """Saves a checkpoint in the background; a crash in the middle leaves the one before."""
        import orbax.checkpoint as ocp

        self._lock.check()
        with (self.path / METRICS).open("rb") as stream:  # No checkpoint without its history.
            os.fsync(stream.fileno())
        # Copies: the arrays' own memory is given to the next step before they are written.
        tree = jax.tree.map(lambda x: np.array(x), tree)
        manager = self._checkpoints()
        if manager.latest_step() != step:  # Else it is saved already: interrupted once more.
            with self._saving():
                manager.save(step, args=ocp.args.StandardSave(tree), force=True)

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._manager is not None and self._manager.is_saving_in_progress()

    def restore(self, like: Any) -> Any:
        """The last checkpoint, as NumPy arrays in the structure of `like`, or None.

        One that cannot be restored is told on stderr and removed if there is an older one that can.

        Raises:
          UserError: There are checkpoints, and none can be restored.
        """
        import orbax.checkpoint as ocp

        path = self.path / CHECKPOINTS
        try:
            manager = self._checkpoints()
        except Exception as error:  # It reads what every checkpoint says of itself.
            raise UserError(f"{path}: cannot be restored: {untrusted.first_line(error)}") from error
        like = jax.tree.map(lambda x: np.zeros(np.shape(x), x.dtype), like)
        damaged: dict[int, str] = {}
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                untrusted.check_declared_sizes(path / str(step) / checkpoints.ITEM)
                tree = manager.restore(step, args=ocp.args.StandardRestore(like))
                if _leaf_shapes(tree) != _leaf_shapes(like):
                    raise ValueError("expected the arrays of this network, found others")
            except Exception as error:  # Whatever a damaged file makes of the library.
                damaged[step] = untrusted.first_line(error)
                continue
            for bad, reason in damaged.items():
                line = f"{path / str(bad)}: cannot be restored: {reason}"
                print(one_line(f"warning: {line}; going on from step {step}"), file=sys.stderr)
                manager.delete(bad)
            return tree
        if damaged:
            raise UserError(f"{path}: cannot be restored: {next(iter(damaged.values()))}")
        return None

    def read_params(self, like: Any) -> tuple[int, Any]:
        """The last checkpoint's step and parameters, as NumPy arrays; nothing is written.

        Args:
          like: Their structure, shapes and dtypes (of jax.eval_shape). They are compared with the
            checkpoint's before memory is taken: the folder may be anybody's.

        Raises:
          UserError: There is no checkpoint, it is damaged, or it is of another network.
        """
        import orbax.checkpoint as ocp

        path = self.path / CHECKPOINTS
        checkpoints.silence()
        if not path.is_dir():
            raise UserError(f"{path}: expected a checkpoint, found none")
        options = ocp.CheckpointManagerOptions(read_only=True)
        handler = ocp.PyTreeCheckpointHandler()
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        try:
            with ocp.CheckpointManager(path, options=options, item_handlers=handler) as manager:
                step = manager.latest_step()
                if step is None:
                    raise UserError(f"{path}: expected a checkpoint, found none")
                untrusted.check_declared_sizes(path / str(step) / checkpoints.ITEM)
                found = manager.item_metadata(step)["params"]  # type: ignore[index]
                if (theirs := _leaf_shapes(found)) != (ours := _leaf_shapes(like)):
                    name = next(iter(sorted(theirs.items() ^ ours.items())))[0]
                    raise UserError(
                        f"{path}: expected the parameters that config.json describes, found "
                        f"{name} with {theirs.get(name, 'none')} for {ours.get(name, 'none')}"
                    )
                restore = ocp.args.PyTreeRestore(
                    {"params": like}, restore_args={"params": as_numpy}, partial_restore=True
                )
                return step, manager.restore(step, args=restore)["params"]
        except UserError:
            raise
        except Exception as error:  # Whatever a damaged file makes of the library.
            raise UserError(f"{path}: cannot be restored: {untrusted.first_line(error)}") from error

    def finish(self, result: dict[str, Any]) -> None:
        """Waits for the checkpoints and writes result.json, atomically."""
        self.wait()
        self._lock.check()
        _write_json(self.path / RESULT, result)

    def mark_unfinished(self) -> None:
        """Makes a finished run one that goes on."""
        (self.path / RESULT).unlink(missing_ok=True)

    def close(self) -> None:
        """Waits until the checkpoints are written, and gives the lock back.

        Raises:
          OSError: They could not be.
        """
        try:
            self.wait()
        finally:
            self._lock.release()

    def wait(self) -> None:
        """Waits until the checkpoints are written.

        Raises:
          OSError: They could not be.
        """
        manager, self._manager = self._manager, None
        if manager is not None:
            with self._saving():
                manager.close()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        path = self.path / CHECKPOINTS
        try:
            with checkpoints.saving_to(path):
                yield
        except OSError:
            self._lock.check()  # Of a folder that is gone there is more to say.
            raise

    def _checkpoints(self) -> Any:
        if self._manager is None:
            kept = checkpoints.RetentionPolicy(self.keep, self.records)
            self._manager = checkpoints.open_manager(self.path / CHECKPOINTS, kept)
        return self._manager


def _only_just_made(path: Path, found: list[str]) -> bool:
    """Whether what a folder holds is from a process that ended before its run began."""
    return all(
        name.endswith(".partial") or (name == METRICS and not (path / name).stat().st_size)
        for name in found
    )


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf of a tree, by its path in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def make_folder(path: Path) -> list[str]:
    """Makes a folder if there is none, and returns the sorted names in it.

    Raises:
      UserError: It cannot be made or read.
    """
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        return sorted(entry.name for entry in path.iterdir())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a work folder into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"workdir: cannot write to {path}: {reason}") from error


def fresh_path(model: str) -> Path:
    """runs/<model>-<date>-<time> or, where that exists, the first free of -2, -3, ..."""
    base = path = RUNS / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 2
    while path.exists():
        path = base.with_name(f"{base.name}-{number}")
        number += 1
    return path


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    with _naming(path):
        # Of a crash; or somebody's link, which must not be followed.
        partial.unlink(missing_ok=True)
        try:
            with partial.open("x") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):  # Of what went wrong before, if anything.
                partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets an OSError name the file, which a failed write, unlike a failed open, does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
