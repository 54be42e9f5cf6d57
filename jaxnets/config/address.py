"""The address of a run's process 0."""

import re


def is_address(text: str) -> bool:
    """Whether a text is HOST:PORT or [HOST]:PORT."""
    found = re.fullmatch(r"(\[[^\]/]+\]|[^:/\s]+):([1-9]\d{0,4})", text)
    try:
        return found is not None and int(found[2]) < 65536 and bool(found[1].encode("idna"))
    except UnicodeError:  # No name of a host, such as one of 64 characters.
        return False
