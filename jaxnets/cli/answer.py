"""Prints a command's result: JSON for machines, lines for people."""

import json
from typing import Any

from jaxnets.display import show

JSON = "print JSON instead of a table"


def print_answer(values: Any, text: str, as_json: bool) -> None:
    """Prints the values as JSON, or the text that says the same."""
    if as_json:
        print(json.dumps(values, indent=2))
    else:
        show(text)
