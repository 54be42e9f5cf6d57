"""Shows hand-derived gradients right: exactly, by autodiff of stock JAX, and by differences."""

import sys
from types import ModuleType
from typing import Protocol

from jaxnets.base.errors import UserError


class Checked(Protocol):
    """A jaxnets.Network, which is in a room above this one."""

    def gradcheck(self) -> bool:
        """Whether all gradients agree."""
        ...


def gradcheck(network: Checked) -> bool:
    """Checks a Network's gradients by hand, as its method `gradcheck` does.

    Args:
      network: A jaxnets.Network.

    Raises:
      UserError: It is not a Network.
    """
    if not hasattr(network, "gradcheck"):
        raise UserError(
            'expected a jaxnets.Network, such as Network("cnn"), got a {}; '
            "jaxnets.check_layer(layer, shapes) checks a layer",
            type(network).__name__,
        )
    return network.gradcheck()


class _Callable(ModuleType):
    """This package, which can be called.

    `jaxnets.gradcheck` is the function until the first import from the package, which binds the
    package to that name.
    """

    __call__ = staticmethod(gradcheck)


sys.modules[__name__].__class__ = _Callable
