"""The Open Inference Protocol v2, as KServe, Triton and Seldon speak it, with binary tensors.

A tensor is JSON numbers, or bytes behind the JSON, whose length the header
Inference-Header-Content-Length then says. Source:
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and, for the
bytes, https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.deploy.server.limits import RequestError, parse_json, to_json
from jaxnets.deploy.server.models import Model, Version
from jaxnets.deploy.server.pixels import to_images, to_numbers
from jaxnets.version import __version__

INPUT, PROBABILITIES, LABELS = "images", "probabilities", "labels"
OUTPUTS = (PROBABILITIES, LABELS)
HEADER_LENGTH = "Inference-Header-Content-Length"
# Pixels are bytes from 0 to 255, or floats from 0 to 1.
DTYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "UINT8": "u1"}
MAX_ID = 256  # Characters of a request's id, which the answer repeats.


@dataclasses.dataclass(frozen=True)
class Inference:
    """The images and outputs of a request."""

    images: np.ndarray  # [N, H, W, C] float32 from 0 to 1.
    outputs: tuple[tuple[str, bool], ...]  # Each output's name, and whether it is to be bytes.
    id: str | None


def server_metadata() -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "jaxnets", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(model: Model) -> dict[str, Any]:
    """A model's versions, inputs and outputs."""
    trained = model.version.trained
    versions = [one.name for one in (model.earlier, model.version) if one is not None]
    return {
        "name": model.name,
        "versions": versions,
        "platform": "jax",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *trained.image_shape]}],
        "outputs": [
            {
                "name": PROBABILITIES,
                "datatype": "FP32",
                "shape": [-1, len(trained.class_names)],
            },
            {"name": LABELS, "datatype": "BYTES", "shape": [-1]},
        ],
    }


def parse_inference(
    body: bytes, header_length: str | None, form: tuple[int, int, int]
) -> Inference:
    """Reads a request's body for a network of images (H, W, C); RequestError if it is wrong."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isdecimal() and len(header_length) < 12):
            raise RequestError(400, f"{HEADER_LENGTH}: expected a number, got {header_length!r}")
        length = int(header_length)
        if length > len(body):
            raise RequestError(400, f"{HEADER_LENGTH}: expected at most {len(body)}, got {length}")
    request, rest = parse_json(body[:length] if length < len(body) else body), body[length:]
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(400, f'inputs: expected a list of one tensor, "{INPUT}"')
    name = request.get("id")
    if name is not None and not (isinstance(name, str) and len(name) <= MAX_ID):
        raise RequestError(400, f"id: expected a text of at most {MAX_ID} characters")
    images = _images(inputs[0], rest, form)
    return Inference(images, tuple(_outputs(request)), name)


def _images(tensor: dict[str, Any], rest: bytes, form: tuple[int, int, int]) -> np.ndarray:
    if tensor.get("name") != INPUT:
        raise RequestError(400, f'inputs: expected "{INPUT}", got {tensor.get("name")!r:.80}')
    kind, shape = tensor.get("datatype"), tensor.get("shape")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise RequestError(400, f"datatype: expected {', '.join(DTYPES)}, got {kind!r:.80}")
    if not isinstance(shape, list) or not set(map(type, shape)) <= {int}:
        raise RequestError(400, f"shape: expected whole numbers, got {shape!r:.80}")
    largest = 255 if kind == "UINT8" else 1
    size = _parameter(tensor, "binary_data_size", int)
    if size is None:
        if rest:
            raise RequestError(400, f"expected JSON only, got {len(rest):,} bytes behind it")
        values, _ = to_numbers("data", tensor.get("data"), largest)
        return to_images(INPUT, values, shape, form, largest)
    dtype = np.dtype(DTYPES[kind])
    if "data" in tensor:
        raise RequestError(400, "expected either data or binary_data_size, got both")
    if size != len(rest) or size % dtype.itemsize:
        raise RequestError(
            400, f"binary_data_size: expected the {len(rest):,} bytes behind the JSON, got {size:,}"
        )
    return to_images(INPUT, np.frombuffer(rest, dtype), shape, form, largest)


def _outputs(request: dict[str, Any]) -> list[tuple[str, bool]]:
    asked = request.get("outputs")
    usual = _parameter(request, "binary_data_output", bool) or False
    if asked is None or asked == []:
        return [(name, usual) for name in OUTPUTS]
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise RequestError(400, "outputs: expected a list of objects")
    names = [one.get("name") for one in asked]
    if not all(name in OUTPUTS for name in names) or len(set(names)) < len(names):
        known = " and ".join(OUTPUTS)
        raise RequestError(400, f"outputs: expected {known} at most once, got {names!r:.80}")
    binary = [_parameter(one, "binary_data", bool) for one in asked]
    return [(name, usual if own is None else own) for name, own in zip(names, binary, strict=True)]


def _parameter(values: dict[str, Any], name: str, kind: type) -> Any:
    parameters = values.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(400, "parameters: expected an object")
    if name not in parameters:
        return None
    value = parameters[name]
    if type(value) is not kind:
        raise RequestError(400, f"{name}: expected a {kind.__name__}, got {value!r:.80}")
    return value


def render_inference(
    model: Model, version: Version, asked: Inference, probabilities: np.ndarray
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON if bytes follow it."""
    outputs, behind = [], []
    for name, binary in asked.outputs:
        if name == PROBABILITIES:
            kind, values, shape = "FP32", probabilities, list(probabilities.shape)
        else:
            kind, values = "BYTES", best_labels(version, probabilities)
            shape = [len(values)]
        tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if binary:
            content = _to_bytes(values)
            tensor["parameters"] = {"binary_data_size": len(content)}
            behind.append(content)
        else:
            tensor["data"] = values if isinstance(values, list) else values.ravel().tolist()
        outputs.append(tensor)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": version.name}
    if asked.id is not None:
        answer["id"] = asked.id
    head = to_json({**answer, "outputs": outputs})
    return (b"".join([head, *behind]), len(head)) if behind else (head, None)


def best_labels(version: Version, probabilities: np.ndarray) -> list[str]:
    """Each image's most probable class, the first of equals."""
    names = version.trained.class_names
    return [names[k] for k in probabilities.argmax(axis=1)]


def _to_bytes(values: Sequence[str] | np.ndarray) -> bytes:
    """Numbers in little endian; texts each behind their length in four bytes."""
    if isinstance(values, np.ndarray):
        return values.astype("<f4").tobytes()
    texts = [text.encode("utf-8", "backslashreplace") for text in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
