"""Refuses autodiff in a student's backward pass, at the earliest moment at which it shows.

- A name in the file is an honest error: `files.violation` finds it before the file runs.
- A call without a name in the file, or in a function without a file, shows in the program that JAX
  compiles: `refuse_derivatives`.
- What JAX cannot compile runs number by number. In a sandbox the functions themselves raise:
  `forbid_autodiff`.
"""

import re
import sys

import jax

from jaxnets.base.language import _
from jaxnets.course.exercises.error_messages import ResultError
from jaxnets.course.exercises.files import AUTODIFF


def refuse_derivatives(program: str) -> None:
    """Raises ResultError for a program in which JAX differentiated or transposed.

    Args:
      program: A lowered program with its debugging information, where JAX names its
        transformations, wherever they were called.
    """
    if found := re.search(r"\b(jvp|transpose)\(", program):
        raise _refused(_("differentiates") if found[1] == "jvp" else _("transposes"))


def forbid_autodiff() -> None:
    """Makes JAX's differentiating functions raise an error in this process, by any name."""

    def refuse(*_args: object, **_settings: object) -> None:
        raise _refused(_("differentiates"))

    gone = {id(getattr(jax, name)) for name in AUTODIFF if hasattr(jax, name)}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in gone:
                setattr(module, name, refuse)


def _refused(how: str) -> ResultError:
    return ResultError(_("it {} with JAX; a gradient by hand is derived without it", how))
