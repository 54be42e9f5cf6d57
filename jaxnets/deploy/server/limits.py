"""The limits of a request: bytes, seconds, memory. Beyond them the answer is one line and a 4xx."""

import asyncio
import json
from typing import Any

from jaxnets.display import one_line

MAX_BODY = 16 << 20  # Bytes of pictures; a phone's photo has up to 12 MB.
MAX_JSON = 4 << 20  # Bytes of JSON; Python's objects take up to 30 times as much.
MAX_BUFFERED = 128 << 20  # Bytes that all requests' bodies may take at a time.
SLOW = 20.0  # Seconds in which a request must have come, and a part of its answer must be taken.
MAX_MESSAGE = 300  # Characters of an error, which may quote the request.


JSON = "application/json"
CLOSE = {"Connection": "close"}  # Of an answer to a request that was not read to its end.
_encode = json.JSONEncoder(separators=(",", ":")).encode


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

    def release(self, count: int) -> None:
        self.used -= count


class Body:
    """Reads a request's body, and counts it as long as the request lasts."""

    def __init__(self, room: Room):
        self._room, self._taken = room, 0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_) -> None:
        self._room.release(self._taken)

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
    return RequestError(status, message, CLOSE)


def parse_json(text: bytes) -> dict[str, Any]:
    """An object of JSON; RequestError for anything else, NaN and lists that are too deep too."""
    if len(text) > MAX_JSON:
        raise RequestError(413, f"expected at most {MAX_JSON:,} bytes of JSON, got {len(text):,}")
    try:
        found = _decode(text.decode())
    except RecursionError:
        raise RequestError(400, "JSON: expected fewer brackets in each other") from None
    except ValueError as error:  # UnicodeDecodeError is one.
        raise RequestError(400, f"JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestError(400, f"JSON: expected an object, got a {type(found).__name__}")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"expected numbers, got {name}")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def to_json(value: Any) -> bytes:
    """JSON in ASCII: a class' name may hold anything."""
    return _encode(value).encode()
