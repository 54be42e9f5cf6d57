"""The service behind the routes: models, users' assignment to them, pictures, feedback."""

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data.pictures.decode import BadPictureError, read_picture
from jaxnets.deploy.server.assignment import Answer, Assignment, sign
from jaxnets.deploy.server.batching import FullError, Gatherer
from jaxnets.deploy.server.feedback import Feedback, FeedbackLog
from jaxnets.deploy.server.limits import RequestError, Room, busy
from jaxnets.deploy.server.metrics import Metrics
from jaxnets.deploy.server.models import SIZES, Images, Model, Version, names_of
from jaxnets.display import one_line, printable
from jaxnets.errors import UserError
from jaxnets.machine.platform import return_freed_memory
from jaxnets.training.step import to_float

ARMS = "AB"
DECODERS = 2  # Threads that decode and prepare pictures.
MAX_FEEDBACK = 10_000  # Rows that wait for the disk.
ROWS = 1000  # In one transaction.
# Pixels of a picture after which glibc gives memory back, in 1 to 10 ms. Else it keeps 0.9 GB.
LARGE = 4_000_000


class Service:
    """One or two models behind names, and the log of their feedback."""

    def __init__(
        self, folders: Sequence[str], share: float, log: Path, sizes: Sequence[int] = SIZES
    ):
        """Loads the runs and compiles them, then opens the log.

        Raises:
          UserError: A run cannot be served, the two have other images or classes, or the log cannot
            be written.
        """
        self.metrics, self.room = Metrics(tuple(sizes)), Room()
        names = names_of(folders)
        self._network = ThreadPoolExecutor(1, "network")
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self._loader = ThreadPoolExecutor(1, "loader")
        self._disk = ThreadPoolExecutor(1, "disk")
        self.models = [
            Model(name, folder, self._network, self.metrics.saw_batch, sizes)
            for name, folder in zip(names, folders, strict=True)
        ]
        a, b = self.models[0].version.trained, self.models[-1].version.trained
        if (a.image_shape, a.class_names) != (b.image_shape, b.class_names):
            raise UserError(
                f"expected two runs on the same images and classes, got {a.image_shape} with "
                f"{len(a.class_names)} classes and {b.image_shape} with {len(b.class_names)}"
            )
        self.assignment = Assignment(tuple(names), share)
        self.log = FeedbackLog(log)
        self._rows = Gatherer(self.log.append, self._disk, batch=ROWS, waiting=MAX_FEEDBACK)
        self.ready = True
        for model in self.models:
            self.metrics.waiting.labels(model.name).set_function(
                lambda model=model: len(model.version.images)
            )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks for new checkpoints meanwhile; afterwards nothing waits and the log is closed."""
        watchers = [asyncio.create_task(model.watch(self._loader, report)) for model in self.models]
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            for pool in (self._loader, self._decoders, self._network, self._disk):
                pool.shutdown()
            self.log.close()

    def stop(self) -> None:
        """Marks the server as not ready, so that no further requests are sent to it."""
        self.ready = False

    def find(self, name: str, version: str | None = None) -> tuple[Model, Version]:
        """A model and its version by name; RequestError with 404 if there is none."""
        for model in self.models:
            if model.name == name:
                if found := model.find(version):
                    return model, found
                now = model.version.name
                raise RequestError(404, f"{name}: expected version {now}, got {version!r:.80}")
        known = ", ".join(model.name for model in self.models)
        raise RequestError(404, f"model: expected {known}, got {name!r:.80}")

    async def probabilities(self, version: Version, images: Images) -> np.ndarray:
        """Each class' probability, [N, K]; RequestError with 503 if too much waits."""
        try:
            return await version.probabilities(images)
        except FullError:
            raise busy("too many images wait") from None

    async def prepare(self, content: bytes, name: str) -> np.ndarray:
        """A picture's file as the network's image, [H, W, C] float32.

        RequestError with 400 if it is no picture, or not what the run reads.
        """
        predictor = self.models[0].version.predictor

        def work() -> np.ndarray:
            picture = read_picture(content, predictor.decode_size)
            is_large = picture.width * picture.height > LARGE
            try:
                return to_float(predictor.prepare(picture))
            finally:
                del picture
                if is_large:
                    return_freed_memory()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._decoders, work)
        except BadPictureError as error:
            hint = str(error).partition(": prepare")[0]  # It is of `jaxnets predict`.
            raise RequestError(400, f"{name}: {hint}") from None
        except UserError as error:
            raise RequestError(400, f"{name}: {error}") from None
        except MemoryError:
            raise RequestError(413, f"{name}: not enough memory to decode it") from None

    async def predict(
        self, images: Images, key: str | None, top: int, every: bool
    ) -> list[dict[str, Any]]:
        """The answers of the user's model for images, or those of every model.

        Without a key each request is a user of its own.
        """
        user = self.assignment.user(secrets.token_hex(16) if key is None else key)
        arms = range(len(self.models)) if every else [self.assignment.arm(user)]
        requests = [secrets.token_hex(12) for _ in images]
        versions = [(arm, self.models[arm], self.models[arm].version) for arm in arms]
        tasks = [self.probabilities(version, images) for _, _, version in versions]
        found = [await tasks[0]] if len(tasks) == 1 else await asyncio.gather(*tasks)
        answers = []
        for (arm, model, version), rows in zip(versions, found, strict=True):
            named = {"model": model.name, "version": version.name, "arm": ARMS[arm]}
            pictures = [
                self._picture(request, user, named, row, version.trained.class_names, top)
                for request, row in zip(requests, rows, strict=True)
            ]
            answers.append({**named, "pictures": pictures})
        return answers

    def _picture(
        self,
        request: str,
        user: str,
        named: dict[str, str],
        row: np.ndarray,
        labels: tuple[str, ...],
        top: int,
    ) -> dict[str, Any]:
        """A picture's best classes, and the answer's name for its feedback."""
        values = row.tolist()
        order = np.argsort(-row, kind="stable")[:top].tolist()
        best = [{"label": labels[k], "probability": values[k]} for k in order]
        answer = Answer(request, user, **named, prediction=labels[order[0]])
        return {"predictions": best, "answer": sign(self.log.key, answer)}

    async def save(self, answer: Answer, correct: bool, label: str | None) -> None:
        """Saves a feedback; when this returns it is on the disk.

        RequestError: Another feedback for the answer came first, or it cannot be saved now.
        """
        row = Feedback(time=time.time(), label=label, correct=correct, **vars(answer))
        # A class' name may be no Unicode, which would fail the rows of others too.
        row = row._replace(prediction=printable(row.prediction), label=label and printable(label))
        try:
            (saved,) = self._rows.put([row])
            is_in = await saved
        except FullError:
            raise busy("too much feedback waits") from None
        except OSError as error:
            report(f"error: {error}")
            raise RequestError(503, "the feedback could not be saved") from None
        if not is_in:
            raise RequestError(409, "answer: another feedback for it came first")
        self.metrics.feedback.labels(answer.arm, str(correct).lower()).inc()


def report(line: str) -> None:
    """Prints a line on stderr, which may be closed."""
    with contextlib.suppress(OSError, ValueError):
        print(one_line(line), file=sys.stderr, flush=True)
