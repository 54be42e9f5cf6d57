"""Weights from a file: a run's checkpoint, or weights named as in torchvision's AlexNet.

Both are safetensors files: a header of names, dtypes and shapes, then the numbers. A pickle, such
as a .pth file, can run any code while it is read; none is ever read here.
"""

import contextlib
import hashlib
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.base.display import printable
from jaxnets.base.errors import UserError
from jaxnets.base.language import Text, _
from jaxnets.base.trees import Params
from jaxnets.models.alexnet import TORCHVISION, params_from_torchvision
from jaxnets.models.chain import Chain

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")
# Named as in a file's header. Narrower ones become float32 exactly, wider ones are rounded to it.
FLOATS = ("F16", "BF16", "F32", "F64")
OURS = "params/"  # The prefix of the names of a checkpoint's parameters, as params/conv1/kernel.
HEAD = "logits"  # The last layer of the lecture's networks.

Shape = tuple[int, ...]


def head_of(model: Chain, params: Params) -> str:
    """The name of a network's last layer with parameters."""
    names = [getattr(layer, "name", None) or "" for layer in model.layers]
    return [name for name in names if name in params][-1]


def load_weights(path: str, fresh: Params, head: str = HEAD) -> Params:
    """The parameters that a file holds.

    If the file's last layer has a different number of classes than the network, that layer stays
    freshly drawn; everything else must fit.

    Args:
      path: A .safetensors file: a checkpoint of a run with the same network or, for an AlexNet, the
        tensors features.0.weight, ..., classifier.6.bias.
      fresh: The network's freshly drawn parameters, which give the shapes and dtypes.
      head: The name of its last layer.

    Raises:
      UserError: The file does not fit; the message says what was expected and what was found.
    """
    with _opened(path) as file:
        ours = _are_ours(file.keys())
        names = [n for n in file.keys() if n.startswith(OURS) or not ours]  # noqa: SIM118
        slices = {name: file.get_slice(name) for name in names}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        new_head = _check(shapes, fresh, head, ours)
        for name, part in slices.items():  # Surplus tensors too: NumPy has no FP8.
            if (found := part.get_dtype()) not in FLOATS:
                raise UserError("{}: expected float32 numbers, found {}", name, found)
        tensors = {name: file.get_tensor(name) for name in names}
        dtype = jax.tree.leaves(fresh)[0].dtype
        for name, tensor in tensors.items():
            with np.errstate(over="ignore"):  # Of numbers that only float64 holds.
                if not np.isfinite(tensor.astype(dtype)).all():
                    raise UserError("{}: expected finite {} numbers, found others", name, dtype)
        if ours:
            named = {name.removeprefix(OURS): tensor for name, tensor in tensors.items()}
            params = unflatten_dict(named, sep="/")
        else:
            params = params_from_torchvision(tensors)
    if new_head:
        params[head] = jax.device_get(fresh[head])
    return jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), params, dict(fresh))


def describe_weights(path: str, params: Params, head: str = HEAD) -> str:
    """A line that says which weights `load_weights` took from the file."""
    with _opened(path) as file:
        name, axis = f"{TORCHVISION[HEAD]}.bias", 0
        if _are_ours(file.keys()):
            own = [name for name in sorted(file.keys()) if name.startswith(f"{OURS}{head}/")]
            name, axis = own[0], -1
        theirs = file.get_slice(name).get_shape()[axis]
    ours, path = jax.tree.leaves(params[head])[0].shape[-1], printable(path)
    if theirs == ours:
        return _("weights from {}, including the last layer of {} classes", path, f"{ours:,}")
    return _(
        "weights from {}, but not the last layer: it has {} classes there and {} here, and was "
        "drawn anew",
        path,
        f"{theirs:,}",
        f"{ours:,}",
    )


def weights_sha256(path: str) -> str:
    """The digest of a file that `load_weights` has read."""
    with Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _opened(path: str) -> Generator[Any]:
    """Opens a safetensors file; adds its name to a UserError about its tensors."""
    import safetensors

    given, path = path, str(Path(path).expanduser())
    kind = Path(path).suffix.lower()
    if kind in PICKLES:
        raise UserError(
            "init_from: {} may be a pickle, which can run any code, so it is not read; save "
            'its weights again: python -c "import torch; from safetensors.torch import '
            'save_file; save_file(torch.load({}, weights_only=True), {})"',
            path,
            repr(path),
            repr(str(Path(path).with_suffix(".safetensors"))),
        )
    if kind != ".safetensors":
        raise UserError("init_from: expected a .safetensors file or a run folder, got {}", path)
    if not Path(path).is_file():
        what = Text("not a file") if Path(path).exists() else Text("no such file")
        raise UserError("init_from: {}: {}", what, path)
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "init_from: {} is damaged or not a safetensors file: {}", path, reason
        ) from error
    try:
        with file:
            yield file
    except UserError as error:
        raise UserError("init_from: {}: {}", given, error) from None


def _are_ours(names: Iterable[str]) -> bool:
    """Whether a file of tensors with these names is a checkpoint."""
    return any(name.startswith(OURS) for name in names)


def _check(shapes: dict[str, Shape], fresh: Params, head: str, ours: bool) -> bool:
    """Raises UserError if a tensor has a different shape in the network.

    Returns whether the file's last layer is whole and has a different number of classes.
    """
    if ours:
        named: dict[str, Any] = flatten_dict(dict(fresh), sep="/")
        wanted = {OURS + name: leaf.shape for name, leaf in named.items()}
        names, last, axis = wanted.keys() | shapes.keys(), f"{OURS}{head}/", -1
    elif fresh.keys() == TORCHVISION.keys():
        wanted = {}
        for layer, prefix in TORCHVISION.items():
            kernel, bias = (fresh[layer][part].shape for part in ("kernel", "bias"))
            # [height, width, in, out] there is [out, in, height, width], and [in, out] [out, in].
            weight = (kernel[3], kernel[2], *kernel[:2]) if len(kernel) == 4 else kernel[::-1]
            wanted |= {f"{prefix}.weight": weight, f"{prefix}.bias": bias}
        # params_from_torchvision reports missing and surplus tensors.
        names, last, axis = wanted.keys() & shapes.keys(), TORCHVISION[HEAD], 0
    else:
        raise UserError("the file is not a checkpoint of a run with the same network")

    def sizes_in(found: dict[str, Shape]) -> tuple[list[int], list[list[int]]]:
        """The last layer's numbers of classes, and its other sizes."""
        others = [list(found.get(name) or (0,)) for name in wanted if name.startswith(last)]
        return [sizes.pop(axis) for sizes in others], others

    (theirs, others), (here, same) = sizes_in(shapes), sizes_in(wanted)
    new_head = others == same and len(set(theirs)) == 1 and theirs != here
    for name in sorted(names):
        found, expected = shapes.get(name), wanted.get(name)
        if found != expected and not (new_head and name.startswith(last)):
            raise _other_shape(name.removeprefix(OURS), found, expected)
    return new_head


def _other_shape(name: str, theirs: Shape | None, ours: Shape | None) -> UserError:
    """The error for an array that the file and the network have in different shapes, or not at all.

    >>> print(_other_shape("conv1/bias", (32,), None))
    the file has conv1/bias of shape (32,); this network has no conv1/bias
    """
    has = [
        Text("{} of shape {}", name, shape) if shape else Text("no {}", name)
        for shape in (theirs, ours)
    ]
    return UserError("the file has {}; this network has {}", has[0], has[1])
