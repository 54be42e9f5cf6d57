"""The run folder as the processes have it that do not write it."""

from pathlib import Path
from typing import Any

from jaxnets.runs.run_folder import RunFolder


def metadata_snapshot(folder: RunFolder) -> dict[str, Any]:
    """What a run folder says of its run: JSON, of which another process makes a replica."""
    return {
        "path": str(folder.path),
        "config": folder.read_config(),
        "search": folder.read_search(),
        "records": folder.records(),
    }


class ReplicaRunFolder(RunFolder):
    """A run folder in memory, without checkpoints: whatever it is sent, it touches no file.

    Every process calls the same methods, so that no caller asks which process writes.
    """

    def __init__(self, snapshot: dict[str, Any]):
        """Takes the first process' `metadata_snapshot`."""
        super().__init__(Path(snapshot["path"]))
        self._config, self._search = snapshot["config"], snapshot["search"]
        self._records = snapshot["records"]

    def lock(self) -> None:
        """The first process locks."""

    @property
    def finished(self) -> bool:
        return False

    def read_config(self) -> dict[str, Any]:
        return self._config

    def write_config(self, values: dict[str, Any]) -> None:
        self._config = values

    def read_search(self) -> dict[str, Any] | None:
        return self._search

    def write_search(self, values: dict[str, Any]) -> None:
        self._search = values

    def records(self) -> list[dict[str, Any]]:
        return list(self._records)

    def log(self, record: dict[str, Any]) -> None:
        self._records.append(record)

    def drop_records_after(self, step: int) -> None:
        self._records = [record for record in self._records if record["step"] <= step]

    def save(self, step: int, tree: Any) -> None:
        """The first process saves."""

    def finish(self, result: dict[str, Any]) -> None:
        """The first process writes the result."""

    def mark_unfinished(self) -> None:
        """The first process removes the result."""
