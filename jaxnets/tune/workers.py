"""The flags that choose what trains the cells of a search, read before jax starts."""

import contextlib
import dataclasses
import re
from collections.abc import Generator, Sequence
from typing import Any

from jaxnets.base.errors import UserError, before_end
from jaxnets.base.system import num_cores
from jaxnets.config.options import Options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workers(Options):
    """The flags that choose what trains the cells."""

    processes: int = option(
        1, "number of local processes that train at the same time and share the cores", (1, 512)
    )
    ray: str | None = option(
        None,
        "Ray cluster that trains: local starts one here, an address joins one",
        metavar="ADDRESS",
        unset="none",
    )
    cell: str | None = option(
        None,
        "share of the work, such as 3/8 for the third of eight tasks of a SLURM array; then "
        "--resume without it collects the results",
        metavar="I/N",
        unset="all",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.ray is not None and self.processes > 1:
            raise UserError("processes and ray exclude each other, got both")
        self.share_of([])

    @property
    def are_several(self) -> bool:
        """Whether other commands train the other shares, maybe at the same time."""
        return self.cell is not None

    def share_of(self, programs: Sequence[Any]) -> Sequence[Any]:
        """The share of the programs that this process trains; I may count from 0 or from 1."""
        given = "0/1" if self.cell is None else self.cell
        found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", given)
        number, count = map(int, found.groups()) if found else (1, 0)
        if number > count or count == 0:
            raise UserError("cell: expected I/N as 3/8, with I up to N, got {}", repr(given))
        return programs[number % count :: count]

    @property
    def threads(self) -> int:
        """The number of threads with which XLA computes a task on a CPU."""
        return 1 if self.ray is not None else max(1, num_cores() // self.processes)

    @contextlib.contextmanager
    def started(self, work: Any) -> Generator[Any]:
        """Starts the backend that the flags choose, and closes it after the block."""
        from jaxnets.tune import backends  # multiprocessing: a third of `--help`'s time.

        if self.ray is not None:
            backend = backends.RayCluster(work, self.ray)
        elif self.processes > 1:
            backend = backends.LocalProcesses(work, self.processes, self.threads)
        else:
            backend = backends.ThisProcess(work)
        with contextlib.closing(backend), before_end(backend.kill):
            yield backend
