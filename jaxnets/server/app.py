"""The server's routes, which FastAPI checks and describes."""

import math
import reprlib
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxnets.base.display import one_line
from jaxnets.base.version import __version__
from jaxnets.server import protocol
from jaxnets.server.models import Model, Version
from jaxnets.server.page import INDEX, Page
from jaxnets.server.service import ServerMetrics, Service, log_line, verify

MAX_BODY = 16 << 20  # Bytes of a body; a phone's photo has up to 12 MB.
MAX_KEY = 256  # Characters of a user's key.
MAX_PICTURES = 64  # Files in a request.
MAX_MESSAGE = 300  # Characters of an error, which may quote the request.
JSON, BYTES, FORM = "application/json", "application/octet-stream", "multipart/form-data"
FILE = {"type": "string", "format": "binary"}  # The schema of bytes.
PLAIN = {  # The text of an error, instead of Starlette's.
    "Not Found": "expected a path of /openapi.json",
    "Method Not Allowed": "expected a method of /openapi.json",
}

Top = Annotated[int, Query(ge=1, le=999_999, description="How many classes are named.")]
KEY = "The user's key; the same user is always answered by the same model."
Key = Annotated[str | None, Header(min_length=1, max_length=MAX_KEY, description=KEY)]


def create_app(service: Service, hosts: frozenset[str] | None = None) -> FastAPI:
    """The server's ASGI application; `hosts` are the only names that requests may be sent to."""
    app = FastAPI(
        title="jaxnets",
        version=__version__,
        lifespan=lambda _: service.running(),
        docs_url=None,  # Its script would come from another host.
        redoc_url=None,
        responses={
            "4XX": {"model": protocol.Error, "description": "The request is wrong."},
            503: {"model": protocol.Error, "description": "The server is too busy."},
        },
        exception_handlers={
            RequestValidationError: _refuse_values,
            StarletteHTTPException: _refuse,
            Exception: _admit_fault,
        },
    )
    app.add_middleware(Middleware, metrics=service.metrics)
    if hosts is not None:  # Another site's page may reach this machine by its own name.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False)
    app.include_router(_pictures(service))
    app.include_router(_protocol(service))
    page = Page(service)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        numbers = service.metrics.text(service.models)
        return Response(numbers, headers={"Content-Type": service.metrics.content_type})

    @app.get("/", response_class=HTMLResponse)
    @app.get("/{stem}.{ending}", include_in_schema=False)
    async def page_file(request: Request) -> Response:
        """The page."""
        content, media_type = await page.file(request.url.path[1:] or INDEX)
        return Response(content, headers={"Content-Type": media_type, **page.headers})

    return app


def _pictures(service: Service) -> APIRouter:
    """The routes for pictures and feedback."""
    router, form = APIRouter(), service.image_shape

    async def read(request: Request, sent: Annotated[protocol.Pixels, protocol.OR_BYTES, Body()]):
        """The images of a request."""
        if not isinstance(sent, bytes):
            return protocol.read_pixels(sent, form)
        media_type = request.headers.get("content-type", "")
        if media_type.lower().startswith(FORM):
            return [await service.prepare(*file) for file in await _files(request)]
        if sent.lstrip().startswith(b"{"):  # JSON that curl sends without its content type.
            return protocol.read_pixels(_parsed(protocol.Pixels, sent), form)
        return [await service.prepare(sent, "picture")]

    files = {"type": "object", "additionalProperties": FILE, "minProperties": 1}
    content = {
        JSON: {"example": {"image": [0] * math.prod(form)}},
        BYTES: {"schema": FILE},
        FORM: {"schema": files},
    }
    described = {"requestBody": {"content": content}}

    @router.post("/predict", openapi_extra=described)
    async def predict(
        images: Annotated[Any, Depends(read)], top: Top = 5, x_user: Key = None
    ) -> protocol.Answer:
        """Returns the classes that the user's model predicts for the pictures."""
        (answer,) = await service.predict(images, x_user, top, every=False)
        return answer

    @router.post("/compare", openapi_extra=described)
    async def compare(
        images: Annotated[Any, Depends(read)], top: Top = 5, x_user: Key = None
    ) -> protocol.Answers:
        """Returns the classes that each model predicts for the pictures."""
        return protocol.Answers(answers=await service.predict(images, x_user, top, every=True))

    # FastAPI refuses JSON without its content type, because another site's page may send it.
    @router.post("/feedback")
    async def feedback(said: protocol.Feedback) -> dict[str, bool]:
        """Saves whether an answer was right."""
        ticket, correct, label = verify(service.log.key, said.answer), said.correct, said.label
        if label is not None and label not in service.class_names:
            raise HTTPException(400, f"label: expected a class's name, got {label!r:.80}")
        if correct is None and label is None:
            raise HTTPException(400, "expected correct, true or false, or label, the true class")
        if label is not None and correct not in (None, label == ticket.prediction):
            raise HTTPException(
                400, f"expected correct and label to agree on {ticket.prediction!r}"
            )
        if correct is None:
            correct = label == ticket.prediction
        if correct and label is None:
            label = ticket.prediction
        await service.save(ticket, correct, label)
        return {"saved": True}

    return router


def _protocol(service: Service) -> APIRouter:
    """The routes of the Open Inference Protocol."""
    router = APIRouter(prefix="/v2")

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Says that the server runs."""
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        """Says that the server takes requests."""
        return {"ready": True}

    @router.get("")
    async def server() -> dict[str, Any]:
        """The server's metadata."""
        return {"name": "jaxnets", "version": __version__, "extensions": ["binary_tensor_data"]}

    of_model = _of_model(service)
    router.include_router(of_model, prefix="/models/{name}")
    router.include_router(of_model, prefix="/models/{name}/versions/{version}")
    return router


def _of_model(service: Service) -> APIRouter:
    """The routes that exist for each model, and for each of its versions."""
    router, form = APIRouter(), service.image_shape
    names = [model.name for model in service.models]

    async def find(
        name: Annotated[str, Path(json_schema_extra={"enum": names})], version: str | None = None
    ) -> tuple[Model, Version]:
        return service.find(name, version)

    @router.get("")
    async def model(found: Annotated[Any, Depends(find)]) -> protocol.ModelMetadata:
        """A model's metadata."""
        return protocol.metadata_of(found[0], form, len(service.class_names))

    @router.get("/ready")
    async def model_ready(found: Annotated[Any, Depends(find)]) -> dict[str, Any]:
        """Says that a model takes requests."""
        return {"name": found[0].name, "version": found[1].name, "ready": True}

    blank = {"name": "images", "datatype": "UINT8", "shape": [1, *form]}
    example = {"inputs": [{**blank, "data": [0] * math.prod(form)}]}
    content = {JSON: {"example": example}, BYTES: {"schema": FILE}}

    @router.post(
        "/infer",
        response_model=protocol.Inferred,
        responses={200: {"content": {BYTES: {"schema": FILE}}}},
        openapi_extra={"requestBody": {"content": content}},
    )
    async def infer(
        found: Annotated[Any, Depends(find)],
        sent: Annotated[protocol.Inference, protocol.OR_BYTES, Body()],
        length: Annotated[int | None, Header(alias=protocol.HEADER_LENGTH, ge=0)] = None,
    ) -> Response:
        """The probability of each class."""
        model, version = found
        rest = b""
        if isinstance(sent, bytes):
            length = len(sent) if length is None else length
            sent, rest = _parsed(protocol.Inference, sent[:length]), sent[length:]
        rows = await version.probabilities(protocol.read_tensor(sent, rest, form))
        outputs, behind = protocol.render_outputs(sent, service.class_names, rows)
        answer = protocol.Inferred(
            model_name=model.name, model_version=version.name, id=sent.id, outputs=outputs
        )
        head = answer.model_dump_json(exclude_none=True).encode()
        if not behind:
            return Response(head, media_type=JSON)
        headers = {protocol.HEADER_LENGTH: str(len(head))}
        return Response(head + behind, headers=headers, media_type=BYTES)

    return router


async def _files(request: Request) -> list[tuple[bytes, str]]:
    """The files of a form, each with its name; the form's other fields do not count."""
    try:
        async with request.form(max_files=MAX_PICTURES, max_fields=MAX_PICTURES) as form:
            sent = form.multi_items()
            files = [(name, value) for name, value in sent if not isinstance(value, str)]
            if not files:
                wanted = 'files, as from curl -F "picture=@seven.png"'
                raise HTTPException(400, f"form: expected {wanted}")
            return [(await value.read(), value.filename or name) for name, value in files]
    except UnicodeError as error:  # Its charset is undefined, for example, a codec that refuses.
        raise HTTPException(400, f"form: expected names in its charset ({error})") from None


def _parsed(model: type[BaseModel], text: bytes) -> Any:
    """The JSON that FastAPI did not read because of another content type."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in found]
        ) from None


# Errors: one line.


def _error(status: int, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error": one_line(message)[:MAX_MESSAGE]}, status, headers)


async def _refuse(_: Request, error: Any) -> Response:
    return _error(error.status_code, PLAIN.get(error.detail) or error.detail, error.headers)


async def _refuse_values(_: Request, error: Any) -> Response:
    """Names the first value that is wrong."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(422, f"JSON: {first['ctx']['error']}")
    where = ".".join(map(str, first["loc"][1:])) or first["loc"][0]
    if first["type"] == "missing":
        return _error(422, f"{where}: expected, but missing")
    told = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return _error(422, f"{where}: {told}, got {reprlib.repr(first['input'])}")


async def _admit_fault(request: Request, error: Exception) -> Response:
    """Reports a bug in one line on stderr, and not to the client."""
    kind = type(error).__name__
    log_line("error: {} {}: {}: {}", request.method, request.url.path, kind, error)
    return _error(500, "the server has a fault")


class Middleware:
    """Counts requests and their seconds, by route and status, and refuses a body over the limit."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, size = time.perf_counter(), 500, 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:  # Starlette's max_body_size would answer with a text.
                raise HTTPException(413, f"expected at most {MAX_BODY:,} bytes")
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, limited, watched)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.saw_request(route, status, time.perf_counter() - begin)
