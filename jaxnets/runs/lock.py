"""A lock on a folder, which ends with the process that took it, however that ends."""

import os
import sys
from pathlib import Path

from jaxnets.errors import RunFailedError, UserError, one_line


class Lock:
    """Keeps other processes out of a folder.

    It is on the folder itself, where no file is left behind or replaced. Without fcntl (Windows),
    or on a file system without locks, there is none, and a line on stderr says so.
    """

    def __init__(self, path: Path):
        """Not taken yet."""
        self._path, self._file = path, None

    def take(self) -> None:
        """Takes it, until `release` or the process' end.

        Raises:
          UserError: Another process has it.
          OSError: The folder cannot be read.
        """
        try:
            import fcntl
        except ImportError:
            self._warn("this platform has no fcntl")
            return
        file = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UserError(
                f"workdir: another process is training in {self._path}; wait for its end or "
                "take another folder"
            ) from None
        except OSError as error:
            os.close(file)
            self._warn(f"cannot be locked ({error.strerror})")
            return
        self._file = file

    def release(self) -> None:
        """Lets others take it."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def check(self) -> None:
        """Sees to it that the folder is still the one that was locked.

        What is written could else end up in a run that was begun in its place.

        Raises:
          RunFailedError: It was deleted, moved or replaced.
        """
        try:
            now = os.stat(self._path)
        except OSError:
            now = None
        if now is None or not (self._file is None or os.path.samestat(now, os.fstat(self._file))):
            raise RunFailedError(
                f"{self._path}: deleted, moved or replaced while the run was training in it"
            )

    def _warn(self, why: str) -> None:
        line = f"warning: {why}: nothing keeps a second process out of {self._path}"
        print(one_line(line), file=sys.stderr)
