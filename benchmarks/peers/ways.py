"""The ways that are measured: how each library trains or runs a network, and what it needs."""

import importlib.util
from typing import Any, NamedTuple

DENSE = ("softmax", "mlp_functional", "mlp")
CONVOLUTIONAL = ("cnn", "alexnet", "resnet20")
NETWORKS = (*DENSE, *CONVOLUTIONAL)
OURS = "jaxnets"


class Way(NamedTuple):
    """A way to train or to run a network."""

    name: str  # As the page shows it; the library comes first.
    place: str  # "module:class" in benchmarks/peers.
    packages: tuple[str, ...]  # The modules that must be there.
    options: dict[str, Any] = {}
    environment: dict[str, str] = {}
    networks: tuple[str, ...] = NETWORKS

    @property
    def is_ours(self) -> bool:
        """Whether it is jaxnets."""
        return self.name.startswith(OURS)

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


_TORCH, _KERAS, _FLAX = "pytorch:PyTorch", "keras_fit:Keras", "plain_flax:Flax"
_ON_TENSORFLOW, _ON_JAX = {"KERAS_BACKEND": "tensorflow"}, {"KERAS_BACKEND": "jax"}
_LAST, _COMPILED = {"channels_last": True}, {"compiled": True}

TRAINING = (
    Way("jaxnets", "ours:Jaxnets", ("jax",)),
    Way("jaxnets, gradients by hand", "ours:Jaxnets", ("jax",), {"gradients": "manual"}),
    Way("PyTorch", _TORCH, ("torch",)),
    Way("PyTorch, channels_last", _TORCH, ("torch",), _LAST, {}, CONVOLUTIONAL),
    Way("PyTorch, compiled", _TORCH, ("torch",), _COMPILED),
    Way("PyTorch, channels_last, compiled", _TORCH, ("torch",), _LAST | _COMPILED, {}, ("cnn",)),
    Way("Keras on TensorFlow", _KERAS, ("keras", "tensorflow"), {}, _ON_TENSORFLOW),
    Way(
        "Keras on TensorFlow, 32 steps per execution",
        _KERAS,
        ("keras", "tensorflow"),
        {"steps_per_execution": 32},
        _ON_TENSORFLOW,
        DENSE,
    ),
    Way("Keras on JAX", _KERAS, ("keras", "jax"), {}, _ON_JAX),
    Way("Flax", _FLAX, ("flax",)),
    Way("scikit-learn", "scikit:ScikitLearn", ("sklearn",), {}, {}, DENSE),
    Way("NumPy", "plain_numpy:NumPy", ("numpy",), {}, {}, DENSE),
)
INFERENCE = (
    Way("jaxnets", "ours:Jaxnets", ("jax",)),
    Way("PyTorch", _TORCH, ("torch",)),
    Way("PyTorch, channels_last", _TORCH, ("torch",), _LAST),
    Way("PyTorch, compiled", _TORCH, ("torch",), _COMPILED),
    Way("Keras on TensorFlow", _KERAS, ("keras", "tensorflow"), {}, _ON_TENSORFLOW),
    Way("Keras on JAX", _KERAS, ("keras", "jax"), {}, _ON_JAX),
    Way("Flax", _FLAX, ("flax",)),
    Way("ONNX Runtime", "onnx_session:OnnxRuntime", ("onnx", "onnxruntime")),
)
# To the first training step's end; growth takes the same but for the compiled one.
STARTING = tuple(
    way
    for way in TRAINING
    if way.name in ("jaxnets", "PyTorch", "PyTorch, compiled", "Flax") or way.name[:8] == "Keras on"
    if "steps" not in way.name
)
GROWING = tuple(way for way in STARTING if way.name != "PyTorch, compiled")


def named(ways: tuple[Way, ...], name: str) -> Way:
    """The way with this name."""
    return next(way for way in ways if way.name == name)
