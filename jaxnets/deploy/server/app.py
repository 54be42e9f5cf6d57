"""The routes, their description, and what stands around all of them."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from jaxnets.deploy.server import limits, protocol
from jaxnets.deploy.server.limits import CLOSE, JSON, RequestError, to_json
from jaxnets.deploy.server.page import INDEX, Page
from jaxnets.deploy.server.service import Service, report, verify
from jaxnets.display import one_line
from jaxnets.version import __version__

MAX_KEY = 256  # Characters of a user's key.
MAX_PICTURES = 64  # Files in a request.
TOP = 5  # The number of classes that are named.
PART = 1 << 16  # Bytes of an answer that wait for a slow reader.
BYTES = "application/octet-stream"
FORM = "multipart/form-data"
UNSAID = ("", "application/x-www-form-urlencoded")  # curl's own, unless told: the content decides.
HOST = re.compile(r"(\[[^]]*\]|[^:[]*)(:\d*)?")  # A name or an address, and perhaps a port.
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
FAULT = RequestError(500, "the server has a fault", CLOSE)
# It warns of every form that is damaged; the answer says so.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(service: Service, hosts: frozenset[str] | None = None) -> "Guard":
    """The server's ASGI application; `hosts` are the only names that requests may be sent to."""
    app = FastAPI(
        title="jaxnets",
        version=__version__,
        lifespan=lambda _: service.running(),  # Which Ray begins and ends, not this server.
        openapi_url=None,  # Its route, below, adds what is read by hand.
        responses={
            "4XX": {"model": protocol.Error, "description": "The request is wrong."},
            503: {"model": protocol.Error, "description": "The server has enough to do."},
        },
        exception_handlers={RequestError: _refuse, HTTPException: _refuse_http, Exception: _admit},
    )
    page, form = Page(service), service.image_shape

    # Pictures and feedback. What is sent is read by hand: for its limits, its types, its speed.

    async def ask(request: Request, every: bool) -> list[dict[str, Any]]:
        key = request.headers.get("x-user")
        if key is not None and not 1 <= len(key) <= MAX_KEY:
            raise RequestError(400, f"x-user: expected 1 to {MAX_KEY} characters, got {len(key)}")
        top, media_type = _top(request), _media_type(request)
        most = limits.MAX_JSON if media_type == JSON else limits.MAX_BODY
        if media_type not in (JSON, FORM, BYTES, *UNSAID) and not media_type.startswith("image/"):
            raise _wrong_type(f"{JSON}, {FORM}, {BYTES} or image/...", media_type)
        async with service.room.body(request, most) as content:
            is_json = media_type in UNSAID and content.lstrip()[:1] == b"{"
            images: Any
            if media_type == JSON or is_json:
                images = protocol.read_pixels(content, form)
            else:
                is_form = media_type == FORM
                files = await _files(request, content) if is_form else [("picture", content)]
                images = [await service.prepare(content, name) for name, content in files]
            return await service.predict(images, key, top, every)

    pictures = _pictures([0] * math.prod(form))

    @app.post("/predict", response_model=protocol.Answer, openapi_extra=pictures)
    async def predict(request: Request) -> Response:
        """The user's model names the pictures."""
        (answer,) = await ask(request, every=False)
        return _json(answer)

    @app.post("/compare", response_model=protocol.Answers, openapi_extra=pictures)
    async def compare(request: Request) -> Response:
        """Each model names the pictures."""
        return _json({"answers": await ask(request, every=True)})

    @app.post("/feedback", response_model=dict[str, bool], openapi_extra=_body("Feedback"))
    async def feedback(request: Request) -> Response:
        """Was an answer right? It is saved."""
        if (media_type := _media_type(request)) != JSON:  # Another site's page may send others.
            raise _wrong_type(JSON, media_type)
        async with service.room.body(request, limits.MAX_JSON) as content:
            said = protocol.parse(protocol.Feedback, content)
        answer, correct, label = verify(service.log.key, said.answer), said.correct, said.label
        if label is not None and label not in service.class_names:
            raise RequestError(400, f"label: expected a class' name, got {label!r:.80}")
        if correct is None and label is None:
            raise RequestError(400, "expected correct, true or false, or label, the true class")
        if label is not None and correct not in (None, label == answer.prediction):
            raise RequestError(400, f"expected correct and label to agree on {answer.prediction!r}")
        if correct is None:
            correct = label == answer.prediction
        if correct and label is None:
            label = answer.prediction
        await service.save(answer, correct, label)
        return _json({"saved": True})

    # The Open Inference Protocol.

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """The server runs."""
        return {"live": True}

    @app.get("/v2/health/ready", responses={503: {"model": dict[str, bool]}})
    async def ready(response: Response) -> dict[str, bool]:
        """It takes requests; 503 if not."""
        response.status_code = 200 if service.ready else 503
        return {"ready": service.ready}

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        """The server's metadata."""
        return {"name": "jaxnets", "version": __version__, "extensions": ["binary_tensor_data"]}

    # Each of these is asked for a model, and for one of its versions.
    of_model = APIRouter()
    names = [model.name for model in service.models]
    blank = {"name": "images", "datatype": "UINT8", "shape": [1, *form]}
    example = {"inputs": [{**blank, "data": [0] * math.prod(form)}]}

    @of_model.get("", response_model=protocol.ModelMetadata)
    async def model(request: Request) -> Any:
        """A model's metadata."""
        found, _ = service.find(**request.path_params)
        count = len(service.class_names)
        return {
            "name": found.name,
            "versions": [version.name for version in found.versions],
            "platform": "jax",
            "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, *form]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, count]},
                {"name": "labels", "datatype": "BYTES", "shape": [-1]},
            ],
        }

    @of_model.get("/ready")
    async def model_ready(request: Request) -> dict[str, Any]:
        """A model can be asked."""
        found, version = service.find(**request.path_params)
        return {"name": found.name, "version": version.name, "ready": True}

    @of_model.post(
        "/infer",
        response_model=protocol.Inferred,
        responses={200: {"content": {BYTES: {"schema": {"type": "string"}}}}},
        openapi_extra=_body("Inference", example),
    )
    async def infer(request: Request) -> Response:
        """The probability of each class."""
        found, version = service.find(**request.path_params)
        length = request.headers.get(protocol.HEADER_LENGTH)
        most = limits.MAX_BODY if length else limits.MAX_JSON
        async with service.room.body(request, most) as content:
            images, asked = protocol.read_tensor(content, length, form)
            rows = await version.probabilities(images)
        named = {"model_name": found.name, "model_version": version.name}
        answer, head = protocol.render_inference(named, service.class_names, asked, rows)
        if head is None:
            return Response(answer, media_type=JSON)
        return Response(answer, headers={protocol.HEADER_LENGTH: str(head)}, media_type=BYTES)

    async def of_newest(name: Annotated[str, Path(json_schema_extra={"enum": names})]) -> None:
        """Describes the path's parameters; `Service.find` checks them."""

    async def of_version(version: Annotated[str, Path(examples=["1"])]) -> None:
        """The same."""

    either = Depends(of_newest)
    app.include_router(of_model, prefix="/v2/models/{name}", dependencies=[either])
    app.include_router(
        of_model,
        prefix="/v2/models/{name}/versions/{version}",
        dependencies=[either, Depends(of_version)],
    )

    # What is left.

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        numbers = service.metrics.text(service.models)
        return Response(numbers, headers={"Content-Type": service.metrics.content_type})

    @app.get("/openapi.json")
    async def openapi() -> dict[str, Any]:
        """This description."""
        return _described(app)

    @app.get("/", response_class=HTMLResponse)
    @app.get("/{stem}.{ending}", include_in_schema=False)
    async def page_file(request: Request) -> Response:
        """The page."""
        content, media_type = await page.file(request.url.path[1:] or INDEX)
        return Response(content, headers={"Content-Type": media_type, **page.headers})

    direct = {"/predict": (predict, {}), "/feedback": (feedback, {})}
    direct |= {f"/v2/models/{name}/infer": (infer, {"name": name}) for name in names}
    return Guard(app, service, hosts, direct)


def _body(name: str, example: Any = None) -> dict[str, Any]:
    """The description of a body that is read by hand."""
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    if example:
        content["example"] = example
    return {"requestBody": {"required": True, "content": {JSON: content}}}


def _pictures(blank: list[int]) -> dict[str, Any]:
    """The description of a request with pictures."""
    file = {"type": "string", "format": "binary"}
    files = {"type": "object", "additionalProperties": file, "minProperties": 1}
    described = _body("Pixels", {"image": blank})
    described["requestBody"]["content"] |= {BYTES: {"schema": file}, FORM: {"schema": files}}
    top = {"type": "integer", "minimum": 1, "maximum": 999_999, "default": TOP}
    key = {"type": "string", "minLength": 1, "maxLength": MAX_KEY}
    text = "The user's key; the same user is always answered by the same model."
    described["parameters"] = [
        {"name": "top", "in": "query", "schema": top, "description": "How many classes are named."},
        {"name": "X-User", "in": "header", "schema": key, "description": text},
    ]
    return described


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the models of the bodies that are read by hand."""
    if not (document := app.openapi_schema):
        document = app.openapi()
        models: Any = protocol.Pixels, protocol.Feedback, protocol.Inference
        _, found = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
        )
        document["components"]["schemas"] |= found["$defs"]
    return document


def _top(request: Request) -> int:
    if not request.scope["query_string"]:
        return TOP
    text = request.query_params.get("top", str(TOP))
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and int(text) > 0):
        raise RequestError(400, f"top: expected a number of classes, got {text!r:.80}")
    return int(text)


async def _files(request: Request, content: bytes) -> list[tuple[str, bytes]]:
    """The files of a form, whose other fields do not count."""

    async def stream():
        yield content

    parser = MultiPartParser(
        request.headers, stream(), max_files=MAX_PICTURES, max_fields=MAX_PICTURES
    )
    parser.spool_max_size = len(content)  # A part goes to no disk, which may be full.
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        raise RequestError(400, f"form: {error}") from None
    try:
        files = [(name, value) for name, value in form.multi_items() if not isinstance(value, str)]
        if not files:
            raise RequestError(400, 'form: expected files, as of curl -F "picture=@seven.png"')
        return [(value.filename or name, await value.read()) for name, value in files]
    finally:
        await form.close()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(wanted: str, got: str) -> RequestError:
    return RequestError(415, f"content-type: expected {wanted}, got {got!r:.80}", CLOSE)


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type=JSON)


async def _refuse(request: Request, error: Any) -> Response:
    return error.answer()


async def _admit(request: Request, error: Any) -> Response:
    return FAULT.answer()  # The guard reports it.


async def _refuse_http(request: Request, error: Any) -> Response:
    detail = error.detail
    if error.status_code == 404:
        paths = [path for path in _described(request.app)["paths"] if "{" not in path]
        detail = f"expected {', '.join(paths)} or /v2/models/NAME"
    elif allowed := (error.headers or {}).get("Allow"):
        detail = f"expected {', '.join(sorted(allowed.split(', ')))}"
    message = one_line(f"{request.method} {request.url.path:.80}: {detail}")
    return Response(to_json({"error": message}), error.status_code, error.headers, JSON)


class Guard:
    """The layer around all routes: headers, hosts, slow readers, faults, the count."""

    def __init__(
        self,
        app: FastAPI,
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
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0
        if scope["method"] == "HEAD":  # uvicorn sends no body then.
            scope = {**scope, "method": "GET"}
        endpoint, scope["path_params"] = self.direct.get(scope["path"], (None, {}))

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                stopping = () if self.service.ready else [(b"connection", b"close")]
                message["headers"] = [*message.get("headers", ()), *HEADERS, *stopping]
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
                await error.answer()(scope, receive, guarded)
            elif scope["method"] == "POST" and endpoint is not None:
                scope["endpoint"] = endpoint
                try:
                    response = await endpoint(Request(scope, receive))
                except RequestError as error:
                    response = error.answer()
                await response(scope, receive, guarded)
            else:
                await self.app(scope, receive, guarded)
        except TimeoutError:  # The client does not read its answer: uvicorn closes the connection.
            pass
        except Exception as error:  # A bug: one line here, and none of it there.
            report(
                "error: {} {}: {}: {}", scope["method"], scope["path"], type(error).__name__, error
            )
            if not status:
                await FAULT.answer()(scope, receive, guarded)
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
