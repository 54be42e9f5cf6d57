"""What stands around all routes: headers, the count, names of the host, slow readers, bugs."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxnets.serving.server import limits
from jaxnets.serving.server.limits import RequestError, to_json
from jaxnets.serving.server.service import Service, report

PART = 1 << 16  # Bytes of an answer that wait for a slow reader.
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service, hosts: frozenset[str] | None):
        """Refuses requests to other hosts than `hosts`, unless that is None."""
        self.app, self.service, self.hosts = app, service, hosts

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
                error = RequestError(421, f"host: expected one of {', '.join(sorted(self.hosts))}")
                await _answer(guarded, error)
            else:
                await self.app(scope, receive, guarded)
        except TimeoutError:  # The client does not read its answer: uvicorn closes the connection.
            pass
        except Exception as error:  # A bug: one line here, and none of it there.
            report(f"error: {scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            if not status:
                await _answer(guarded, RequestError(500, "the server has a fault"))
        finally:
            endpoint = scope.get("endpoint")
            route = getattr(endpoint, "__name__", "none")
            metrics = self.service.metrics
            metrics.requests.labels(route, str(status)).inc()
            metrics.seconds.labels(route).observe(time.perf_counter() - begin)


def _host(scope: Scope) -> str:
    """The host that a request names, without its port."""
    for name, value in scope["headers"]:
        if name == b"host":
            text = value.decode("latin-1").lower()
            return text[: text.rindex("]") + 1] if "]" in text else text.partition(":")[0]
    return ""


async def _answer(send: Send, error: RequestError) -> None:
    body = to_json({"error": str(error)})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
