"""The words of a command line that are no flags."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from jaxnets.cli import guesses
from jaxnets.config.options import metavar
from jaxnets.errors import UserError


def positionals(
    words: list[str], fields: Sequence[dataclasses.Field], flags: Collection[str], started: str
) -> dict[str, Any]:
    """Gives each positional option a word; an option whose type is tuple takes all the rest."""
    needed = [field for field in fields if field.default is dataclasses.MISSING]
    if len(words) < len(needed):
        missing = " ".join(map(metavar, needed[len(words) :]))
        wanted = " ".join([started, *map(metavar, fields)])
        got = f"only {' '.join(words)}" if words else "none"
        raise UserError(f"expected {missing}, got {got}: {wanted} (--help explains)")
    given: dict[str, Any] = {}
    for field in fields:
        if field.type is str:
            given[field.name], *words = words
        else:
            given[field.name], words = tuple(words), []
    if words:
        hint = guesses.for_word(words[0], flags)
        raise UserError(f"expected flags as --name=value, got {words[0]!r}{hint}")
    return given
