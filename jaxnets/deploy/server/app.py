"""The routes: which request gets which answer."""

import logging
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jaxnets.deploy.server import limits, metrics, openapi, protocol
from jaxnets.deploy.server.assignment import verify
from jaxnets.deploy.server.guard import Guard, refuse
from jaxnets.deploy.server.limits import CLOSE, JSON, Body, RequestError, parse_json, to_json
from jaxnets.deploy.server.page import INDEX, Page
from jaxnets.deploy.server.pixels import to_images, to_numbers
from jaxnets.deploy.server.service import Service
from jaxnets.display import one_line

MAX_KEY = 256  # Characters of a user's key.
MAX_PICTURES = 64  # Files in a request.
TOP = 5  # The number of classes that are named.
UNSAID = ("", "application/x-www-form-urlencoded")  # curl's own, unless told: the content decides.
READ = ("multipart/form-data", "application/octet-stream", *UNSAID)
# It warns of every form that is damaged; the answer says so.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


def create_app(service: Service, hosts: frozenset[str] | None = None) -> Guard:
    """The server's ASGI application; `hosts` are the only names that requests may be sent to."""
    page = Page(service)

    async def live(request: Request) -> Response:
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    async def server(request: Request) -> Response:
        return _json(protocol.server_metadata())

    async def model(request: Request) -> Response:
        found, _ = service.find(**request.path_params)
        return _json(protocol.model_metadata(found))

    async def model_ready(request: Request) -> Response:
        found, version = service.find(**request.path_params)
        return _json({"name": found.name, "version": version.name, "ready": True})

    async def infer(request: Request) -> Response:
        found, version = service.find(**request.path_params)
        length = request.headers.get(protocol.HEADER_LENGTH)
        with Body(service.room) as body:
            content = await body.read(request, limits.MAX_BODY if length else limits.MAX_JSON)
            asked = protocol.parse_inference(content, length, version.trained.image_shape)
            rows = await service.probabilities(version, asked.images)
        answer, length = protocol.render_inference(found, version, asked, rows)
        if length is None:
            return Response(answer, media_type=JSON)
        headers = {protocol.HEADER_LENGTH: str(length)}
        return Response(answer, media_type="application/octet-stream", headers=headers)

    async def predict(request: Request) -> Response:
        (answer,) = await _answers(service, request, every=False)
        return _json(answer)

    async def compare(request: Request) -> Response:
        return _json({"answers": await _answers(service, request, every=True)})

    async def feedback(request: Request) -> Response:
        if _media_type(request) != JSON:  # Which another site's page may not send unasked.
            got = _media_type(request)
            raise RequestError(415, f"content-type: expected {JSON}, got {got!r:.80}", CLOSE)
        with Body(service.room) as body:
            values = parse_json(await body.read(request, limits.MAX_JSON))
        answer = verify(service.log.key, values.get("answer"))
        correct, label = values.get("correct"), values.get("label")
        names = service.models[0].version.trained.class_names
        if correct is not None and not isinstance(correct, bool):
            raise RequestError(400, f"correct: expected true or false, got {correct!r:.80}")
        if label is not None and label not in names:
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

    async def numbers(request: Request) -> Response:
        service.metrics.version.clear()  # Of versions that are gone.
        for one in service.models:
            service.metrics.version.labels(one.name, one.version.name).set(1)
            if one.earlier is not None:
                service.metrics.version.labels(one.name, one.earlier.name).set(0)
        return Response(service.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def described(request: Request) -> Response:
        return _json(openapi.document(service.models))

    async def page_file(request: Request) -> Response:
        content, media_type = await page.file(request.url.path[1:] or INDEX)
        return Response(content, headers={"Content-Type": media_type, **page.headers})

    name, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    return Guard(
        Starlette(
            routes=[
                *(Route(f"{path}/infer", infer, methods=["POST"]) for path in (name, version)),
                Route("/predict", predict, methods=["POST"]),
                Route("/compare", compare, methods=["POST"]),
                Route("/feedback", feedback, methods=["POST"]),
                Route("/v2/health/live", live),
                Route("/v2/health/ready", ready),
                Route("/v2", server),
                *(Route(f"{path}/ready", model_ready) for path in (name, version)),
                *(Route(path, model) for path in (name, version)),
                Route("/metrics", numbers),
                Route("/openapi.json", described),
                Route("/", page_file),
                Route("/{stem}.{ending}", page_file),
            ],
            exception_handlers={
                RequestError: refuse,
                HTTPException: _refuse_http,
                Exception: _admit,
            },
        ),
        service,
        hosts,
        {"/predict": (predict, {}), "/feedback": (feedback, {})}
        | {f"/v2/models/{one.name}/infer": (infer, {"name": one.name}) for one in service.models},
    )


async def _answers(service: Service, request: Request, every: bool) -> list[dict[str, Any]]:
    key = request.headers.get("x-user")
    if key is not None and not 1 <= len(key) <= MAX_KEY:
        raise RequestError(400, f"x-user: expected 1 to {MAX_KEY} characters, got {len(key)}")
    top = _top(request)
    with Body(service.room) as body:
        images = await _images(service, request, body)
        return await service.predict(images, key, top, every)


def _top(request: Request) -> int:
    if not request.scope["query_string"]:
        return TOP
    text = request.query_params.get("top", str(TOP))
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and int(text) > 0):
        raise RequestError(400, f"top: expected a number of classes, got {text!r:.80}")
    return int(text)


async def _images(service: Service, request: Request, body: Body) -> Any:
    """The images of a request: pixels in JSON, a picture's file, or a form of several."""
    media_type = _media_type(request)
    if media_type == JSON:
        return _pixels(service, parse_json(await body.read(request, limits.MAX_JSON)))
    if not (media_type in READ or media_type.startswith("image/")):
        kinds = f"{JSON}, multipart/form-data, application/octet-stream or image/..."
        raise RequestError(415, f"content-type: expected {kinds}, got {media_type!r:.80}", CLOSE)
    content = await body.read(request, limits.MAX_BODY)
    if media_type in UNSAID and content.lstrip()[:1] == b"{":
        return _pixels(service, parse_json(content))
    if media_type == "multipart/form-data":
        files = await _files(request, content)
    else:
        files = [("picture", content)]
    return [await service.prepare(content, name) for name, content in files]


def _pixels(service: Service, values: dict[str, Any]) -> np.ndarray:
    form, largest = service.models[0].version.trained.image_shape, values.get("max", 255)
    if type(largest) is not int or largest not in (1, 255):
        raise RequestError(400, f"max: expected 1 or 255, got {largest!r:.80}")
    if ("image" in values) == ("images" in values):
        got = "both" if "image" in values else "neither"
        raise RequestError(400, f"expected image or images, lists of pixels, got {got}")
    name = "image" if "image" in values else "images"
    pixels, shape = to_numbers(name, values[name], largest)
    return to_images(name, pixels, (1, *shape) if name == "image" else shape, form, largest)


async def _files(request: Request, content: bytes) -> list[tuple[str, bytes]]:
    """The files of a form, whose other fields do not count."""

    async def stream():
        yield content

    parser = MultiPartParser(
        request.headers, stream(), max_files=MAX_PICTURES, max_fields=MAX_PICTURES
    )
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


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type=JSON)


def _refuse_http(request: Request, error: Any) -> Response:
    detail = error.detail
    if error.status_code == 404:
        paths = [route.path for route in request.app.routes if "{" not in route.path]
        detail = f"expected {', '.join(paths)} or /v2/models/NAME"
    elif allowed := (error.headers or {}).get("Allow"):
        detail = f"expected {', '.join(sorted(allowed.split(', ')))}"
    message = one_line(f"{request.method} {request.url.path:.80}: {detail}")
    return Response(to_json({"error": message}), error.status_code, error.headers, JSON)


def _admit(request: Request, error: Any) -> Response:
    """The answer where the server is wrong; the guard reports what went wrong."""
    return _json({"error": "the server has a fault"}, 500)
