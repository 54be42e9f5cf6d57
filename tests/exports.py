"""What the tests of exported files share: tiny networks, and other programs that run a file."""

import jax
import jax.export
import pytest
from conftest import random_params

from jaxnets.config.resolve import preset
from jaxnets.export import archive
from jaxnets.networks.create import create_model
from jaxnets.predict.trained import TrainedNetwork

TINY = {  # What changes in each network; the large AlexNets see pictures of 63 pixels.
    "softmax": {},
    "mlp_sequential": dict(hidden=(9,), activation="softmax"),
    "mlp_functional": dict(hidden=(12, 9), activation="sigmoid"),
    "mlp": dict(hidden=(20,)),
    "mlp_handwritten": dict(hidden=(15,)),
    "cnn": dict(hidden=(16,)),
    "cnn_bn": {},
    "cnn_tiny": {},
    "alexnet_small": dict(input_size=28, normalize="imagenet"),
    "alexnet_small_bn": dict(input_size=28, normalize="imagenet"),
    "alexnet": dict(input_size=63),
    "alexnet_paper": dict(input_size=63, normalize="paper"),
    "resnet20": {},
}
FORMATS = ("safetensors", "stablehlo", "onnx")
# Pictures larger than the network's input, with an odd margin; the 2014 AlexNet enlarges its own.
SHAPES = {
    "alexnet_small": (33, 30, 3),
    "alexnet_small_bn": (33, 30, 3),
    "alexnet": (28, 40, 1),
    "alexnet_paper": (70, 63, 3),
}


def trained(model, **changes) -> TrainedNetwork:
    """A network with parameters drawn at random."""
    config = preset(model, **{**TINY[model], **changes})
    chain = create_model(config, 10)
    shape = SHAPES.get(model, (28, 28, 1))
    params = random_params(chain, (min(shape[0], 63), min(shape[1], 63), shape[2]))
    return TrainedNetwork(config, chain, params, shape, tuple("0123456789"), 7, True)


def logits_of(kind, content, path, images):
    """What another program computes from an exported file."""
    path.write_bytes(content)
    if kind == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        return session.run(None, {"images": images})[0]
    if kind == "stablehlo":
        return jax.export.deserialize(bytearray(content)).call(images)
    return archive.logits(archive.read(str(path)), images)
