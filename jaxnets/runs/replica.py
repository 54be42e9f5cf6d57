"""The run folder as all but the first of several processes see it."""

from pathlib import Path
from typing import Any

from jaxnets.runs.run_folder import METRICS, RunFolder


class ReplicaRunFolder(RunFolder):
    """The run folder in a process that does not write it: it touches no file.

    Every process trains with the same calls, so that no caller asks which process writes.
    """

    def __init__(self, snapshot: dict[str, Any]):
        """Takes the first process' `RunFolder.snapshot`."""
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
        """The first process saves."""
