"""The service behind the routes: models, users' assignment to them, pictures, feedback, numbers."""

import asyncio
import contextlib
import dataclasses
import hashlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import HTTPException
from itsdangerous import BadData, URLSafeSerializer
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from jaxnets.base.display import one_line, printable
from jaxnets.base.errors import UserError
from jaxnets.base.language import _
from jaxnets.data.pictures.decode import BadPictureError, read_picture
from jaxnets.machine.platform import return_freed_memory
from jaxnets.predict.predict import best_classes
from jaxnets.server.feedback import FeedbackLog, FeedbackRow
from jaxnets.server.models import SIZES, Gatherer, Images, Model, Version, names_of
from jaxnets.server.protocol import Answer
from jaxnets.training.pixels import to_float

ARMS = "AB"
DECODERS = 2  # Threads that decode and prepare pictures.
MAX_FEEDBACK = 10_000  # Rows that may wait for the disk.
ROWS = 1000  # In one transaction.
# After a picture of this many pixels, glibc returns memory, in 1 to 10 ms. Otherwise it keeps 0.9
# GB.
LARGE = 4_000_000
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Made = TypeVar("Made", Counter, Gauge, Histogram)


class ServerMetrics:
    """The metrics of one server, which Prometheus reads under /metrics."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, sizes: tuple[int, ...]):
        """Starts with zeros, in its own registry; `sizes` are the compiled batch sizes."""
        disable_created_metrics()  # The time at which each number began.
        self._registry = CollectorRegistry()

        def make(kind: type[Made], name: str, text: str, *labels: str, **more: Any) -> Made:
            return kind(f"jaxnets_{name}", text, labels, registry=self._registry, **more)

        text = "Seconds from a request's head to its answer"
        self.requests = make(Counter, "requests", "Answered requests", "route", "status")
        self.seconds = make(Histogram, "request_seconds", text, "route", buckets=SECONDS)
        self.images = make(Counter, "images", "Images that a network received", "model")
        self.batch = make(Histogram, "batch_images", "Images in a batch", "model", buckets=sizes)
        self.padding = make(Counter, "padding_images", "Empty places in batches", "model")
        self.waiting = make(Gauge, "waiting_images", "Images waiting now", "model")
        self.version = make(Gauge, "model_info", "1 for the version served now", "model", "version")
        self.feedback = make(Counter, "feedback", "Saved feedback", "arm", "correct")

    def saw_request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request; 0 is the status of one that was not answered."""
        self.requests.labels(route, status).inc()
        self.seconds.labels(route).observe(seconds)

    def saw_batch(self, model: str, images: int, size: int) -> None:
        """Counts a batch of images, padded to a size."""
        self.images.labels(model).inc(images)
        self.batch.labels(model).observe(images)
        self.padding.labels(model).inc(size - images)

    def text(self, models: Sequence[Model]) -> bytes:
        """All numbers in Prometheus' format."""
        self.version.clear()  # Removes old versions.
        for model in models:
            for version in model.versions:
                served = int(version is model.version)
                self.version.labels(model.name, version.name).set(served)
        return generate_latest(self._registry)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A split of the users between the arms A and B, the same after every restart."""

    models: tuple[str, ...]  # One name, or the two arms' names.
    share: float  # The share of the users who get A, from 0 to 1.

    def user(self, key: str) -> str:
        """The hash of a user's key, in this experiment: 32 hexadecimal digits.

        Another pair of models divides the users anew.
        """
        text = "\0".join([*self.models, key])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def arm(self, user: str) -> int:
        """The number of the user's model: 0 for A, 1 for B."""
        return int(len(self.models) > 1 and int(user[:13], 16) >= self.share * 16**13)


@dataclasses.dataclass(frozen=True)
class Ticket:
    """The identity of an answer to a picture; the client sends it back with feedback."""

    request: str
    user: str
    model: str
    version: str
    arm: str
    prediction: str


def sign(key: bytes, ticket: Ticket) -> str:
    """The ticket as a text that only the owner of the key can make."""
    return _serializer(key).dumps(list(vars(ticket).values()))  # type: ignore (bytes for base64)


def verify(key: bytes, text: str) -> Ticket:
    """The ticket of a text that `sign` made; HTTPException for any other text."""
    try:
        return Ticket(*_serializer(key).loads(text))
    except (BadData, UnicodeError):
        error = "answer: expected the text of an answer of this server"
        raise HTTPException(400, error) from None


def _serializer(key: bytes) -> URLSafeSerializer:
    return URLSafeSerializer(key, signer_kwargs={"digest_method": hashlib.sha256})


class Service:
    """One or two models behind names, and the log of their feedback."""

    def __init__(
        self,
        folders: Sequence[str],
        share: float,
        log: str | Path,
        sizes: Sequence[int] = SIZES,
        engine: str = "jax",
    ):
        """Loads the runs and compiles them, then opens the log.

        Raises:
          UserError: A run cannot be served, the two have other images or classes, or the log cannot
            be written.
        """
        self.metrics = ServerMetrics(tuple(sizes))
        names = names_of(folders)
        self._network = ThreadPoolExecutor(1, "network")
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self._loader = ThreadPoolExecutor(1, "loader")
        self._disk = ThreadPoolExecutor(1, "disk")
        self.models = [
            Model(name, folder, self._network, self.metrics.saw_batch, sizes, engine)
            for name, folder in zip(names, folders, strict=True)
        ]
        a, b = self.models[0].version.trained, self.models[-1].version.trained
        if (a.image_shape, a.class_names) != (b.image_shape, b.class_names):
            raise UserError(
                "expected two runs on the same images and classes, got {} with {} classes "
                "and {} with {}",
                a.image_shape,
                len(a.class_names),
                b.image_shape,
                len(b.class_names),
            )
        self.image_shape = a.image_shape  # A new version has the same, and the same classes.
        self.class_names = [printable(name) for name in a.class_names]
        self.assignment = Assignment(tuple(names), share)
        self.log = FeedbackLog(log)
        self._rows = Gatherer(
            self.log.append,
            self._disk,
            batch=ROWS,
            waiting=MAX_FEEDBACK,
            full="too much feedback waits",
        )
        for model in self.models:
            self.metrics.waiting.labels(model.name).set_function(
                lambda model=model: len(model.version.images)
            )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watches for new checkpoints; at the end, empties the queues and closes the log."""
        watchers = [
            asyncio.create_task(model.watch(self._loader, log_line)) for model in self.models
        ]
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            for pool in (self._loader, self._decoders, self._network, self._disk):
                pool.shutdown()
            self.log.close()

    def find(self, name: str, version: str | None = None) -> tuple[Model, Version]:
        """A model and its version by name; HTTPException with 404 if there is none."""
        for model in self.models:
            if model.name == name:
                for found in reversed(model.versions):
                    if version in (None, found.name):
                        return model, found
                now = model.version.name
                raise HTTPException(404, f"{name}: expected version {now}, got {version!r:.80}")
        known = ", ".join(model.name for model in self.models)
        raise HTTPException(404, f"model: expected {known}, got {name!r:.80}")

    async def prepare(self, content: bytes, name: str) -> np.ndarray:
        """A picture's file as the network's image, [H, W, C] float32.

        Raises HTTPException with 400 if it is not a picture, or not one that the run reads.
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
            raise HTTPException(400, f"{name}: {hint}") from None
        except UserError as error:
            raise HTTPException(400, f"{name}: {error}") from None
        except MemoryError:
            raise HTTPException(413, f"{name}: not enough memory to decode it") from None

    async def predict(self, images: Images, key: str | None, top: int, every: bool) -> list[Answer]:
        """The answers of the user's model for images, or those of every model.

        Without a key, each request counts as a new user.
        """
        user = self.assignment.user(secrets.token_hex(16) if key is None else key)
        requests = [secrets.token_hex(12) for _ in images]

        async def answer(arm: int) -> Answer:
            model, version = self.models[arm], self.models[arm].version
            named = {"model": model.name, "version": version.name, "arm": ARMS[arm]}
            pictures = []
            rows = await version.probabilities(images)
            for request, row in zip(requests, rows, strict=True):
                best = best_classes(row, self.class_names, top)
                ticket = Ticket(request, user, **named, prediction=best[0]["label"])
                pictures.append({"predictions": best, "answer": sign(self.log.key, ticket)})
            return Answer.model_validate({**named, "pictures": pictures})

        if not every:
            return [await answer(self.assignment.arm(user))]
        return await asyncio.gather(*map(answer, range(len(self.models))))

    async def save(self, ticket: Ticket, correct: bool, label: str | None) -> None:
        """Saves feedback; it is on the disk when this returns.

        HTTPException: The answer already has different feedback, or it cannot be saved now.
        """
        row = FeedbackRow(time=time.time(), label=label, correct=correct, **vars(ticket))
        try:
            (saved,) = self._rows.put([row])
            is_in = await saved
        except OSError as error:
            log_line("error: {}", error)
            raise HTTPException(503, "the feedback could not be saved") from None
        if not is_in:
            raise HTTPException(409, "answer: it already has different feedback")
        self.metrics.feedback.labels(ticket.arm, str(correct).lower()).inc()


def log_line(text: str, *values: object) -> None:
    """Prints a line in the locale's language on stderr, which may be closed."""
    with contextlib.suppress(OSError, ValueError):
        print(one_line(_(text, *values)), file=sys.stderr, flush=True)
