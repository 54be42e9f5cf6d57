"""Networks of the user's own: a file with a function `model(num_classes)`, that function, a Chain.

A file may also have `recipe = dict(...)`, fields of Config, `optimizer(learning_rate)` and
`augment(key, image)` or `augment(key, image, epoch)`.
"""

import ast
import contextlib
import functools
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxnets.base.described import size_text
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import Text
from jaxnets.config.fields import Config
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import OwnNetwork
from jaxnets.config.unknown import unknown_field
from jaxnets.models.batch_norm import STATISTICS
from jaxnets.models.chain import Chain, chains_of, kind_of, shapes_of, walk
from jaxnets.networks.rows import Kind, Row, from_rows, know_file, know_kind, to_rows

TEN_CLASSES = 10  # Until the data are known.

ParamShapes = Mapping[tuple[str, ...], jax.ShapeDtypeStruct]  # By their paths.


def from_file(file: str) -> OwnNetwork:
    """The network that a file's function `model` makes; the file is run.

    Raises:
      UserError: It cannot be read or run, or has no such function; with the file and the line.
    """
    path = Path(file).expanduser()
    module = run_file(path)
    make, recipe = getattr(module, "model", None), getattr(module, "recipe", {})
    if not callable(make) or isinstance(make, nn.Module):
        raise UserError("{}: expected a function model(num_classes), got {}", file, f"{make!r:.40}")
    if path.stem in PRESETS:
        raise UserError("{}: expected a new name, got that of a network of the lecture", file)
    if not isinstance(recipe, dict):
        raise UserError("{}: recipe: expected a dict of settings, got {}", file, f"{recipe!r:.60}")
    for name in recipe:
        if name not in Config.__dataclass_fields__:
            error = unknown_field(str(name), Config.__dataclass_fields__)
            raise UserError("{}: recipe: {}", file, error)
    for name, takes in (("optimizer", "learning_rate"), ("augment", "key, image")):
        if (own := getattr(module, name, None)) is not None:
            if not callable(own):
                got = f"{own!r:.40}"
                raise UserError("{}: expected a function {}({}), got {}", file, name, takes, got)
            recipe = {**recipe, name: _in_one_line(own, f"{name}({takes}): ", Place(path, own))}
    return _network(path.stem, make, recipe, Place(path, make))


def _in_one_line(function: Callable[..., Any], doing: str, place: "Place") -> Callable[..., Any]:
    """The same function, whose errors are one line."""

    @functools.wraps(function)
    def called(*arguments: object, **named: object) -> object:
        with place.in_one_line(doing):
            return function(*arguments, **named)

    return called


def from_object(model: Chain | Callable[[int], Chain]) -> OwnNetwork:
    """The network of a Chain, or of a function (num_classes) -> Chain.

    Raises:
      UserError: It does not make a network.
    """
    if isinstance(model, Chain):
        return _network("chain", lambda num_classes: model, {}, Place())
    if isinstance(model, nn.Module):
        got = type(model).__name__
        raise UserError("model: expected a Chain or a function (num_classes) -> Chain, got {}", got)
    name = getattr(model, "__name__", "")
    return _network(name if name.isidentifier() else "own", model, {}, Place())


def run_file(path: Path) -> ModuleType:
    """Runs a file of the user's, as `python FILE` does, and knows its layers from then on.

    Raises:
      UserError: It cannot be read or run.
    """
    name = f"jaxnets_own.{path.stem}"  # So a file jax.py does not replace JAX.
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError("{}: expected a file of Python, found none", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    with Place(path).in_one_line(""):
        sys.path.insert(0, folder)
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(folder)
    know_file(path.resolve(), module)
    return module


def know(layer: str | Kind) -> None:
    """Lets run folders find a layer of the user's own: its class, its function, or its file."""
    if isinstance(layer, str):
        run_file(Path(layer).expanduser())
    else:
        know_kind(layer)


class Place:
    """Where a user's network is written, for one-line errors."""

    def __init__(self, path: Path | None = None, make: Callable[..., Any] | None = None):
        self._path = path
        self._line = getattr(getattr(make, "__code__", None), "co_firstlineno", 1)

    @property
    def file(self) -> str | None:
        """The file; None in a notebook."""
        return None if self._path is None else str(self._path)

    def of(self, layer: str = "") -> str:
        """The file and the line; for a layer, the line that gives it its name."""
        if self._path is None:
            return ""
        found = self._line
        for node in ast.walk(ast.parse(self._path.read_bytes())):
            if isinstance(node, ast.keyword) and node.arg == "name":
                named = node.value
                found = named.lineno if ast.unparse(named) == repr(layer) else found
        return f"{self._path}:{found}: "

    @contextlib.contextmanager
    def in_one_line(self, doing: str) -> Generator[None]:
        """Turns an error in the user's code into one line with its place."""
        try:
            yield
        except SyntaxError as error:
            line = "" if error.lineno is None else f":{error.lineno}"
            raise UserError("{}{}: {}", error.filename or self.file, line, error.msg) from error
        except (Exception, SystemExit) as error:
            steps = traceback.extract_tb(error.__traceback__)
            file = str(self._path and self._path.resolve())
            ours = [step for step in steps if os.path.realpath(step.filename) == file]
            where = f"{self._path}:{ours[-1].lineno}: " if ours else self.of()
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            raise UserError("{}{}{}{}", where, doing, kind, first_line(error)) from error


def _network(
    name: str, make: Callable[[int], Any], recipe: dict[str, Any], place: Place
) -> OwnNetwork:
    def of(num_classes: int) -> tuple[list[Row], Chain]:
        with place.in_one_line(f"model({num_classes}): "):
            made = make(num_classes)
            if not isinstance(made, Chain):
                raise UserError("expected a jaxnets.Chain, got {}", type(made).__name__)
            rows = to_rows(made)
            return rows, from_rows(rows)

    def for_data(image_shape: tuple[int, ...], num_classes: int) -> OwnNetwork:
        rows, chain = of(num_classes)
        params = _check_shapes(chain, image_shape, num_classes, place)
        _check_params(chain, params, place)
        return OwnNetwork(name, rows, recipe, place.file, for_data)

    return OwnNetwork(name, of(TEN_CLASSES)[0], recipe, place.file, for_data)


def _check_shapes(
    chain: Chain, image_shape: tuple[int, ...], num_classes: int, place: Place
) -> ParamShapes:
    """The shapes of its parameters; UserError unless the chain makes logits of these images."""
    shape: tuple[int, ...] = (2, *image_shape)
    params: Any = {}
    for number, layer in enumerate(chain.layers, start=1):
        name = getattr(layer, "name", None) or ""
        what = Text(
            "layer {} ({})", number, " ".join(filter(None, [kind_of(layer).__name__, name]))
        )
        before = size_text(shape[1:])
        window = getattr(layer, "kernel_size", ())
        if len(shape) == 4 and isinstance(window, int):
            raise UserError(
                "{}{}: expected a kernel_size for rows and columns, as ({}, {}), got {}",
                place.of(name),
                what,
                window,
                window,
                window,
            )
        if 0 in np.ravel(getattr(layer, "strides", 1)):
            raise UserError("{}{}: expected strides above 0, got 0", place.of(name), what)
        try:
            out, its_params = shapes_of(layer, shape)
        except Exception as error:
            raise UserError(
                "{}{} does not take {}: {}", place.of(name), what, before, first_line(error)
            ) from error
        shape = out.shape
        params |= flatten_dict(its_params)
        if 0 in shape:
            raise UserError("{}{}: images of {} are too small for it", place.of(name), what, before)
    if shape != (2, num_classes):
        got, hint = size_text(shape[1:]), ""
        if len(shape) > 2:
            hint = Text(
                "; flatten or global_average_pool before a dense layer turns an image into a row"
            )
        raise UserError(
            "{}{}: expected {} logits, got {}{}", place.of(name), what, num_classes, got, hint
        )
    if kind_of(chain.layers[-1]).__name__ == nn.softmax.__name__:
        raise UserError(
            "{}{}: expected logits from the last layer, got probabilities; the loss and "
            "predict take the softmax, so leave it out",
            place.of(name),
            what,
        )
    return params


def _check_params(chain: Chain, params: ParamShapes, place: Place) -> None:
    """Raises UserError for parameters that no step could train."""
    for path, leaf in params.items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = f"{place.of(path[0])}{'.'.join(path)}"
            raise UserError("{}: expected floating-point numbers, got {}", where, leaf.dtype)
    for path, layer in walk(chain):
        if chains_of(layer) or isinstance(layer, nn.BatchNorm):
            continue
        for name in {p[-1] for p in params if p[: len(path)] == path}.intersection(STATISTICS):
            raise UserError(
                "{}{}: expected another name for its parameter than {}, which is a running "
                "statistic of a batch norm",
                place.of(path[-1]),
                kind_of(layer).__name__,
                name,
            )
