"""The flags of `jaxnets gradcheck` and `jaxnets exercise grade`, one object each."""

import dataclasses

from jaxnets.base.errors import UserError
from jaxnets.base.language import Text
from jaxnets.config.command import OF_RECIPE
from jaxnets.config.options import Options, is_file_of_python, option
from jaxnets.config.recipes import PRESETS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checking(Options):
    """What `jaxnets gradcheck` checks: all layers, or one network, mutant or file of yours."""

    model: str | None = option(
        None,
        "network to check, or FILE.py with a function model(num_classes); all also checks the slow "
        "ones, and AlexNet at 224 pixels",
        ("all", *PRESETS),
        unset="every layer, and every network that is fast",
        others=True,
    )
    image_shape: tuple[int, ...] | None = option(
        None,
        "for a FILE.py: height, width and channels of an image",
        (1, 10_000),
        unset=OF_RECIPE,
    )
    draws: int | None = option(
        None,
        "settings to draw for each layer and kernel: shapes, strides, padding, batches",
        (0, 10_000),
        unset="8 to 64, depending on the number of branches",
    )
    seed: int = option(0, "seed of the draws", (0, 2**31 - 1))
    mutant: str | None = option(None, "wrong backward pass to check")
    mine: str | None = option(
        None, "file of your own to check (jaxnets exercise new)", metavar="FILE"
    )
    hint: bool = option(False, "say more about what is wrong in your file")

    def __post_init__(self):
        super().__post_init__()
        given = {"model": self.model, "mutant": self.mutant, "mine": self.mine}
        names = [f"--{name}" for name, value in given.items() if value]
        if len(names) > 1:
            wanted = Text("one of --model, --mutant and --mine")
            raise UserError("expected {}, got {}", wanted, " and ".join(names))
        if self.hint and not (self.mine or self.is_own_network):
            raise UserError("hint: expected it with --mine=FILE or --model=FILE.py, got neither")
        if self.mine and (self.draws is not None or self.seed):
            raise UserError("draws and seed: expected them without --mine=FILE, got both")

    @property
    def is_own_network(self) -> bool:
        """Whether `model` is a file of the user's."""
        return is_file_of_python(self.model)


# What `exercise grade` prints.
TABLE, GRADESCOPE, NBGRADER = "table", "gradescope", "nbgrader"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grading(Options):
    """How `jaxnets exercise grade` runs submissions, and what it writes about them."""

    seconds: int = option(20, "processor seconds that a submission may take", (1, 3600))
    memory: int = option(2048, "MiB that a submission may take", (64, 1 << 20))
    sandbox: str = option("bwrap", "where submissions run", ("bwrap", "podman", "docker"))
    image: str = option("jaxnets-grade", "image of a container (docs/teachers/grading.md)")
    trust: bool = option(False, "run submissions without a sandbox, because they are your own")
    exercises: tuple[str, ...] = option(
        (),
        "exercises of the assignment, with their points if these are not a fifth of the minutes: "
        "dense=3,relu",
        metavar="NAME,...",
        unset="all that were handed in",
    )
    csv: str | None = option(
        None, "table of the points to write, a row for each student", metavar="FILE"
    )
    feedback: str | None = option(
        None, "folder in which to write a text for each student", metavar="FOLDER"
    )
    format: str = option(
        TABLE,
        "what to print: rows, one student's results.json for Gradescope, or the CSV that nbgrader "
        "exports",
        (TABLE, GRADESCOPE, NBGRADER),
    )
