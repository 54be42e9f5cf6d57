"""`jaxnets runs`, and the arguments of all commands that read run folders."""

import os
from pathlib import Path
from typing import Annotated

from jaxnets.base.errors import UserError
from jaxnets.base.language import Text
from jaxnets.config.command import CommandResult, Flag, command

RUN = "run folder, which train.py names at its end"
RunPath = Annotated[str, Flag(help=RUN, metavar="RUN")]
OwnLayers = Annotated[
    tuple[str, ...],
    Flag(
        help="file that defines the run's own layers, if it has some; the file is executed "
        "(docs/own-networks.md)",
        metavar="FILE.py",
        unset="no file is executed",
        repeated=True,
    ),
]


@command
def runs(folder: Annotated[str | None, Flag(metavar="FOLDER")] = None) -> CommandResult:
    """List the runs of a folder, and how to resume unfinished ones.

    Args:
      folder: folder of run folders; without it runs
    """
    from jaxnets.runs.listing import list_runs

    return list_runs(folder)


def check_runs(*run_folders: str, layers: tuple[str, ...] = ()) -> None:
    """Checks that run folders exist, and runs the files that define the user's own layers.

    Raises:
      UserError: A folder is missing; the error names the newest run.
    """
    for folder in run_folders:
        if not os.path.exists(folder):
            hint = Text("train.py prints its name at the end of a run")
            if found := list(Path("runs").glob("*/config.json")):
                hint = Text("the newest is {}", max(found, key=os.path.getmtime).parent)
            shown = "a URL" if "://" in folder else folder  # It may hold a password.
            raise UserError("{}: expected a run folder, found no config.json; {}", shown, hint)
    if layers:
        from jaxnets.networks.own import know

        for file in layers:
            know(file)


def holds_run(folder: str) -> bool:
    """Whether a folder has a run's config.json."""
    return os.path.exists(os.path.join(folder, "config.json"))
