"""The served runs: each network, compiled for its batch sizes, follows its run's checkpoints.

Nothing waits for a clock: the first image starts at once, and those that arrive meanwhile are the
next batch. So a lone request has no delay, and a busy server has large batches. Feedback is
gathered in the same way: a batch of it is one transaction.
"""

import asyncio
import contextlib
import dataclasses
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Generic, TypeVar

import jax
import numpy as np
from fastapi import HTTPException

from jaxnets.base.errors import UserError, message_and_status
from jaxnets.config.recipes import MODEL_FIELDS
from jaxnets.predict.predict import Predictor, compile_network, to_predictor
from jaxnets.predict.trained import TrainedNetwork, load_network
from jaxnets.runs.run_folder import params_sha256

SIZES = (1, 2, 4, 8, 16, 32, 64)  # The compiled batch sizes; a batch is padded to the next one.
WAITING = 4096  # The largest number of images that wait for a network.
LOOK_EVERY = 1.0  # Seconds between two looks at a run folder.

Images = Sequence[np.ndarray] | np.ndarray  # float32 [H, W, C] each.
Observe = Callable[[str, int, int], None]  # Gets the model's name, images and size of each batch.
Item = TypeVar("Item")
Returned = TypeVar("Returned")


class Gatherer(Generic[Item, Returned]):
    """Passes waiting items to a function in a thread, in the order of arrival, batch by batch."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Returned]],
        thread: Executor,
        *,
        batch: int,
        waiting: int,
        full: str,
    ):
        """Starts nothing yet.

        Args:
          work: Gets 1 to `batch` items and returns a result for each. Each item gets its error.
          thread: The thread in which it runs; several gatherers may share one.
          batch: The largest number of items at once.
          waiting: The largest number of waiting items.
          full: The message to a client when more would wait.
        """
        self._work, self._thread, self._batch = work, thread, batch
        self.most, self._full = waiting, full
        self._waiting: deque[tuple[Item, asyncio.Future[Returned]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    def put(self, items: Sequence[Item]) -> list["asyncio.Future[Returned]"]:
        """Queues items; if too many would wait, queues none and raises HTTPException with 503."""
        if len(self._waiting) + len(items) > self.most:
            raise HTTPException(503, f"{self._full}: try again", {"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return futures

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(self._batch, len(self._waiting))
            items, futures = zip(*(self._waiting.popleft() for _ in range(count)), strict=True)
            try:
                results = await loop.run_in_executor(self._thread, self._work, items)
            except Exception as error:
                for future in futures:
                    if not future.done():  # Otherwise its request was cancelled.
                        future.set_exception(error)
                continue
            for future, result in zip(futures, results, strict=True):
                if not future.done():
                    future.set_result(result)
        self._task = None


@dataclasses.dataclass(frozen=True, eq=False)
class Version:
    """A model at one checkpoint."""

    name: str  # The step; "860.2" if a run was replaced by another with the same number of steps.
    trained: TrainedNetwork
    sha256: str  # The parameters' digest.
    compiled: Callable
    predictor: Predictor
    images: Gatherer[np.ndarray, np.ndarray]  # float32 [H, W, C] → probabilities [K].

    async def probabilities(self, images: Images) -> np.ndarray:
        """Each class's probability, [N, K], for float32 images [H, W, C] from 0 to 1.

        Raises HTTPException with 503 if too many wait.
        """
        futures = self.images.put(list(images))
        if len(futures) == 1:
            return (await futures[0])[None]
        return np.stack(await asyncio.gather(*futures))


class Model:
    """A run folder behind a name, with its newest version and the one before it."""

    def __init__(
        self,
        name: str,
        folder: str,
        thread: Executor,
        observe: Observe,
        sizes: Sequence[int],
        engine: str,
    ):
        """Loads and compiles the run, which may take some seconds.

        Raises:
          UserError: The folder holds no run, a damaged one, or no checkpoint yet.
        """
        self.name, self.folder, self.sizes = name, folder, sizes
        self._thread, self._observe, self._engine = thread, observe, engine
        self._seen = files_of(folder)
        self.version = self._load(None)
        self.earlier: Version | None = None

    @property
    def versions(self) -> list[Version]:
        """The previous version, if there is one, and the newest."""
        return [one for one in (self.earlier, self.version) if one is not None]

    def _load(self, before: Version | None) -> Version:
        """Reads the last checkpoint; programs that `before` has compiled are reused if they fit."""
        trained = load_network(self.folder)
        digest, name = params_sha256(trained.params), str(trained.step)
        compiled = None
        if before is not None:
            old = before.trained
            _check_same_form(old, trained)
            step, _, number = before.name.partition(".")
            if step == name and digest != before.sha256:
                name = f"{name}.{int(number or 1) + 1}"
            # Parameters are arguments, so that the same network needs no new program.
            if _program_of(old) == _program_of(trained):
                compiled = before.compiled
        compiled = compiled or compile_network(trained.config, trained.model)
        predictor = to_predictor(trained, compiled=compiled, engine=self._engine)
        for size in self.sizes:
            np.asarray(predictor.forward(np.zeros((size, *trained.image_shape), np.float32)))

        def work(images: Sequence[np.ndarray]) -> list[np.ndarray]:
            size = next(size for size in self.sizes if size >= len(images))
            batch = np.zeros((size, *trained.image_shape), np.float32)
            np.stack(images, out=batch[: len(images)])
            self._observe(self.name, len(images), size)
            return list(np.asarray(predictor.forward(batch)))[: len(images)]

        images = Gatherer(
            work, self._thread, batch=max(self.sizes), waiting=WAITING, full="too many images wait"
        )
        return Version(name, trained, digest, compiled, predictor, images)

    async def watch(self, loader: Executor, report: Callable[..., None]) -> None:
        """Loads each new checkpoint, for ever; waiting requests keep their version."""
        loop, reported = asyncio.get_running_loop(), ""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            found = await loop.run_in_executor(loader, files_of, self.folder)
            if found == self._seen:
                continue
            self._seen = found
            try:
                loaded = await loop.run_in_executor(loader, self._load, self.version)
            except Exception as error:
                known = message_and_status(error)
                message = known[0] if known else f"{type(error).__name__}: {error}"
                if str(message) != reported:
                    report(
                        "warning: {}: still serving {}: {}", self.name, self.version.name, message
                    )
                reported = str(message)
                continue
            reported = ""
            if loaded.sha256 == self.version.sha256:
                continue
            self.version, self.earlier = loaded, self.version
            report("{}: now serving version {}", self.name, loaded.name)


def _program_of(trained: TrainedNetwork) -> tuple:
    """The fields and shapes that determine the compiled network besides its parameters."""
    config, leaves = trained.config, jax.tree.leaves_with_path(trained.params)
    fields = ("model", "precision", *MODEL_FIELDS)
    shapes = [(path, leaf.shape, str(leaf.dtype)) for path, leaf in leaves]
    return [getattr(config, name) for name in fields], shapes


def _check_same_form(old: TrainedNetwork, new: TrainedNetwork) -> None:
    if old.image_shape != new.image_shape:
        raise UserError("expected images {}, the new run has {}", old.image_shape, new.image_shape)
    if old.class_names != new.class_names:
        raise UserError(
            "expected the classes {}, the new run has others", f"{old.class_names!r:.80}"
        )


def files_of(folder: str) -> list[tuple]:
    """The names, times, sizes and inodes of a run's files, which change with its checkpoints."""
    found = []
    for path in (Path(folder), Path(folder) / "checkpoints"):
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.endswith(("config.json", ".safetensors")):
                    info = entry.stat()
                    found.append((entry.name, info.st_mtime_ns, info.st_size, info.st_ino))
    return sorted(found)


def names_of(folders: Sequence[str]) -> list[str]:
    """A name for each run that is valid in an address: letters, digits, ".", "_" and "-".

    >>> names_of(["runs/cnn-1", "my runs/näive run/"])
    ['cnn-1', 'n-ive-run']
    >>> names_of(["a/run", "b/run"])
    ['run-A', 'run-B']
    """
    names = [re.sub(r"[^A-Za-z0-9_.-]", "-", Path(f).resolve().name) or "run" for f in folders]
    if len(set(names)) < len(names):
        names = [f"{name}-{arm}" for name, arm in zip(names, "AB", strict=False)]
    return names
