"""Short reprs: what an object is, instead of its arrays.

Nothing here imports JAX.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jaxnets.base.suggestions import suggest


class Described:
    """An object whose repr is short, and which suggests the right attribute for a wrong one."""

    def _repr_fields(self) -> dict[str, Any]:
        """The names and values that a repr shows."""
        raise NotImplementedError

    def __repr__(self) -> str:
        try:
            fields = self._repr_fields()
        except Exception:  # A tracer has none.
            return object.__repr__(self)
        return f"{type(self).__name__}({', '.join(f'{n}={_show(x)}' for n, x in fields.items())})"

    if not TYPE_CHECKING:  # Type checkers then find wrong names.

        def __getattr__(self, name):
            known = [found for found in dir(self) if not found.startswith("_")]
            # A known name is a property that failed, whose error the last line raises again.
            if name not in known and name[0] != "_":
                suggest(type(self).__name__, name, known)
            return getattr(super(), "__getattr__", super().__getattribute__)(name)


def size_text(shape: Iterable[int]) -> str:
    """A shape as text.

    >>> size_text((28, 28, 1))
    '28 x 28 x 1'
    """
    return " x ".join(map(str, shape))


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else repr(value)
