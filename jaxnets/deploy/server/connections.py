"""uvicorn's connections with limits that it lacks: on request heads, idle time and number.

A head that comes slowly, is endless or never ends is cut off. Beyond the most connections the
longest idle one makes room: one that waits for a request, the rest of one, or its answer's reader.
On shutdown a request is still answered if the system accepted its connection.
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
KEEP_ALIVE = 60  # Seconds that a connection may be idle between two requests.
GRACE = 0.3  # Seconds after the order to stop in which a request may still come.


class Connections:
    """All connections of a server: when each became idle, the longest first."""

    def __init__(self, most: int = MAX_CONNECTIONS):
        self.most = most
        self.idle: dict[Connection, float] = {}
        self.closing: dict[Connection, float] = {}
        self.stopping = False

    async def sweep(self) -> None:
        """Closes connections that idle, send a head or end too slowly; it never returns."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1)
            now = loop.time()
            for connection, since in list(self.idle.items()):
                if now - since > connection.patience:
                    connection.close()
            for connection, since in list(self.closing.items()):
                if now - since > limits.SLOW:
                    connection.transport.abort()


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, group: Connections, **arguments: Any):
        """As uvicorn makes it, in a group."""
        super().__init__(**arguments)
        self._group, self._head = group, 0

    @property
    def is_answering(self) -> bool:
        """Whether the head of a request has come, and not all of its answer is written."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def patience(self) -> float:
        """Seconds that the connection may be idle."""
        if self.is_answering:  # The body and the answer have clocks of their own.
            return math.inf
        return limits.SLOW if self.cycle is None or self._head else KEEP_ALIVE

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._group.most:
            oldest = next(iter(self._group.idle), None)
            if oldest is None:
                self._refuse(503, "too many connections: try again")
                return
            oldest.transport.abort()
            self._group.idle.pop(oldest)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._group.idle.pop(self, None)
        self._group.closing.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, f"expected at most {MAX_HEAD:,} bytes of headers")
        elif self.is_answering and self.cycle.more_body:
            self._wait()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = 0
        self._group.idle.pop(self, None)
        if self._group.stopping:
            self.cycle.keep_alive = False
        if len(self.pipeline) > MAX_PIPELINE:
            raise ValueError("too many requests at a time")  # The parser stops: 400.

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        if self.is_answering:
            self._group.idle.pop(self, None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._wait()
        super().pause_writing()

    def resume_writing(self) -> None:
        if self.is_answering:
            self._group.idle.pop(self, None)
        super().resume_writing()

    def _wait(self) -> None:
        """From now on the connection is idle."""
        self._group.idle.pop(self, None)
        self._group.idle[self] = self.loop.time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._group.closing[self] = self.loop.time()
        elif self.cycle.response_complete:
            self._wait()

    def close(self) -> None:
        """Closes the connection when what was written is sent."""
        self._group.idle.pop(self, None)
        self._group.closing[self] = self.loop.time()
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """The group has its own clock."""

    def shutdown(self) -> None:
        """Closes the connection after the answer to a request that is here or comes soon."""
        if self.is_answering:
            self.cycle.keep_alive = False
        else:  # Twice soon: what has come by then is read before.
            soon = self.loop.call_soon
            self.loop.call_later(GRACE, lambda: soon(lambda: soon(self._close_if_idle)))

    def _close_if_idle(self) -> None:
        if self in self._group.idle and not self.is_answering:
            self.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "expected a request of HTTP/1.1")

    def _refuse(self, status: int, message: str) -> None:
        if self.is_answering:
            self.transport.abort()  # An answer to another request may be half sent.
            return
        body = to_json({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.close()


class StoppableServer(Server):
    """uvicorn's server, which a signal stops gracefully and a second one at once."""

    def __init__(self, config: Config, group: Connections, on_stop: Callable[[], None]):
        """A server that is not started yet; calls `on_stop` when it is ordered to stop."""
        super().__init__(config)
        self.group, self._on_stop = group, on_stop
        self.signal = 0  # The one that stopped it.

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Lets the loop handle SIGINT and SIGTERM, and SIGHUP where there is one."""
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        numbers = [getattr(signal, name) for name in names]
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            if before[number] is not signal.SIG_IGN:  # As in a shell's background, or by nohup.
                signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening, and takes over what the system accepted: it would reset that."""
        loop, accepted = asyncio.get_running_loop(), []
        for known in list(self.server_state.connections):  # Those are told before it is closed.
            known.shutdown()
        for listener in sockets or ():
            listener.setblocking(False)
            with contextlib.suppress(OSError):  # BlockingIOError: there is no further one.
                while True:
                    accepted.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for connection in accepted:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._connection, connection)
        await super().shutdown(sockets)

    def _connection(self) -> Connection:
        return Connection(
            self.group, config=self.config, server_state=self.server_state, app_state={}
        )

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit, self.group.stopping = True, True
        self._on_stop()
        self.signal = self.signal or sig
