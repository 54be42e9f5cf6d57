"""The first line of a command's process."""

from jaxnets.base import process

TYPE_CHECKING = False  # The import would take longer than all else here.
if TYPE_CHECKING:
    from collections.abc import Callable


def run_main(main: "Callable[[list[str]], int]") -> int:
    """As `errors.run_main`, in a process of its own: a signal ends it in one line from here on."""
    process.begin()
    from jaxnets.base import errors

    return errors.run_main(main)
