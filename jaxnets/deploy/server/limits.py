"""The limits of a request: bytes, seconds, memory. Beyond them the answer is one line and a 4xx."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

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
        self.status, self.headers = status, headers

    def answer(self) -> Response:
        """The answer to the request."""
        return Response(to_json({"error": str(self)}), self.status, self.headers, JSON)


def busy(what: str) -> RequestError:
    """The server has as much to do as it may; 503 is what clients and proxies try again after."""
    return RequestError(503, f"{what}: try again", {"Retry-After": "1"})


class Room:
    """The memory that all bodies share."""

    def __init__(self, most: int = MAX_BUFFERED):
        self.most, self.used = most, 0

    @contextlib.asynccontextmanager
    async def body(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """All bytes of a request's body, which take room until the block ends.

        Raises:
          RequestError: They are more than `most` or than there is room for, are compressed, or take
            longer than SLOW seconds.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError(415, "content-encoding: expected none", CLOSE)
        declared = int(request.headers.get("content-length", 0))  # The parser let digits through.
        too_many = f"expected at most {most:,} bytes, got "
        parts, length, taken, more = [], 0, 0, True
        try:
            try:
                async with asyncio.timeout(SLOW):
                    while more:
                        message = await request.receive()
                        if message["type"] == "http.disconnect":
                            raise RequestError(400, "the client went away", CLOSE)
                        part, more = message.get("body", b""), message.get("more_body", False)
                        length += len(part)
                        # What is too much is read a little further, and dropped: a client that
                        # still sends would not see the answer.
                        if max(length, declared) > 4 * most:
                            raise RequestError(413, f"{too_many}{max(length, declared):,}", CLOSE)
                        if length <= most:
                            if self.used + len(part) > self.most:
                                raise busy("too many bodies at a time")
                            self.used += len(part)
                            taken += len(part)
                            parts.append(part)
            except TimeoutError:
                late = f"expected the body within {SLOW:g} seconds"
                raise RequestError(408, late, CLOSE) from None
            if length > most:
                raise RequestError(413, f"{too_many}{length:,}", CLOSE)
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self.used -= taken


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
