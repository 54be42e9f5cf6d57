"""Files are written whole or not at all, and read as untrusted."""

import contextlib
import glob
import json
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Generator
from io import BufferedWriter
from pathlib import Path
from typing import Any

from jaxnets.base.display import WINDOWS, one_line
from jaxnets.base.errors import UserError, before_end
from jaxnets.base.language import Text

MAX_JSON_BYTES = 16 << 20  # Python's objects take up to 30 times as much.
MAX_RECORDS_BYTES = 64 << 20  # The most epochs, 100,000, have half as many.
MAX_FIELDS, MAX_LINE_BYTES = 20, 4096  # Limits of an epoch's record.
# Endings of a run's and a search's files, which no folder inside theirs may have.
ENDINGS = (".json", ".jsonl", ".safetensors", ".csv", ".svg", ".partial")
PARTIAL = re.compile(r"(\.[0-9a-f]{8})?\.partial$")  # Version 1.0 wrote no digits.


@contextlib.contextmanager
def replacing(path: Path) -> Generator[BufferedWriter]:
    """Yields a new file, which takes the path's place if the block raises nothing.

    The content is on the disk before the rename, and the rename before this returns. The file is
    this writer's own, PATH.xxxxxxxx.partial: of two writers, the last to end has written PATH.
    """
    with naming(path):
        _remove_left(path)
        partial, stream = _begin(path)
        with before_end(partial.unlink):
            try:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                if WINDOWS:  # It renames no open file.
                    stream.close()
                partial.replace(path)
                sync_folder(path.parent)
            finally:
                with contextlib.suppress(OSError):  # The error that came first says more.
                    stream.close()
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)


def _begin(path: Path) -> tuple[Path, BufferedWriter]:
    """A new file beside a path, locked while its writer lives; a link of that name is no file."""
    while True:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        stream = partial.open("xb")
        with contextlib.suppress(ImportError, OSError):  # Windows; a file system without locks.
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        if partial.exists():
            return partial, stream
        stream.close()  # Before the lock, another writer took it for the rest of a dead one.


def _remove_left(path: Path) -> None:
    """Removes what killed writers of a path have left, but no file that a living one has locked."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*partial"):
        if PARTIAL.sub("", left.name) != path.name:
            continue
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            if left.is_file() and not left.is_symlink():
                with left.open("r+b") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()
            else:
                left.unlink()


@contextlib.contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """Yields where to write a new folder, which takes the path's place if the block raises nothing.

    It is PATH.partial/new. After the block PATH becomes PATH.partial/old, and the new one PATH.
    A process that ends between these two renames leaves both whole: see `end_replacing`.
    """
    beside = _beside(path)
    mkdir(beside)
    with locked(beside):
        end_replacing(path)
        for left in beside.iterdir():  # Left by a process that was killed.
            shutil.rmtree(left)
        try:
            yield beside / "new"
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        if path.exists():
            path.rename(beside / "old")
        else:
            (beside / "old").mkdir()  # Says that the new one is whole.
        end_replacing(path)
        shutil.rmtree(beside, ignore_errors=True)


def end_replacing(path: Path) -> None:
    """Renames the new folder where a process ended between the renames of `replacing_folder`."""
    beside = _beside(path)
    if (beside / "old").exists() and not path.exists():
        with contextlib.suppress(FileNotFoundError):  # Another process has just done it.
            (beside / "new").rename(path)
        sync_folder(beside)
        sync_folder(path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def mkdir(path: Path, *, exist_ok: bool = True) -> None:
    """Makes a folder, and those that are missing above it; each name is on the disk after this."""
    if not path.parent.exists():
        mkdir(path.parent)
    if not (exist_ok and path.is_dir()):
        path.mkdir(exist_ok=exist_ok)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if WINDOWS:  # It opens no folders.
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or leaves the old one."""
    with replacing(path) as stream:
        stream.write(text.encode())


def output_path(output: str, flag: str = "output") -> Path:
    """The path of a file that may be written; UserError before any work is done."""
    path = Path(output).expanduser()
    if path.exists() and not path.is_file():
        raise UserError("{}: expected a file, {} is none", flag, output)
    if not path.parent.is_dir():
        raise UserError("{}: no such folder: {}", flag, path.parent)
    return path


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Lets an OSError name the file, which a failed write, unlike a failed open, does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def lock(folder: Path, *, shared: bool = False) -> int | None:
    """Locks a folder until the returned descriptor is closed or the process ends.

    Several processes may share it, as long as none holds it exclusively.

    The lock is on the folder itself, so no file is left behind or replaced. Without fcntl
    (Windows) or on a file system without locks it is None, and a line on stderr says so.
    """
    try:
        import fcntl
    except ImportError:
        reason = "this platform has no fcntl"
    else:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if not (folder.exists() and os.path.samefile(descriptor, folder)):
                raise BlockingIOError  # Another process had it, and has removed it.
            return descriptor
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise UserError(
                    "workdir: another process is training in {}; wait for its end or take "
                    "another folder",
                    folder,
                ) from None
            reason = f"cannot be locked ({error.strerror})"
    line = f"warning: {reason}: nothing keeps a second process out of {folder}"
    print(one_line(line), file=sys.stderr)


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False) -> Generator[None]:
    """Keeps a folder locked for a block, as `lock` does it."""
    descriptor = lock(folder, shared=shared)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def check_only_files(folder: Path) -> None:
    """Checks that a folder holds files and folders only, however deep: no links, pipes or devices.

    A link could lead out of the folder, and a pipe could block forever. A folder with the name of
    a file would be in the way when that file is written, maybe hours later.
    """
    folders = [str(folder)]
    while folders:
        path = folders.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name.endswith(ENDINGS):
                            raise UserError("{}: expected a file, found a folder", entry.path)
                        folders.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        what = Text("a link") if entry.is_symlink() else Text("something else")
                        raise UserError(
                            "{}: expected a file or a folder, found {}", entry.path, what
                        )
        except FileNotFoundError:  # The entries of a run that is being trained come and go.
            continue
        except OSError as error:
            raise UserError("{}: cannot be read: {}", path, error.strerror) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one object and has at most MAX_JSON_BYTES."""
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"expected at most {MAX_JSON_BYTES:,} bytes, found {size:,}")
        if not path.is_file():  # A pipe may block, a device may never end.
            raise ValueError("expected a file")
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("{}: cannot be read: {}", path, error) from error
    if not isinstance(values, dict):
        raise UserError("{}: expected an object of JSON, found a {}", path, type(values).__name__)
    return values


def number_in(values: dict[str, Any], name: str) -> float | None:
    """A number of a JSON file, which may hold anything; None if it is not one that can be drawn."""
    value = values.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # A whole number has any number of digits.
            if math.isfinite(value := float(value)):
                return value
    return None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads the epochs' records of a metrics.jsonl."""
    records = []
    try:
        if (size := path.stat().st_size) > MAX_RECORDS_BYTES:
            raise ValueError(f"expected at most {MAX_RECORDS_BYTES:,} bytes, found {size:,}")
        with path.open("rb") as stream:
            while (line := stream.readline(MAX_LINE_BYTES)).endswith(b"\n") and b"\0" not in line:
                record = json.loads(line)
                if not is_record(record):
                    raise ValueError(f"expected an epoch's record in line {len(records) + 1}")
                records.append(record)
    except OSError as error:
        raise UserError("{}: cannot be read: {}", path, error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise UserError("{}: damaged: {}", path, error) from error
    if len(line) == MAX_LINE_BYTES and b"\0" not in line:  # A crash leaves a shorter one, or zeros.
        raise UserError("{}: damaged: line {} is too long", path, len(records) + 1)
    return records


def is_record(record: object) -> bool:
    """Whether a line has the numbers of an epoch's record: whole counts, and finite others."""
    if not isinstance(record, dict) or "validation_accuracy" not in record:
        return False
    if len(record) > MAX_FIELDS or any(isinstance(x, list | dict) for x in record.values()):
        return False
    counts: list[Any] = [record.get(name) for name in ("epoch", "step")]
    numbers = ["seconds", "train_loss", "train_accuracy"]
    # Null without validation images; the last two may be missing, too.
    optional = ("validation_accuracy", "validation_loss", "validation_seconds")
    numbers += [name for name in optional if record.get(name) is not None]
    return all(type(n) is int and abs(n) < 2**63 for n in counts) and all(
        number_in(record, name) is not None for name in numbers
    )
