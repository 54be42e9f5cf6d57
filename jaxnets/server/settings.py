"""The flags of `jaxnets serve`: where the server listens, and what it does with its users."""

import dataclasses

from jaxnets.base.errors import UserError
from jaxnets.config.fields import COUNT
from jaxnets.config.options import Options, option

HALVES = "50/50"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving(Options):
    """How one run, or two in an A/B test, are served."""

    split: str = option(HALVES, "percentages of users for A and B", metavar="A/B")
    host: str = option(
        "127.0.0.1", "address to listen at; 0.0.0.0 is every address", metavar="HOST"
    )
    port: int = option(8000, "port to listen at; 0 takes a free one", (0, 65535))
    feedback: str | None = option(
        None,
        "SQLite file to which the feedback is appended, or postgresql://USER@HOST/DATABASE",
        metavar="FILE|URL",
        unset="feedback-RUN.sqlite next to the run",
    )
    ray: str | None = option(
        None,
        "Ray cluster that serves in several processes: local starts one here, an address joins one",
        metavar="local|ADDRESS",
        unset="one process, without Ray",
    )
    replicas: int = option(1, "with --ray: number of processes, each on one core", COUNT)

    def __post_init__(self):
        super().__post_init__()
        share_of_b(self.split)  # Raises before anything is loaded.
        if self.replicas > 1 and self.ray is None:
            raise UserError("replicas: expected --ray=local or --ray=ADDRESS with it")

    @property
    def share_of_b(self) -> float:
        """The share of the users who get the second run."""
        return share_of_b(self.split)


def share_of_b(split: str) -> float:
    """The share of the users who get B, from a text such as "50/50"."""
    parts = split.split("/")
    try:
        a, b = map(float, parts)
        if min(a, b) > 0 and a + b < float("inf"):
            return b / (a + b)
    except ValueError:
        pass
    raise UserError("split: expected two percentages such as 50/50, got {}", repr(split))
