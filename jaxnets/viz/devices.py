"""The devices that JAX finds on this machine, and those that would be used."""

from typing import Any

import jax

from jaxnets.display import table
from jaxnets.machine.platform import describe, versions
from jaxnets.training.parallel import Parallel


def to_values(parallel: Parallel) -> dict[str, Any]:
    """The platform, what is there, what would be used and how, and the versions."""
    found = jax.devices()
    return {
        "platform": found[0].platform,
        "kind": found[0].device_kind,
        "count": len(found),
        "used": len(parallel.devices),
        "parallel": parallel.kind,
        "description": describe(parallel.devices),
        "versions": versions(),
    }


def to_text(values: dict[str, Any]) -> str:
    """The same for people, a line each."""
    lines = {
        "platform": values["platform"],
        "devices": f"{values['count']} x {values['kind']}",
        "used": f"{values['used']} by {values['parallel']} ({values['description']})",
        "versions": ", ".join(" ".join(pair) for pair in values["versions"].items()),
    }
    return "\n".join(table(list(lines.items()), "<<"))
