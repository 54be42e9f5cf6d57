"""What a request may take: bytes, seconds, memory. Beyond it the answer is one line and a 4xx."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.display import one_line

MAX_BODY = 16 << 20  # Bytes of pictures; a phone's photo has up to 12 MB.
MAX_JSON = 4 << 20  # Bytes of JSON; Python's objects take up to 30 times as much.
MAX_BUFFERED = 128 << 20  # Bytes that all requests' bodies may take at a time.
MAX_IMAGES = 1024  # In a request.
SLOW = 20.0  # Seconds in which a request must have come, and a part of its answer must be taken.
MAX_MESSAGE = 300  # Characters of an error, which may quote the request.
MAX_DEPTH = 4  # Of the lists around numbers: [N, H, W, C].


class RequestError(Exception):
    """A request that is refused: the status, and why in one line."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(one_line(message)[:MAX_MESSAGE])
        self.status, self.headers = status, headers or {}


def busy(what: str) -> RequestError:
    """The server has as much to do as it may; 503 is what clients and proxies try again after."""
    return RequestError(503, f"{what}: try again", {"Retry-After": "1"})


class Room:
    """The memory that all bodies share."""

    def __init__(self, most: int = MAX_BUFFERED):
        self.most, self.used = most, 0

    def take(self, count: int) -> None:
        """Takes bytes; RequestError if too many are in use."""
        if self.used + count > self.most:
            raise busy("too many bodies at a time")
        self.used += count

    def give_back(self, count: int) -> None:
        self.used -= count


class Body:
    """Reads a request's body, and counts it as long as the request lasts."""

    def __init__(self, room: Room):
        self._room, self._taken = room, 0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_) -> None:
        self._room.give_back(self._taken)

    async def read(self, request: Any, most: int, seconds: float = SLOW) -> bytes:
        """All bytes of a body.

        Raises:
          RequestError: They are more than `most`, are compressed, or take longer than `seconds`.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise _refused(415, "content-encoding: expected none")
        declared = request.headers.get("content-length", "0")
        too_many = f"expected at most {most:,} bytes"
        if not declared.isdecimal() or len(declared) > 15:
            raise _refused(400, "content-length: expected a number")
        parts, length = [], 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise _refused(400, "the client went away")
                    part = message.get("body", b"")
                    length += len(part)
                    # What is too much is read a little further, and dropped: a client that still
                    # sends would not see the answer.
                    if length > 4 * most or int(declared) > 4 * most:
                        raise _refused(413, f"{too_many}, got {max(length, int(declared)):,}")
                    if length <= most:
                        self._room.take(len(part))
                        self._taken += len(part)
                        parts.append(part)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise _refused(408, f"expected the body within {seconds:g} seconds") from None
        if length > most:
            raise _refused(413, f"{too_many}, got {length:,}")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _refused(status: int, message: str) -> RequestError:
    """A body that was not read to its end: the connection cannot be used again."""
    return RequestError(status, message, {"Connection": "close"})


def parse_json(text: bytes) -> dict[str, Any]:
    """An object of JSON; RequestError for anything else, NaN and lists that are too deep too."""
    if len(text) > MAX_JSON:
        raise RequestError(413, f"expected at most {MAX_JSON:,} bytes of JSON, got {len(text):,}")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise RequestError(400, "JSON: expected fewer brackets in each other") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(400, f"JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestError(400, f"JSON: expected an object, got a {type(found).__name__}")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"expected numbers, got {name}")


def to_json(value: Any) -> bytes:
    """JSON in ASCII: a class' name may hold anything."""
    return json.dumps(value, separators=(",", ":")).encode()


def to_numbers(name: str, data: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """The numbers of a list, which may hold lists of one length, as float64 [...], and its shape.

    NumPy alone would take "1" and true for 1, and a long text for an array of as long ones.
    """
    shape: list[int] = []
    values: Sequence[Any] = [data]
    while values and all(type(row) is list for row in values):
        lengths = set(map(len, values))
        if len(lengths) != 1 or len(shape) == MAX_DEPTH:
            raise RequestError(400, f"{name}: expected lists of one length, at most {MAX_DEPTH} in")
        shape += lengths
        values = list(itertools.chain.from_iterable(values))
    if not shape or not set(map(type, values)) <= {int, float}:
        raise RequestError(400, f"{name}: expected a list of numbers")
    try:
        return np.array(values, np.float64), tuple(shape)
    except OverflowError:
        raise RequestError(400, f"{name}: expected smaller numbers") from None


def to_images(
    name: str, values: np.ndarray, shape: Sequence[int], form: tuple[int, int, int], largest: float
) -> np.ndarray:
    """Images [N, H, W, C] float32 from 0 to 1.

    Args:
      name: Of the values, for an error.
      values: Pixels from 0 to `largest`, in any shape.
      shape: [N, H, W, C], [N, H W C] or, with one channel, [N, H, W].
      form: The network's (H, W, C).
      largest: The number that stands for white.

    Raises:
      RequestError: The shape is another, or a pixel is out of range or no number.
    """
    height, width, channels = form
    size = height * width * channels
    right = [list(form), [size]] + [[height, width]] * (channels == 1)
    if not shape or list(shape[1:]) not in right:
        wanted = f"[N, {height}, {width}, {channels}] or [N, {size}]"
        raise RequestError(400, f"{name}: expected the shape {wanted}, got {list(shape)!r:.80}")
    if not 1 <= shape[0] <= MAX_IMAGES:
        raise RequestError(400, f"{name}: expected 1 to {MAX_IMAGES:,} images, got {shape[0]:,}")
    if values.size != shape[0] * size:
        wanted = f"{shape[0] * size:,} numbers for the shape {list(shape)}"
        raise RequestError(400, f"{name}: expected {wanted}, got {values.size:,}")
    if not (values.min() >= 0 and values.max() <= largest):  # NaN is neither.
        raise RequestError(400, f"{name}: expected pixels from 0 to {largest:g}, got others")
    images = values.reshape(-1, *form)
    return (images if largest == 1 else images / largest).astype(np.float32)
