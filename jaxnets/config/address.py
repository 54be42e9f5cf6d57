"""The address of a run's process 0, and what must go with it in a Config."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxnets.config.fields import Config


def mistakes_with_coordinator(config: "Config") -> Iterator[str]:
    """Yields an error for each field that does not fit the coordinator, which is given."""
    if not is_address(str(config.coordinator)):
        yield f"coordinator: expected HOST:PORT, got {config.coordinator!r}"
    if config.replay_seeds > 1:
        yield f"replay_seeds: expected 1 with coordinator, got {config.replay_seeds}"
    last, index = (config.num_processes or 0) - 1, config.process_id or 0
    if index > last:
        numbers = f"from 0 to {last} for num_processes {last + 1}"
        yield f"process_id: expected a whole number {numbers}, got {index}"


def is_address(text: str) -> bool:
    """Whether a text is HOST:PORT or [HOST]:PORT."""
    found = re.fullmatch(r"(\[[^\]/]+\]|[^:/\s]+):([1-9]\d{0,4})", text)
    try:
        return found is not None and int(found[2]) < 65536 and bool(found[1].encode("idna"))
    except UnicodeError:  # No name of a host, such as one of 64 characters.
        return False
