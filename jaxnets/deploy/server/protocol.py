"""Requests and answers: this server's own JSON, and the Open Inference Protocol.

Both ways of asking become images, and both answers are made of the same probabilities. The models
below check the requests and are the schemas of /openapi.json.

The protocol is v2, as KServe, Triton and Seldon speak it, with binary tensors: bytes behind the
JSON, whose length the header Inference-Header-Content-Length then says. Source:
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and, for the
bytes, https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md).
"""

import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from jaxnets.deploy.server.limits import RequestError, parse_json, to_json
from jaxnets.training.step import to_float

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_IMAGES = 1024  # In a request.
MAX_DEPTH = 4  # Of the lists around numbers: [N, H, W, C].
# Pixels are bytes from 0 to 255, or floats from 0 to 1.
DTYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "UINT8": "u1"}

Form = tuple[int, ...]  # A network's (H, W, C).
Datatype = Literal["FP32", "FP64", "FP16", "UINT8"]
OutputName = Literal["probabilities", "labels"]
# Whose millions of items a model would check one by one; `to_numbers` does.
_NUMBER_OR_LIST = {"anyOf": [{"type": "number"}, {"type": "array"}]}
Numbers = Annotated[Any, WithJsonSchema({"type": "array", "items": _NUMBER_OR_LIST, "minItems": 1})]
# A class' name may be no Unicode, which `str` does not take.
Text = Annotated[Any, WithJsonSchema({"type": ["string", "null"]})]


class Strict(BaseModel):
    """A request's part: true is no number, and "1" neither."""

    model_config = ConfigDict(strict=True, frozen=True)  # What is frozen is not copied as default.


class Pixels(Strict):
    """Pixels of the network's own form: image is [H, W], [H, W, C] or [H W C]; images many such."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["images"]}]}
    )
    image: Numbers = None
    images: Numbers = None
    max: int = Field(255, description="What white is.", json_schema_extra={"enum": [1, 255]})


class Feedback(Strict):
    """Whether an answer was right, or the true class."""

    answer: Text = Field(description="As it stands in the answer.")
    correct: bool | None = None
    label: Text = Field(None, description="The true class.")


class Parameters(Strict):
    """Those of a request, of its tensor and of its outputs; others do not count."""

    binary_data_size: int | None = None  # Of the tensor's bytes behind the JSON.
    binary_data_output: bool | None = None  # Whether all outputs are to be bytes.
    binary_data: bool | None = None  # Whether this output is.


class Tensor(Strict):
    """The images [N, H, W, C] or [N, H W C]."""

    name: Literal["images"]
    datatype: Datatype
    shape: list[int] = Field(max_length=MAX_DEPTH)  # Else each of a million items is checked.
    data: Numbers = None
    parameters: Parameters = Parameters()


class Output(Strict):
    """An output that is asked for."""

    name: OutputName
    parameters: Parameters = Parameters()


class Inference(Strict):
    """A request of the Open Inference Protocol."""

    id: str | None = Field(None, max_length=256)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] | None = Field(None, max_length=2)
    parameters: Parameters = Parameters()


class Prediction(BaseModel):
    """A class."""

    label: str
    probability: float = Field(ge=0, le=1)


class Picture(BaseModel):
    """A picture's most probable classes."""

    predictions: list[Prediction] = Field(min_length=1)
    answer: str = Field(description="Names this answer in a feedback.")


class Answer(BaseModel):
    """A model's answer."""

    model: str
    version: str = Field(description="The training step.")
    arm: Literal["A", "B"]
    pictures: list[Picture] = Field(min_length=1)


class Answers(BaseModel):
    """Each model's answer."""

    answers: list[Answer] = Field(min_length=1, max_length=2)


class Metadata(BaseModel):
    """A tensor's name and form."""

    name: str
    datatype: str
    shape: list[int]


class Result(Metadata):
    """An output; its data may be bytes behind the JSON."""

    data: list[float | str] = []


class Inferred(BaseModel):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str = ""
    outputs: list[Result]


class ModelMetadata(BaseModel):
    """A model's metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Metadata]
    outputs: list[Metadata]


class Error(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One line.")


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], text: bytes) -> Model:
    """A request's JSON; RequestError names the first thing that is wrong in it."""
    values = parse_json(text)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise RequestError(400, f"{where}: expected, but missing") from None
        told = first["msg"].replace("Input should be", "expected", 1)
        told = re.sub("valid dictionary or instance of .*", "valid object", told)
        raise RequestError(400, f"{where}: {told}, got {first['input']!r:.80}") from None


# From requests to images.


def read_pixels(text: bytes, form: Form) -> np.ndarray:
    """The images of this server's own JSON, [N, H, W, C] float32 from 0 to 1."""
    asked = parse(Pixels, text)
    if asked.max not in (1, 255):
        raise RequestError(400, f"max: expected 1 or 255, got {asked.max!r:.80}")
    names = asked.model_fields_set & {"image", "images"}
    if len(names) != 1:
        got = "both" if names else "neither"
        raise RequestError(400, f"expected image or images, lists of pixels, got {got}")
    (name,) = names
    values, shape = to_numbers(name, getattr(asked, name), asked.max)
    return to_images(name, values, (1, *shape) if name == "image" else shape, form, asked.max)


def read_tensor(body: bytes, header_length: str | None, form: Form) -> tuple[np.ndarray, Inference]:
    """The images of a request of the protocol, as above, and what it asks for."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isdecimal() and len(header_length) < 12):
            raise RequestError(400, f"{HEADER_LENGTH}: expected a number, got {header_length!r}")
        length = int(header_length)
        if length > len(body):
            raise RequestError(400, f"{HEADER_LENGTH}: expected at most {len(body)}, got {length}")
    asked, rest = parse(Inference, body[:length] if length < len(body) else body), body[length:]
    names = [one.name for one in asked.outputs or ()]
    if len(set(names)) < len(names):
        raise RequestError(400, f"outputs: expected each once, got {names!r:.80}")
    (tensor,) = asked.inputs
    largest, size = 255 if tensor.datatype == "UINT8" else 1, tensor.parameters.binary_data_size
    if size is None:
        if rest:
            raise RequestError(400, f"expected JSON only, got {len(rest):,} bytes behind it")
        values, _ = to_numbers("data", tensor.data, largest)
    else:
        dtype = np.dtype(DTYPES[tensor.datatype])
        if "data" in tensor.model_fields_set:
            raise RequestError(400, "expected either data or binary_data_size, got both")
        if size != len(rest) or size % dtype.itemsize:
            wanted = f"expected the {len(rest):,} bytes behind the JSON, got {size:,}"
            raise RequestError(400, f"binary_data_size: {wanted}")
        values = np.frombuffer(rest, dtype)
    return to_images("images", values, tensor.shape, form, largest), asked


def to_numbers(name: str, data: Any, largest: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The numbers of a list, which may hold lists of one length, in a row, and its shape.

    They are uint8 if all are whole and `largest` is 255, else float64. NumPy alone would take "1"
    and true for 1, and a long text for an array of as long ones.
    """
    shape: list[int] = []
    values: Sequence[Any] = [data]
    while values and type(values[0]) is list:
        lengths = {len(row) if type(row) is list else -1 for row in values}
        if len(lengths) != 1 or len(shape) == MAX_DEPTH:
            raise RequestError(400, f"{name}: expected lists of one length, at most {MAX_DEPTH} in")
        shape += lengths
        values = values[0] if len(values) == 1 else list(itertools.chain.from_iterable(values))
    kinds = set(map(type, values))
    if not shape or not kinds <= {int, float}:
        raise RequestError(400, f"{name}: expected a list of numbers")
    try:
        if largest == 255 and kinds == {int}:
            return np.frombuffer(bytes(values), np.uint8), tuple(shape)
        return np.array(values, np.float64), tuple(shape)
    except (ValueError, OverflowError):  # Of bytes; of floats.
        raise RequestError(
            400, f"{name}: expected pixels from 0 to {largest}, got others"
        ) from None


def to_images(
    name: str, values: np.ndarray, shape: Sequence[int], form: Form, largest: int
) -> np.ndarray:
    """Images [N, H, W, C] float32 from 0 to 1.

    Args:
      name: The values' name in an error.
      values: Pixels from 0 to `largest`, in a row.
      shape: [N, H, W, C], [N, H W C] or, with one channel, [N, H, W].
      form: The network's (H, W, C).
      largest: The number that stands for white.

    Raises:
      RequestError: The shape is another, or a pixel is out of range or no number.
    """
    height, width, channels = form
    size = height * width * channels
    right = [list(form), [size]] + [[height, width]] * (channels == 1)
    if not shape or list(shape[1:]) not in right:
        wanted = f"[N, {height}, {width}, {channels}] or [N, {size}]"
        raise RequestError(400, f"{name}: expected the shape {wanted}, got {list(shape)!r:.80}")
    if not 1 <= shape[0] <= MAX_IMAGES:
        raise RequestError(400, f"{name}: expected 1 to {MAX_IMAGES:,} images, got {shape[0]:,}")
    if values.size != shape[0] * size:
        wanted = f"{shape[0] * size:,} numbers for the shape {list(shape)}"
        raise RequestError(400, f"{name}: expected {wanted}, got {values.size:,}")
    if values.dtype == np.uint8:
        return to_float(values).reshape(-1, *form)
    if not (values.min() >= 0 and values.max() <= largest):  # NaN is neither.
        raise RequestError(400, f"{name}: expected pixels from 0 to {largest:g}, got others")
    images = values.reshape(-1, *form)
    return (images if largest == 1 else images / largest).astype(np.float32)


# From probabilities [N, K] to answers.


def render_inference(
    named: dict[str, str], labels: Sequence[str], asked: Inference, probabilities: np.ndarray
) -> tuple[bytes, int | None]:
    """The protocol's answer, and the length of its JSON if bytes follow it."""
    usual, outputs, behind = asked.parameters.binary_data_output or False, [], []
    for one in asked.outputs or [Output(name="probabilities"), Output(name="labels")]:
        if one.name == "probabilities":
            tensor = {"datatype": "FP32", "shape": list(probabilities.shape)}
            values: Any = probabilities.astype("<f4")
        else:
            values = [labels[k] for k in probabilities.argmax(axis=1)]  # The first of equals.
            tensor = {"datatype": "BYTES", "shape": [len(values)]}
        binary = one.parameters.binary_data
        if usual if binary is None else binary:
            content = _to_bytes(values)
            tensor["parameters"] = {"binary_data_size": len(content)}
            behind.append(content)
        else:
            tensor["data"] = values if isinstance(values, list) else values.ravel().tolist()
        outputs.append({"name": one.name, **tensor})
    answer: dict[str, Any] = {**named, "outputs": outputs}
    if asked.id is not None:
        answer["id"] = asked.id
    head = to_json(answer)
    return (b"".join([head, *behind]), len(head)) if behind else (head, None)


def _to_bytes(values: Sequence[str] | np.ndarray) -> bytes:
    """Numbers in little endian; texts each behind their length in four bytes."""
    if isinstance(values, np.ndarray):
        return values.tobytes()
    texts = [text.encode("utf-8", "backslashreplace") for text in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
