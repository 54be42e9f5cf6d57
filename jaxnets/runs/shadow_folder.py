"""The run folder as it is for the processes that do not write it."""

import tempfile
from pathlib import Path
from typing import Any

from jaxnets.runs.run_folder import CONFIG, METRICS, SEARCH, RunFolder

COPIED = (CONFIG, METRICS, SEARCH)


def metadata_snapshot(folder: RunFolder) -> dict[str, Any]:
    """What a ShadowFolder is made of, as JSON holds it."""
    files = {name: folder.path / name for name in COPIED}
    return {
        "home": str(folder.path),
        "files": {name: path.read_text() for name, path in files.items() if path.is_file()},
    }


class ShadowFolder(RunFolder):
    """A folder of one's own, with the run's records and no checkpoints; it goes when it is closed.

    What is written into the run folder is written here too, so that nobody needs to ask who
    writes it.
    """

    def __init__(self, copy: dict[str, Any]):
        """Makes it from a `metadata_snapshot` the run folder."""
        self._folder = tempfile.TemporaryDirectory(prefix="jaxnets-")
        super().__init__(Path(self._folder.name))
        self.home = Path(copy["home"])
        for name, text in copy["files"].items():
            (self.path / name).write_text(text)

    def save(self, step: int, tree: Any) -> None:
        """The first process saves."""

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
