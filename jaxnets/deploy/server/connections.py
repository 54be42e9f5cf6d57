"""uvicorn's connections with limits that it lacks: on request heads, waiting time and number.

A head that comes slowly, is endless or never ends is cut off. Beyond the most connections the one
makes room that has waited longest for its client: for a request, the rest of one, or a reader. On
shutdown a request is still answered if the system accepted its connection.
"""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import Server

from jaxnets.deploy.server import limits
from jaxnets.deploy.server.limits import to_json

MAX_CONNECTIONS = 500
MAX_HEAD = 1 << 16  # Bytes of a request's line and headers.
MAX_PIPELINE = 16  # Requests of a connection that wait for the answer to an earlier one.
GRACE = 0.3  # Seconds after the order to stop in which a request may still come.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextlib.contextmanager
def stopped_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Gives the orders to stop a handler within the block."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, other in before.items():
        if other is not signal.SIG_IGN:  # As in a shell's background, or by nohup.
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


class Connection(HttpToolsProtocol):
    """One connection."""

    since = math.inf  # When it began to wait for its client; never while the server works.
    _head = 0  # Bytes of a head that has not ended.

    @property
    def is_answering(self) -> bool:
        """Whether the head of a request has come, and not all of its answer is written."""
        return self.cycle is not None and not self.cycle.response_complete

    def is_late(self, now: float) -> bool:
        """Whether a head, or the reader of an answer's end, has had its time.

        The body and the answer have clocks of their own, and so has a connection between requests.
        """
        waits = self.transport.is_closing() or self._head or self.cycle is None
        return bool(waits) and now - self.since > limits.SLOW

    def _wait(self) -> None:
        self.since = self.loop.time()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            oldest: Any = min(self.connections, key=lambda one: one.since)  # type: ignore
            if oldest.since == math.inf:
                self._refuse(503, "too many connections: try again")
            else:
                oldest.transport.abort()
                oldest.since = math.inf  # It is the oldest no more.
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not (self._head or self.is_answering):  # A head begins.
            self._wait()
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, f"expected at most {MAX_HEAD:,} bytes of headers")
        elif self.is_answering and self.cycle.more_body:
            self._wait()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head, self.since = 0, math.inf
        if len(self.pipeline) > MAX_PIPELINE:
            raise ValueError("too many requests at a time")  # The parser stops: 400.

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        if self.is_answering:
            self.since = math.inf
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._wait()
        super().pause_writing()

    def resume_writing(self) -> None:
        if self.is_answering:
            self.since = math.inf
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # Else an answer to the next request has begun.
            self._wait()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "expected a request of HTTP/1.1")

    def _refuse(self, status: int, message: str) -> None:
        waits = self.is_answering and self.cycle.more_body and not self.cycle.response_started
        if self.is_answering and (self.pipeline or not waits):
            self.transport.abort()  # An answer to another request may be half sent.
            return
        body = to_json({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()


class StoppableServer(Server):
    """uvicorn's server, which a signal stops gracefully and a second one at once."""

    signal = 0  # The one that stopped it.

    def __init__(self, config: Config, on_start: Callable[[], None], on_stop: Callable[[], None]):
        """Calls `on_start` when it listens, and `on_stop` when it is ordered to stop."""
        super().__init__(config)
        self._on_start, self._on_stop = on_start, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Cuts off who is late, ten times a second."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if connection.is_late(now):  # type: ignore
                connection.transport.abort()
        return await super().on_tick(counter)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        """Takes the signals, which uvicorn would raise again at the end."""
        return stopped_by(self.handle_exit)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._on_stop()
        self.signal = self.signal or sig

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers what comes soon by connections that the system accepted: it would reset them."""
        loop, accepted = asyncio.get_running_loop(), []
        for listener in sockets or ():
            listener.setblocking(False)
            with contextlib.suppress(OSError):  # BlockingIOError: there is no further one.
                while True:
                    accepted.append(listener.accept()[0])
        for listener in [*self.servers, *(sockets or ())]:
            listener.close()
        for connection in accepted:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._connection, connection)
        if not self.force_exit:
            await asyncio.sleep(GRACE)
            for _ in range(2):  # What came during a long step is read before they are closed.
                await asyncio.sleep(0)
        await super().shutdown(sockets)

    def _connection(self) -> Connection:
        return Connection(config=self.config, server_state=self.server_state, app_state={})
