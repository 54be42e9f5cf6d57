"""The flags of `jaxnets abtest` that are decided before the first user comes."""

import dataclasses

from jaxnets.config.options import Options, option
from jaxnets.server.settings import HALVES, share_of_b


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Options):
    """The choices that are made before the first user comes."""

    alpha: float = option(0.05, "chance of a false alarm", (1e-6, 0.5))
    effect: float = option(
        0.02, "smallest difference in accuracy that matters to you", (1e-4, 0.99)
    )
    power: float = option(0.8, "chance of finding that difference", (0.5, 0.999))
    split: str = option(HALVES, "for a log: percentages of users for A and B", metavar="A/B")

    def __post_init__(self):
        super().__post_init__()
        share_of_b(self.split)  # Raises before anything is read.

    @property
    def share_b(self) -> float:
        """The chance that a user gets model B."""
        return share_of_b(self.split)
