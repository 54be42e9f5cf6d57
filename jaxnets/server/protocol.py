"""Requests and answers: this server's own JSON, and the Open Inference Protocol.

FastAPI checks requests and answers with the models below, and describes them in /openapi.json. Both
kinds of requests become images, and both kinds of answers come from the same probabilities.

The protocol is v2, which KServe, Triton and Seldon speak, with binary tensors: bytes after the
JSON, whose length is then in the header Inference-Header-Content-Length. Source:
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and, for the
bytes, https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md).
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import HTTPException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from jaxnets.server.models import Model

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_IMAGES = 1024  # In a request.
# Pixels are bytes from 0 to 255, or floats from 0 to 1.
DTYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "UINT8": "u1"}

InputShape = tuple[int, ...]  # A network's (H, W, C).
OutputName = Literal["probabilities", "labels"]
# For a body: FastAPI passes on as bytes what is not sent as JSON.
OR_BYTES = WrapValidator(lambda sent, read: sent if isinstance(sent, bytes) else read(sent))


def to_numbers(data: Any) -> np.ndarray:
    """A list of numbers, or of lists of the same length, as an array."""
    try:
        if isinstance(data, list):
            values = np.array(data, np.float64)  # It takes "1" and true, and refuses deep lists.
            if _types(data) <= {int, float}:
                return values
    except (ValueError, TypeError, OverflowError):
        pass
    raise ValueError("expected a list of numbers, or lists of one length")


def _types(data: list[Any]) -> set[type]:
    """The types of what is in a list, and in the lists in it."""
    found = set(map(type, data))
    if list in found:
        found = found - {list} | set().union(*(_types(x) for x in data if isinstance(x, list)))
    return found


_NUMBER_OR_LIST = {"anyOf": [{"type": "number"}, {"type": "array"}]}
Numbers = Annotated[
    Any,
    PlainValidator(to_numbers),
    WithJsonSchema({"type": "array", "items": _NUMBER_OR_LIST, "minItems": 1}),
]


class Strict(BaseModel):
    """A part of a request; neither true nor "1" counts as a number."""

    model_config = ConfigDict(strict=True)


class Pixels(Strict):
    """Pixels in the network's size: image is [H, W], [H, W, C] or [H W C]; images is a list."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["images"]}]}
    )
    image: Numbers = None
    images: Numbers = None
    max: Literal[1, 255] = Field(255, description="The value of white.")

    @model_validator(mode="after")
    def _has_either(self) -> "Pixels":
        if (self.image is None) == (self.images is None):
            raise ValueError("expected image or images, lists of pixels")
        return self


class Feedback(Strict):
    """Whether an answer was right, or the true class."""

    answer: str = Field(description="The text `answer` of the server's answer.")
    correct: bool | None = None
    label: str | None = Field(None, description="The true class.")


class Parameters(Strict):
    """The parameters of a request, of its tensor or of its outputs; others are ignored."""

    binary_data_size: int | None = None  # The size of the tensor's bytes after the JSON.
    binary_data_output: bool | None = None  # Whether all outputs are to be bytes.
    binary_data: bool | None = None  # Whether this output is.


class Tensor(Strict):
    """The images [N, H, W, C] or [N, H W C]."""

    name: Literal["images"]
    datatype: Literal["FP32", "FP64", "FP16", "UINT8"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(max_length=4)
    data: Numbers = None
    parameters: Parameters = Parameters()


class Output(Strict):
    """A requested output."""

    name: OutputName
    parameters: Parameters = Parameters()


class Inference(Strict):
    """A request of the Open Inference Protocol."""

    id: str | None = Field(None, max_length=256)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Output] | None = Field(None, max_length=2)
    parameters: Parameters = Parameters()


class Prediction(BaseModel):
    """A class and its probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class Picture(BaseModel):
    """A picture's most probable classes."""

    predictions: list[Prediction] = Field(min_length=1)
    answer: str = Field(description="Names this answer in feedback.")


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
    """A tensor's name, type and shape."""

    name: str
    datatype: str
    shape: list[int]


class Result(Metadata):
    """An output; its data may be bytes after the JSON."""

    data: list[float] | list[str] | None = None
    parameters: dict[str, int] | None = None


class Inferred(BaseModel):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str | None = None
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


# From requests to images.


def read_pixels(asked: Pixels, form: InputShape) -> np.ndarray:
    """The images of this server's own JSON, [N, H, W, C] float32 from 0 to 1."""
    if asked.image is not None:
        return checked_images("image", asked.image[None], form, asked.max)
    return checked_images("images", asked.images, form, asked.max)


def read_tensor(asked: Inference, rest: bytes, form: InputShape) -> np.ndarray:
    """The images of a request of the protocol and of the bytes after it, as above."""
    (tensor,) = asked.inputs
    count, size = math.prod(tensor.shape), tensor.parameters.binary_data_size
    if (tensor.data is None) == (size is None):
        raise HTTPException(400, "expected either data or binary_data_size")
    if tensor.data is None:
        dtype = np.dtype(DTYPES[tensor.datatype])
        wanted = count * dtype.itemsize
        if not size == len(rest) == wanted:
            got = f"{size:,}, and {len(rest):,} bytes behind the JSON"
            raise HTTPException(400, f"binary_data_size: expected {wanted:,}, got {got}")
        values = np.frombuffer(rest, dtype)
    else:
        values = tensor.data
        if values.size != count:
            raise HTTPException(400, f"data: expected {count:,} numbers, got {values.size:,}")
    largest = 255 if tensor.datatype == "UINT8" else 1
    return checked_images("images", values.reshape(tensor.shape), form, largest)


def checked_images(name: str, values: np.ndarray, form: InputShape, largest: int) -> np.ndarray:
    """Images [N, H, W, C] float32 from 0 to 1.

    Args:
      name: The values' name in an error.
      values: Pixels from 0 to `largest`: [N, H, W, C], [N, H W C] or, with one channel, [N, H, W].
      form: The network's (H, W, C).
      largest: The value of white.

    Raises:
      HTTPException: The shape is wrong, or a pixel is out of range or not a number.
    """
    height, width, channels = form
    size = height * width * channels
    right = [form, (size,)] + [(height, width)] * (channels == 1)
    if values.shape[1:] not in right:
        wanted = f"[N, {height}, {width}, {channels}] or [N, {size}]"
        raise HTTPException(400, f"{name}: expected the shape {wanted}, got {list(values.shape)}")
    if not 1 <= len(values) <= MAX_IMAGES:
        raise HTTPException(
            400, f"{name}: expected 1 to {MAX_IMAGES:,} images, got {len(values):,}"
        )
    if not (values.min() >= 0 and values.max() <= largest):  # NaN is neither.
        raise HTTPException(400, f"{name}: expected pixels from 0 to {largest}, got others")
    return (values / largest).astype(np.float32).reshape(-1, *form)


# From probabilities [N, K] to answers.


def metadata_of(model: Model, form: InputShape, classes: int) -> ModelMetadata:
    """A model's metadata."""
    return ModelMetadata(
        name=model.name,
        versions=[version.name for version in model.versions],
        platform="jax",
        inputs=[Metadata(name="images", datatype="FP32", shape=[-1, *form])],
        outputs=[
            Metadata(name="probabilities", datatype="FP32", shape=[-1, classes]),
            Metadata(name="labels", datatype="BYTES", shape=[-1]),
        ],
    )


def render_outputs(
    asked: Inference, labels: Sequence[str], probabilities: np.ndarray
) -> tuple[list[Result], bytes]:
    """The outputs that a request asks for, and the bytes after the JSON."""
    usual, outputs, behind = asked.parameters.binary_data_output or False, [], b""
    for one in asked.outputs or [Output(name="probabilities"), Output(name="labels")]:
        if one.name == "probabilities":
            result = Result(name=one.name, datatype="FP32", shape=[*probabilities.shape])
            values: Any = probabilities.ravel().tolist()
            as_bytes = probabilities.astype("<f4").tobytes()
        else:
            result = Result(name=one.name, datatype="BYTES", shape=[len(probabilities)])
            values = [labels[k] for k in probabilities.argmax(axis=1)]  # The first of equals.
            texts = [text.encode() for text in values]
            as_bytes = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        binary = one.parameters.binary_data
        if usual if binary is None else binary:
            result.parameters = {"binary_data_size": len(as_bytes)}
            behind += as_bytes
        else:
            result.data = values
        outputs.append(result)
    return outputs, behind
