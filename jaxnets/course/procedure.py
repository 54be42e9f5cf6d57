"""The flags of `jaxnets replay`: what the slides' program does before its last training."""

import dataclasses

from jaxnets.config.fields import COUNT, UNITS
from jaxnets.config.options import Options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Procedure(Options):
    """The search of the slides' program, and how often everything is repeated."""

    sizes: tuple[int, ...] = option(
        (100, 200, 300), "hidden sizes that mlp_handwritten compares first", UNITS
    )
    search_epochs: int = option(20, "full-batch steps for each size", COUNT)
    seeds: int = option(1, "seeds for which search and training are repeated", (1, 1000))

    @property
    def command(self) -> list[str]:
        """The words of the command that resumes it; the sizes are in the run folder."""
        usual = Procedure()
        names = [n for n in ("search_epochs", "seeds") if getattr(self, n) != getattr(usual, n)]
        return ["replay", *(f"--{name}={getattr(self, name)}" for name in names)]
