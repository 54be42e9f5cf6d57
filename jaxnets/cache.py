"""The folder where jaxnets keeps what it can download, decode or compile again."""

import os
from pathlib import Path

from jaxnets.errors import UserError


def cache_folder(name: str = "") -> Path:
    """The folder of that name in the user's cache: below XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):  # As in a container that runs under an unknown uid.
        raise UserError(
            "cache: expected a home folder for this user, found none; set HOME or XDG_CACHE_HOME"
        )
    return Path(cache) / "jaxnets" / name
