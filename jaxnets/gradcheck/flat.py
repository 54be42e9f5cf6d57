"""Any function of trees of arrays as a function of a vector, and what to write if it is none."""

import contextlib
import inspect
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import N_, Text
from jaxnets.gradcheck.quick import jit

Array = TypeVar("Array")  # JAX's or NumPy's.


class Values(NamedTuple, Generic[Array]):
    """A function's values and its gradient, from a call in reverse mode."""

    output: Array  # By the function itself: [outputs].
    forward: Array  # By its forward rule, as jax.vjp returns it.
    gradient: Array  # Of cotangent · outputs: [inputs].


class Flat:
    """A function of trees as a function of a vector [inputs] that returns a vector [outputs]."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        dtype: str,
        named: Callable[[int], str] | None = None,
    ) -> None:
        paths, self.tree = jax.tree_util.tree_flatten_with_path(tuple(args))
        self.function, self.dtype = function, dtype
        self.leaves = [leaf for _path, leaf in paths]
        self.names = [f"args{jax.tree_util.keystr(path)}" for path, _leaf in paths]
        self.places = [n for n, leaf in enumerate(self.leaves) if _is_floating(leaf)]
        floating = [np.asarray(self.leaves[n]) for n in self.places]
        if not any(array.size for array in floating):
            raise UserError(
                "check: expected an argument of floating numbers, such as np.array([1.0, 2.0]), "
                "got none"
            )
        self.shapes = [array.shape for array in floating]
        ends = np.cumsum([array.size for array in floating])
        self.parts = [slice(e - a.size, e) for e, a in zip(ends.tolist(), floating, strict=True)]
        narrow = [array.astype(dtype).astype(np.float64).ravel() for array in floating]
        self.start = np.concatenate(narrow)
        found = jax.tree_util.tree_leaves_with_path(jax.eval_shape(self._tree, self.start))
        if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for _path, leaf in found):
            raise UserError(
                "{} returns complex numbers: write check(lambda x: ({}(x).real, {}(x).imag), x)",
                *[name_of(function)] * 3,
            )
        self.outputs = [(p, leaf) for p, leaf in found if jnp.issubdtype(leaf.dtype, jnp.floating)]
        self.size = sum(math.prod(leaf.shape) for _path, leaf in self.outputs)
        if not self.size:
            raise UserError("check: expected an output of floating numbers, got none")
        self.narrowest = max((str(leaf.dtype) for _p, leaf in self.outputs), key=eps)
        self._named = named
        self.compiled = jit(self.by_reverse)

    def _tree(self, vector: jax.Array) -> object:
        tree = self.function(*self.args_of(self.split(vector.astype(self.dtype))))
        for leaf in jax.tree.leaves(tree):
            if not _is_number(leaf):
                kind = type(leaf).__name__
                raise UserError(
                    "{}: expected arrays from it, got a {}", name_of(self.function), kind
                )
        return tree

    def split(self, vector: jax.Array) -> list[jax.Array]:
        """The floating arguments that are in a vector."""
        pairs = zip(self.parts, self.shapes, strict=True)
        return [vector[part].reshape(shape) for part, shape in pairs]

    def args_of(self, floating: Sequence[jax.Array]) -> tuple[Any, ...]:
        """The arguments with these floating numbers."""
        leaves = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in self.leaves]
        for place, leaf in zip(self.places, floating, strict=True):
            leaves[place] = leaf
        return jax.tree.unflatten(self.tree, leaves)

    def of(self, floating: Sequence[jax.Array]) -> jax.Array:
        """The outputs for these floating arguments, as a vector of their precision."""
        leaves = [
            leaf
            for leaf in jax.tree.leaves(self.function(*self.args_of(floating)))
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        ]
        return jnp.concatenate([jnp.ravel(leaf).astype(floating[0].dtype) for leaf in leaves])

    def __call__(self, vector: jax.Array) -> jax.Array:
        return self.of(self.split(vector))

    def by_reverse(self, vector: ArrayLike, cotangent: ArrayLike) -> Values[jax.Array]:
        """The outputs, twice, and the gradient of cotangent · outputs."""
        vector = jnp.asarray(vector)
        forward, pull_back = jax.vjp(self, vector)
        return Values(self(vector), forward, pull_back(jnp.asarray(cotangent))[0])

    def of_parts(self, *given: jax.Array) -> Values[jax.Array]:
        """The same for the floating arguments, followed by the cotangent."""
        *floating, cotangent = given
        forward, pull_back = jax.vjp(self.of, floating)
        gradient = jnp.concatenate([leaf.ravel() for leaf in pull_back(cotangent)[0]])
        return Values(self.of(floating), forward, gradient)

    def pulled_back(self, vector: ArrayLike, cotangent: ArrayLike) -> jax.Array:
        """The gradient of cotangent · outputs."""
        return jax.vjp(self, jnp.asarray(vector))[1](jnp.asarray(cotangent))[0]

    def input_of(self, index: int) -> str:
        """The input with a number, as "args[0]['kernel'][2, 3]"."""
        if self._named:
            return self._named(index)
        return _element([self.names[place] for place in self.places], self.shapes, index)

    def output_of(self, index: int) -> str:
        """The output with a number, as "output[7]"."""
        shapes = self._output_shapes
        return _element(list(shapes), list(shapes.values()), index)

    def named_outputs(self, vector: jax.Array) -> dict[str, jax.Array]:
        """The outputs that are in a vector, by their names."""
        shapes = self._output_shapes
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
        parts = zip(shapes.items(), jnp.split(vector, ends), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in parts}

    @property
    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"output{jax.tree_util.keystr(path)}": leaf.shape for path, leaf in self.outputs}


def _element(names: Sequence[str], shapes: Sequence[tuple[int, ...]], index: int) -> str:
    for name, shape in zip(names, shapes, strict=True):
        if index < math.prod(shape):
            place = ", ".join(map(str, np.unravel_index(index, shape))) if shape else ""
            return f"{name}[{place}]" if place else name
        index -= math.prod(shape)
    raise IndexError(index)


def _is_floating(leaf: object) -> bool:
    return _is_number(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _is_number(leaf: object) -> bool:
    return isinstance(leaf, int | float | complex | np.ndarray | np.generic | jax.Array)


def eps(dtype: str) -> float:
    """The distance from 1 to the next number of a precision."""
    return float(jnp.finfo(dtype).eps)


BY_ITSELF = Text(N_("each argument by itself, as in check(f, x, w)"))
# What to write in place of a keyword that `check` does not have.
KEYWORDS = {
    "tol": N_("check: each precision has its own tolerance, which has no option: leave out tol="),
    "argnums": N_(
        "check: every floating argument is differentiated: for one of them write "
        "check(lambda x: f(x, w), x) in place of argnums="
    ),
}


def refuse_misuse(
    functions: Sequence[Callable[..., Any]], args: Sequence[object], unknown: Iterable[str]
) -> None:
    """Says what to write in place of a call that `check` is not made for.

    Args:
      functions: The function, and its plain formulation if there is one.
      args: The function's arguments.
      unknown: The keywords that `check` does not have.

    Raises:
      UserError: One line.
    """
    for one in functions:
        if not callable(one):
            kind = type(one).__name__
            raise UserError("check: expected a function and then its arguments, got {}", kind)
    function, name = functions[0], name_of(functions[0])
    for key in unknown:
        if key in KEYWORDS:
            raise UserError(KEYWORDS[key])
        text = N_(
            "check: expected plain=, exact=, order= or seed=, got {}=: write "
            "check(lambda x: {}(x, {}), x)"
        )
        raise UserError(text, key, name, f"{key}=...")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tuple(args)):
        if _is_number(leaf) and jnp.iscomplexobj(leaf):
            raise UserError(
                "args{} is complex: write check(lambda a, b: {}(a + 1j * b), z.real, z.imag)",
                jax.tree_util.keystr(path),
                name,
            )
    try:
        inspect.signature(function).bind(*args)
    except TypeError as error:
        raise UserError("{}: {}; write {}", name, error, BY_ITSELF) from error
    except ValueError:  # Some functions of C have no signature.
        pass


@contextlib.contextmanager
def saying_what_to_write(function: Callable[..., Any], args: Sequence[Any]) -> Generator[None]:
    """Turns what JAX raises for a function that it cannot trace into one line."""
    name = name_of(function)
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        text = N_("{} computes with NumPy: write it with jax.numpy, such as jnp.sin for np.sin")
        raise UserError(text, name) from error
    except jax.errors.ConcretizationTypeError as error:
        text = N_("JAX cannot trace {}: {}; write jnp.where for if, and leave numbers as arrays")
        raise UserError(text, name, first_line(error).rstrip(".")) from error
    except TypeError as error:
        for number, arg in enumerate(args):
            if isinstance(arg, list | tuple):
                text = N_("{} refuses args[{}], a {} ({}): write np.array for numbers, and {}")
                kind, why = type(arg).__name__, first_line(error).rstrip(".")
                raise UserError(text, name, number, kind, why, BY_ITSELF) from error
        raise


def name_of(function: object) -> str:
    """A function's name."""
    return getattr(function, "__name__", type(function).__name__)
