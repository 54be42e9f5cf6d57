"""Copies and pickles of a Network."""

import copy
import dataclasses
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, Self

import jax

from jaxnets.runs.run_folder import RunFolder


class Copied:
    """The part of a Network by which Python copies and pickles it."""

    def __deepcopy__(self, memo: Any) -> Self:
        """A network at the same point of training.

        Config, data and experiment, which never change, are shared.
        """
        other: Any = type(self).__new__(type(self))
        vars(other).update(vars(self), history=copy.deepcopy(vars(self)["history"]))
        if other._checkpoint is not None:
            state = jax.tree.map(lambda leaf: leaf.copy(), other._checkpoint.state)
            other._checkpoint = dataclasses.replace(other._checkpoint, state=state)
        return other

    def __copy__(self) -> Self:
        return self.__deepcopy__({})  # The next `fit` takes the memory of the state.

    def __getstate__(self) -> dict[str, Any]:
        """The config and the files of a run folder: a pickle holds no data."""
        network: Any = self
        with tempfile.TemporaryDirectory() as folder:
            loaded = network._folder if network._checkpoint is None else None
            path = loaded.path if loaded else network.save(Path(folder) / "run")
            files = [found for found in path.rglob("*") if found.is_file()]
            contents = {str(found.relative_to(path)): found.read_bytes() for found in files}
        return {"config": network.config, "files": contents}

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        path = Path(tempfile.mkdtemp(prefix="jaxnets-"))
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        for name, content in state["files"].items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(content)
        self._read(RunFolder.open(str(path)), state["config"], None)
