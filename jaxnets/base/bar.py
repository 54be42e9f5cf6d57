"""The bar that shows how far a slow piece of work is."""

from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, **settings: Any) -> "tqdm[Any]":
    """A bar on stderr that leaves no trace; without a terminal there is none.

    Args:
      total: The number of parts, if it is known.
      **settings: Other arguments of tqdm.
    """
    return tqdm(total=total, **{"leave": False, "disable": None, "dynamic_ncols": True, **settings})
