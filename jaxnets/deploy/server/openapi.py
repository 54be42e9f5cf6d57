"""The description of the routes, which /openapi.json publishes."""

from collections.abc import Sequence
from typing import Any

from jaxnets.deploy.server import limits
from jaxnets.deploy.server.models import Model
from jaxnets.version import __version__

TEXT = {"type": "string"}
NUMBER = {"type": "number"}


def document(models: Sequence[Model]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server of such models."""
    height, width, channels = form = models[0].version.trained.image_shape
    blank = [0] * (height * width * channels)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, *form], "data": blank}
    names = [model.name for model in models]
    versions = [model.version.name for model in models]
    return {
        "openapi": "3.1.0",
        "info": {"title": "jaxnets", "version": __version__},
        "paths": {
            **_own({"image": blank}),
            **_protocol(names, versions, {"inputs": [tensor]}),
            **_others(),
        },
        "components": {"schemas": _schemas()},
    }


def _schemas() -> dict[str, Any]:
    pixels = {"type": "array", "items": {"anyOf": [NUMBER, {"type": "array"}]}, "minItems": 1}
    prediction = _object(label=TEXT, probability={"type": "number", "minimum": 0, "maximum": 1})
    picture = _object(
        predictions={"type": "array", "items": prediction, "minItems": 1},
        answer={"type": "string", "description": "Names this answer in a feedback."},
    )
    answer = _object(
        model=TEXT,
        version={"type": "string", "description": "The training step."},
        arm={"enum": ["A", "B"]},
        pictures={"type": "array", "items": picture, "minItems": 1},
    )
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": "images"},
            "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
            "datatype": {"enum": ["FP32", "FP64", "FP16", "UINT8"]},
            "data": pixels,
        },
    }
    parameters = {
        "type": "object",
        "properties": {"binary_data": {"type": "boolean"}},
    }
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": ["probabilities", "labels"]},
            "parameters": parameters,
        },
    }
    result = _object(
        name=TEXT,
        datatype={"enum": ["FP32", "BYTES"]},
        shape={"type": "array", "items": {"type": "integer"}},
        data={"type": "array", "items": {"type": ["number", "string"]}},
    )
    result["required"].remove("data")  # It may be bytes behind the JSON.
    metadata = _object(
        name=TEXT,
        datatype=TEXT,
        shape={"type": "array", "items": {"type": "integer"}},
    )
    return {
        "Error": _object(error={"type": "string", "description": "One line."}),
        "Pixels": {
            "type": "object",
            "description": "image is [H, W], [H, W, C] or [H W C]; images is a list of such.",
            "properties": {
                "image": pixels,
                "images": pixels,
                "max": {"enum": [1, 255], "description": "What white is; 255 by default."},
            },
            "oneOf": [{"required": ["image"]}, {"required": ["images"]}],
        },
        "Answer": answer,
        "Answers": _object(
            answers={"type": "array", "items": _ref("Answer"), "minItems": 1, "maxItems": 2}
        ),
        "Feedback": {
            "type": "object",
            "required": ["answer"],
            "properties": {
                "answer": {"type": "string", "description": "As it stands in the answer."},
                "correct": {"type": ["boolean", "null"]},
                "label": {"type": ["string", "null"], "description": "The true class."},
            },
        },
        "Saved": _object(saved={"const": True}),
        "Inference": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": ["string", "null"], "maxLength": 256},
                "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
                "outputs": {"type": ["array", "null"], "items": output},
            },
        },
        "Inferred": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "model_name": TEXT,
                "model_version": TEXT,
                "id": TEXT,
                "outputs": {"type": "array", "items": result},
            },
        },
        "Server": _object(name=TEXT, version=TEXT, extensions={"type": "array", "items": TEXT}),
        "Model": _object(
            name=TEXT,
            versions={"type": "array", "items": TEXT},
            platform=TEXT,
            inputs={"type": "array", "items": metadata},
            outputs={"type": "array", "items": metadata},
        ),
    }


def _own(example: dict[str, Any]) -> dict[str, Any]:
    top = {
        "name": "top",
        "in": "query",
        "description": "How many classes are named, the most probable ones.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999, "default": 5},
    }
    user = {
        "name": "X-User",
        "in": "header",
        "description": "The user's key; the same user is always answered by the same model.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    }
    picture = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "additionalProperties": {"type": "string", "format": "binary"},
        "minProperties": 1,
    }
    content = {
        "application/json": {"schema": _ref("Pixels"), "example": example},
        "application/octet-stream": picture,
        "multipart/form-data": {"schema": form},
    }
    body = {
        "required": True,
        "description": "Without a type, or with that of a form of texts, the content decides.",
        "content": content,
    }
    asked = {"parameters": [top, user], "requestBody": body}
    feedback = {"requestBody": _json_body("Feedback")}
    return {
        "/predict": {
            "post": _operation("predict", "The user's model names the pictures.", "Answer", **asked)
        },
        "/compare": {
            "post": _operation("compare", "Each model names the pictures.", "Answers", **asked)
        },
        "/feedback": {
            "post": _operation("feedback", "Was an answer right? It is saved.", "Saved", **feedback)
        },
    }


def _protocol(names: list[str], versions: list[str], example: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _operation("live", "The server runs.", {"type": "object"})},
        "/v2/health/ready": {
            "get": _operation("ready", "It takes requests; 503 if not.", {"type": "object"})
        },
        "/v2": {"get": _operation("server", "What the server is.", "Server")},
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": names}}
    version = {**name, "name": "version", "schema": TEXT, "example": versions[0]}
    for path, end, parameters in (
        ("/v2/models/{name}", "", [name]),
        ("/v2/models/{name}/versions/{version}", "_version", [name, version]),
    ):
        paths[path] = {
            "get": _operation(f"model{end}", "What a model is.", "Model", parameters=parameters)
        }
        paths[f"{path}/ready"] = {
            "get": _operation(
                f"ready{end}", "A model can be asked.", {"type": "object"}, parameters=parameters
            )
        }
        paths[f"{path}/infer"] = {
            "post": _operation(
                f"infer{end}",
                "The probability of each class.",
                "Inferred",
                parameters=parameters,
                requestBody=_json_body("Inference", example=example),
            )
        }
    return paths


def _others() -> dict[str, Any]:
    found = {}
    for path, name, text, kind in (
        ("/", "page", "The page.", "text/html"),
        ("/metrics", "metrics", "Numbers for Prometheus.", "text/plain"),
        ("/openapi.json", "openapi", "This description.", "application/json"),
    ):
        operation = _operation(name, text, {"type": "object"})
        schema = {"type": "object"} if kind.endswith("json") else TEXT
        operation["responses"]["200"]["content"] = {kind: {"schema": schema}}
        found[path] = {"get": operation}
    return found


def _operation(name: str, summary: str, result: str | dict, **more: Any) -> dict[str, Any]:
    schema = _ref(result) if isinstance(result, str) else result
    error = {"description": "Why not.", "content": {"application/json": {"schema": _ref("Error")}}}
    statuses = {
        400: "The request is wrong.",
        404: "There is no such thing.",
        405: "The route has another method.",
        408: "The body came too slowly.",
        409: "Another feedback for the answer came first.",
        413: f"More than {limits.MAX_BODY:,} bytes, or {limits.MAX_JSON:,} of JSON.",
        415: "The route takes another type of content.",
        421: "The request names another host.",
        503: "The server has as much to do as it may.",
    }
    responses = {str(status): {**error, "description": text} for status, text in statuses.items()}
    responses["200"] = {
        "description": "Done.",
        "content": {"application/json": {"schema": schema}},
    }
    if name.startswith("infer"):  # Binary tensors behind the JSON.
        responses["200"]["content"]["application/octet-stream"] = {"schema": {"type": "string"}}
    if name == "ready":
        responses["503"]["content"] = responses["200"]["content"]
    return {"operationId": name, "summary": summary, **more, "responses": responses}


def _json_body(name: str, **more: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _ref(name), **more}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}
