"""A chain of layers as plain data, which a run folder records and which runs no code.

A row is a layer: its kind, its name, and the settings that differ from its defaults.

    nn.Conv(32, (3, 3), kernel_init=HE)
    {"kind": "conv", "name": "conv1", "features": 32, "kernel_size": [3, 3],
     "kernel_init": {"variance_scaling": {"scale": 2.0, "mode": "fan_in", ...}}}

A kind is a name in the table of layers (`backprop/rules.py`), or that of another layer of Flax's. A
layer of the user's own is named with its file and the file's SHA-256; it is found only if the user
has named that file in this process (`know_file`).
"""

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
from flax.linen import activation

from jaxnets.backprop.rules import LAYERS
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import Text
from jaxnets.models.chain import Chain, Layer, kind_of

Row = dict[str, Any]
Kind = Callable[..., Any]  # A layer's class, or the function that it is.

_TABLE = [rule for rule in LAYERS if rule.layers and not rule.is_loss]
_NAMES: dict[object, str] = {kind: rule.name for rule in _TABLE for kind in rule.layers}
_KINDS: dict[str, Any] = {rule.name: rule.layers[0] for rule in _TABLE}
# Flax's other layers, except those with state, which a chain cannot have; and its activations.
STATEFUL = ("BatchNorm", "SpectralNorm", "WeightNorm")
# Flax's initializers: those that are made with settings, by their maker, and those without.
MAKERS: dict[str, Kind] = {
    "variance_scaling": nn.initializers.variance_scaling,
    "normal": nn.initializers.normal,
    "truncated_normal": nn.initializers.truncated_normal,
    "uniform": nn.initializers.uniform,
    "constant": nn.initializers.constant,
    "orthogonal": nn.initializers.orthogonal,
    "delta_orthogonal": nn.initializers.delta_orthogonal,
}
READY: dict[str, Kind] = {"zeros": nn.initializers.zeros, "ones": nn.initializers.ones}
MADE_IN = nn.initializers.normal().__module__  # The module of what all makers make.
# A field of every Flax layer; and the dtypes, which the run's precision sets.
NO_SETTINGS = ("parent", "name", "dtype", "param_dtype")
NO_SETTING_OF_ROW = ("kind", "own", "file", "sha256")
NO_OWN_MODULES = ("jax", "flax", "numpy", "functools", "builtins", "jaxnets")
MOST_LAYERS = 1000  # A config.json may come from anyone.

# The user's own layers and initializers by name and their file's SHA-256, and the files by that.
_own: dict[tuple[str, str | None], Any] = {}
_files: dict[str, Path] = {}


def to_rows(chain: Chain) -> list[Row]:
    """The rows of a chain.

    Raises:
      UserError: A layer has a setting that is not plain data.
    """
    return [_to_row(layer) for layer in chain.layers]


def from_rows(rows: object, *, draws: bool = True) -> Chain:
    """The chain of `to_rows`.

    Args:
      rows: Rows, which may come from anyone.
      draws: Whether the chain draws its first weights. If not, an initializer of the user's own is
        not needed.

    Raises:
      UserError: They are not rows, or a file of the user's is needed and not known.
    """
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_LAYERS:
        raise UserError("layers: expected 1 to {} rows, got {}", MOST_LAYERS, f"{rows!r:.40}")
    return Chain([_from_row(row, draws) for row in rows])


def know_file(path: Path, module: ModuleType) -> None:
    """Lets chains find the layers that a file of the user's defines, which has been run."""
    digest = _digest(path)
    _files[digest] = path
    for name, value in vars(module).items():
        if callable(value) and getattr(value, "__module__", None) == module.__name__:
            _own[name, digest] = value


def know_kind(value: Kind) -> Row:
    """Lets chains find a layer or an initializer of the user's own; returns its row."""
    name, module = value.__name__, sys.modules.get(value.__module__)
    if value.__module__.partition(".")[0] in NO_OWN_MODULES:
        raise UserError(
            "{} of {}: expected a function in a file of your own", name, value.__module__
        )
    if not name.isidentifier() or "<locals>" in value.__qualname__:
        raise UserError(
            "{}: expected a function with a name, defined in a file", value.__qualname__
        )
    try:
        path = Path(inspect.getsourcefile(module or value) or "")
    except TypeError:  # Defined in a notebook.
        path = Path()
    if not path.is_file():
        _own[name, None] = value
        return {"own": name, "file": None, "sha256": None}
    digest = _digest(path)
    _own[name, digest], _files[digest] = value, path
    return {"own": name, "file": path.name, "sha256": digest}


def own_parts(rows: object) -> list[Row]:
    """The rows' layers and initializers of the user's own, each as {"own", "file", "sha256"}."""
    if isinstance(rows, Mapping):
        found = [dict(rows)] if "own" in rows else []
        return found + own_parts([*rows.values()])
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return []
    return [part for row in rows for part in own_parts(row)]


def own_files(rows: object) -> set[Path]:
    """The files of `own_parts` that are known."""
    return {_files[one["sha256"]] for one in own_parts(rows) if one["sha256"] in _files}


def _to_row(layer: Layer) -> Row:
    kind, name = kind_of(layer), getattr(layer, "name", None)
    where = f"{kind.__name__} {name or ''}".rstrip()
    if kind.__name__ in STATEFUL and kind.__module__.startswith("flax."):
        raise UserError("{}: expected jaxnets.BatchNorm, whose statistics are parameters", where)
    row = _kind_row(kind)
    if _is_function(layer):
        return row
    row |= {"name": name} if name else {}
    if not dataclasses.is_dataclass(layer):
        if vars(layer):
            raise UserError("{}: expected a dataclass, whose settings can be recorded", where)
        return row
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.name in NO_SETTING_OF_ROW:
            raise UserError("{}: expected another name for its setting than {}", where, field.name)
        if field.name in ("dtype", "param_dtype") and value not in (None, field.default):
            raise UserError("{}: {}: expected none; the run's precision sets it", where, field.name)
        if field.name not in NO_SETTINGS and field.init and value is not field.default:
            row[field.name] = _to_data(value, f"{where}: {field.name}")
    return row


def _kind_row(kind: Kind) -> Row:
    """{"kind"} of ours and Flax's; {"own", "file", "sha256"} of one of the user's."""
    name = _NAMES.get(kind, kind.__name__)
    if kind in _NAMES or _known(name) is kind:
        return {"kind": name}
    return know_kind(kind)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _known(name: str) -> Kind | None:
    """The kind of ours or Flax's that has a name; None if there is none."""
    if name in _KINDS:
        return _KINDS[name]
    found = getattr(nn, name, None)
    if isinstance(found, type) and issubclass(found, nn.Module) and found is not nn.Module:
        return None if name in STATEFUL else found
    return found if _is_function(found) and getattr(activation, name, None) is found else None


def _is_function(layer: object) -> bool:
    return hasattr(layer, "__name__") and not isinstance(layer, type)


def _to_data(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Chain):
        return to_rows(value)
    if isinstance(value, list | tuple):
        return [_to_data(part, where) for part in value]
    if _is_function(value) and callable(value):
        return _initializer_to_data(value)
    raise UserError(
        "{}: expected numbers, texts, or an initializer, got {}", where, f"{value!r:.60}"
    )


def _initializer_to_data(draw: Callable[..., Any]) -> Row:
    """An initializer of Flax's as its maker's name and settings; the user's own by its name."""
    for name, ready in READY.items():
        if draw is ready:
            return {name: {}}
    name = draw.__qualname__.partition(".")[0]
    if draw.__module__ != MADE_IN or name not in MAKERS:
        return know_kind(draw)
    parameters = inspect.signature(MAKERS[name]).parameters
    settings = inspect.getclosurevars(draw).nonlocals  # Flax's functions hold them nowhere else.
    return {
        name: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in settings.items()
            if key in parameters and key != "dtype" and value != parameters[key].default
        }
    }


def _from_row(row: object, draws: bool) -> Layer:
    if not isinstance(row, dict) or not isinstance(name := row.get("kind", row.get("own")), str):
        raise UserError("layers: expected a row with a kind, got {}", f"{row!r:.60}")
    kind = _find_own(row) if "own" in row else _known(name)
    if kind is None:
        raise UserError("layers: expected a kind of layer, got {}", f"{name!r:.40}")
    if _is_function(kind):
        return kind
    given = {key: value for key, value in row.items() if key not in NO_SETTING_OF_ROW}
    fields = getattr(kind, "__dataclass_fields__", {}).keys() - set(NO_SETTINGS) | {"name"}
    if unknown := given.keys() - fields:
        raise UserError("layers: {} has no setting {}", name, f"{min(unknown)!r:.40}")
    try:
        return kind(**{key: _from_data(value, draws) for key, value in given.items()})
    except UserError:
        raise
    except Exception as error:  # What a kind raises for a wrong setting.
        raise UserError("layers: {}: {}", name, first_line(error)) from error


def _find_own(part: Row) -> Kind:
    """The layer or initializer that the user's file defines, if it is known.

    Raises:
      UserError: It is not; the message says which file is needed.
    """
    name, file, digest = part["own"], part.get("file"), part.get("sha256")
    if isinstance(digest, str | None) and (name, digest) in _own:
        return _own[name, digest]
    if file is None:
        raise UserError(
            "{}: a layer of your own, which no file holds; define it first", f"{name!r:.40}"
        )
    changed = any(known == name for known, _ in _own)
    raise UserError(
        "{} is the user's own: expected layers=FILE, {} of SHA-256 {}…, as the run folder keeps it "
        "in layers/{}",
        f"{name!r:.40}",
        f"{str(file)!r:.80}",
        str(digest)[:12],
        Text("; the one that you named has changed since") if changed else "",
    )


def _from_data(value: object, draws: bool) -> object:
    if isinstance(value, list):
        if value and all(isinstance(row, dict) for row in value):
            return from_rows(value, draws=draws)
        return tuple(_from_data(part, draws) for part in value)
    if not isinstance(value, dict):
        return value
    if "own" in value:
        if draws or (value["own"], value.get("sha256")) in _own:
            return _find_own(value)
        return nn.initializers.zeros  # Only its shape is asked for.
    ((name, settings),) = value.items()
    if name in READY:
        return READY[name]
    if name not in MAKERS:
        raise UserError("layers: expected an initializer, got {}", f"{name!r:.40}")
    return MAKERS[name](**{key: _from_data(part, draws) for key, part in settings.items()})
