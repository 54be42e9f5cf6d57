"""Middleware for all routes: headers, the count, names of the host, slow readers, bugs."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxnets.deploy.server import limits
from jaxnets.deploy.server.limits import CLOSE, JSON, RequestError, to_json
from jaxnets.deploy.server.service import Service, report

PART = 1 << 16  # Bytes of an answer that wait for a slow reader.
HOST = re.compile(r"(\[[^]]*\]|[^:[]*)(:\d*)?")  # A name or an address, and perhaps a port.
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


Endpoint = Callable[[Request], Awaitable[Response]]


class Guard:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        hosts: frozenset[str] | None,
        direct: Mapping[str, tuple[Endpoint, dict[str, str]]],
    ):
        """Refuses requests to other hosts than `hosts`, unless that is None.

        A POST to a path of `direct` goes to its endpoint with its path's parameters: to find it
        through the application takes as long as to answer it.
        """
        self.app, self.service, self.hosts, self.direct = app, service, hosts, direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        begin, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                await send(message)
                return
            body = message.get("body", b"")
            while len(body) > PART:
                async with asyncio.timeout(limits.SLOW):
                    await send({**message, "body": body[:PART], "more_body": True})
                body = body[PART:]
            await send({**message, "body": body})

        try:
            if self.hosts is not None and _host(scope) not in self.hosts:
                known = ", ".join(sorted(self.hosts))
                error = RequestError(421, f"host: expected one of {known}", CLOSE)
                await refuse(None, error)(scope, receive, guarded)
            elif scope["method"] == "POST" and scope["path"] in self.direct:
                endpoint, scope["path_params"] = self.direct[scope["path"]]
                scope["endpoint"] = endpoint
                try:
                    response = await endpoint(Request(scope, receive))
                except RequestError as error:
                    response = refuse(None, error)
                await response(scope, receive, guarded)
            else:
                await self.app(scope, receive, guarded)
        except TimeoutError:  # The client does not read its answer: uvicorn closes the connection.
            pass
        except Exception as error:  # A bug: one line here, and none of it there.
            report(f"error: {scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            if not status:
                error = RequestError(500, "the server has a fault", CLOSE)
                await refuse(None, error)(scope, receive, guarded)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self.service.metrics.saw_request(route, status, time.perf_counter() - begin)


def _host(scope: Scope) -> str:
    """The host that a request names, without its port."""
    for name, value in scope["headers"]:
        if name == b"host":
            found = HOST.fullmatch(value.decode("latin-1").lower())
            return found[1] if found else ""
    return ""


def refuse(request: Any, error: Any) -> Response:
    """The answer to a request that a RequestError refuses."""
    return Response(to_json({"error": str(error)}), error.status, error.headers, JSON)
