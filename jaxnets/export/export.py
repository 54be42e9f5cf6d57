"""`jaxnets export`: writes a run's network for other programs, and checks the file."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxnets.base.display import short_path
from jaxnets.base.errors import RunFailedError, before_end, not_installed
from jaxnets.base.files import output_path, replacing
from jaxnets.base.language import _
from jaxnets.config.command import CommandResult
from jaxnets.export import archive
from jaxnets.models.precision import with_precision
from jaxnets.predict import portable
from jaxnets.predict.trained import TrainedNetwork, load_network, to_input
from jaxnets.runs.progress import Doing

# What each format needs besides jaxnets, and what checks it.
NEEDS = {"safetensors": (), "stablehlo": ("flatbuffers",), "onnx": ("onnx", "onnxruntime")}
BY = {"safetensors": "NumPy", "stablehlo": "JAX", "onnx": "ONNX Runtime"}
PLATFORMS = ("cpu", "cuda", "tpu")  # Of a StableHLO file.
BATCHES = (1, 3, 8)  # The batch sizes that are compared: none is compiled into a file.
TOLERANCE = 1e-5  # Of a logit, relative to the largest logit if that is above 1.


@dataclasses.dataclass(frozen=True)
class Export(CommandResult):
    """An exported file, and how close its logits are."""

    path: Path
    format: str
    bytes: int
    image_shape: tuple[int, ...]  # (H, W, C), or (D,) of rows.
    num_classes: int
    difference: float  # The largest difference of a logit.
    largest: float  # The largest logit, without its sign.

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            **dataclasses.asdict(self),
            "path": str(self.path),
            "image_shape": list(self.image_shape),
        }

    def text(self) -> str:
        """The lines that name the file and the check that it passed."""
        megabytes, classes = f"{self.bytes / 1e6:.2f}", self.num_classes
        path, shape = short_path(str(self.path)), ", ".join(map(str, self.image_shape))
        first = _(
            "{}: {} MB, images [batch, {}] float32 from 0 to 1 -> logits [batch, {}]",
            path,
            megabytes,
            shape,
            classes,
        )
        if len(self.image_shape) == 1:
            first = _(
                "{}: {} MB, rows [batch, {}] float32 -> logits [batch, {}]",
                path,
                megabytes,
                shape,
                classes,
            )
        second = _(
            "checked by {} in a new process without Flax: the logits of {} pictures differ by {} "
            "at most, the largest is {}",
            BY[self.format],
            sum(BATCHES),
            f"{self.difference:.1e}",
            f"{self.largest:.3g}",
        )
        return f"{first}\n{second}"


def export(workdir: str, kind: str | None = None, output: str | None = None) -> Export:
    """Writes a run's network into a file, renamed into place once its outputs are verified.

    Args:
      workdir: The folder of a finished or an interrupted run.
      kind: "safetensors", "stablehlo" or "onnx"; by default the output's ending.
      output: The file; by default the run folder's name with the format as its ending.

    Raises:
      UserError: The folder holds no run, or a package is missing.
      RunFailedError: The file's logits differ.
    """
    ending = Path(output or "").suffix[1:].lower()
    kind = kind or (ending if ending in NEEDS else "safetensors")
    missing = [name for name in NEEDS[kind] if importlib.util.find_spec(name) is None]
    if missing:
        raise not_installed(missing[0], "export")
    path = output_path(output or f"{Path(workdir).resolve().name}.{kind}")
    with Doing("export", 3) as doing, replacing(path) as stream:
        doing(_("reading {}", workdir))
        trained = load_network(workdir, takes_rows=True)
        doing(_("writing the network"))
        content = content_of(trained, kind)
        stream.write(content)
        stream.flush()
        doing(_("checking the file by {}", BY[kind]))
        difference, largest = _prove(kind, stream.name, trained)
    num_classes = len(trained.class_names)
    return Export(path, kind, len(content), trained.image_shape, num_classes, difference, largest)


def _forward(trained: TrainedNetwork) -> Callable[[Any, Any], Any]:
    """(params, images) -> logits in float32, whatever precision the run was trained in."""
    model = with_precision(trained.model, "float32")
    return lambda params, images: model.apply({"params": params}, to_input(trained.config, images))


def content_of(trained: TrainedNetwork, kind: str) -> bytes:
    """The file of a network, in one of the formats."""
    if kind == "stablehlo":
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), trained.params)
        forward = _forward(trained)
        network = jax.jit(lambda images: forward(params, images))  # The parameters are in it.
        (batch,) = jax.export.symbolic_shape("batch")  # The batch's size stays free.
        images = jax.ShapeDtypeStruct((batch, *trained.image_shape), jnp.float32)
        return bytes(jax.export.export(network, platforms=PLATFORMS)(images).serialize())
    network = portable.portable_network(trained)
    metadata = {
        "format": "jaxnets 1",
        "layers": network.layers,
        "image_shape": network.image_shape,
        "class_names": trained.class_names,
        "step": trained.step,
        "config": dataclasses.asdict(trained.config),
    }
    if kind == "safetensors":
        portable.check_kinds(network.layers, kind, archive.LAYERS.get)
        return archive.to_bytes(archive.Archive(metadata, network.arrays))

    from jaxnets.predict import onnx_file

    return onnx_file.to_bytes(network, metadata)


def _prove(kind: str, path: str, trained: TrainedNetwork) -> tuple[float, float]:
    """Compares the file's logits, as another process computes them, with the network's."""
    rng, pairs = np.random.default_rng(0), {}
    compiled = jax.jit(_forward(trained))
    for number, size in enumerate(BATCHES):
        images = rng.random((size, *trained.image_shape), np.float32)
        pairs[f"images{number}"] = images
        pairs[f"logits{number}"] = np.asarray(compiled(trained.params, images))
    largest = max(float(np.abs(pairs[f"logits{n}"]).max()) for n in range(len(BATCHES)))
    temporary = tempfile.TemporaryDirectory()
    with before_end(temporary.cleanup), temporary as folder:
        file = os.path.join(folder, "pairs.npz")
        np.savez(file, **pairs)
        command = [sys.executable, "-m", "jaxnets.export.prove", kind, path, file]
        package = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": package, "JAX_PLATFORMS": "cpu"}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with process, before_end(process.kill):
            out, err = process.communicate()
    if process.returncode:
        reason = (err.strip().splitlines() or ["no reason given"])[-1]
        raise RunFailedError("the {} file cannot be run by {}: {}", kind, BY[kind], reason)
    difference = float(out.split()[-1])
    if not difference <= TOLERANCE * max(1.0, largest):
        raise RunFailedError(
            "the {} file's logits differ by {}, expected at most {}; nothing was written",
            kind,
            f"{difference:.1e}",
            f"{TOLERANCE * max(1.0, largest):.1e}",
        )
    return difference, largest
