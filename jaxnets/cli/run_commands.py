"""The commands that use a trained run, each with its flags and the room that does the work."""

import dataclasses
import json
import os
from pathlib import Path

from jaxnets.config.fields import COUNT
from jaxnets.config.options import Options, option
from jaxnets.display import show
from jaxnets.errors import DONE, WRONG_REQUEST, UserError

JSON = "print JSON instead of a table"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Options):
    """Name what is in your own pictures, by a trained run."""

    run_folder: str = option(
        dataclasses.MISSING, "run folder, which train.py names at its end", metavar="RUN"
    )
    images: tuple[str, ...] = option(
        dataclasses.MISSING,
        "a picture, a folder (for every picture in it, not in its folders), or - for stdin",
        metavar="IMAGE...",
    )
    top: int = option(5, "number of classes to name, the most probable ones", COUNT)
    prepare: str = option(
        "auto",
        "how a picture is prepared: digit takes it for a photo or scan of one character and makes "
        "it like MNIST's images; digits finds several characters and reads each; picture only "
        "cuts out the middle square; auto is digit for runs on 28 x 28 grey images whose class "
        "names have one character, and reports a picture of several",
        ("auto", "digit", "digits", "picture"),
    )
    show: bool = option(False, "draw what the network saw")
    json: bool = option(False, JSON)

    def run(self) -> int:
        if self.show and self.json:
            raise UserError("show and json exclude each other, got both")
        if not _holds_run(self.run_folder) and (runs := [*filter(_holds_run, self.images)]):
            raise UserError(f"expected the run before the pictures: predict {runs[0]} IMAGE...")
        _check_exists(self.run_folder)

        from jaxnets.serving.answer import answer

        all_good = answer(
            self.run_folder,
            self.images,
            top=self.top,
            prepare_as=self.prepare,
            as_json=self.json,
            show=self.show,
        )
        return DONE if all_good else WRONG_REQUEST


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page(Options):
    """Write a web page that shows a trained run at work, in one file."""

    run_folder: str = option(
        dataclasses.MISSING, "run folder, which train.py names at its end", metavar="RUN"
    )
    output: str = option(
        "page.html", "file to write, which replaces an older one; also -o FILE", metavar="FILE"
    )
    json: bool = option(False, JSON)

    def run(self) -> int:
        _check_exists(self.run_folder)

        from jaxnets.serving.page.build import to_text, write_page

        written = write_page(self.run_folder, self.output)
        if self.json:
            print(json.dumps(written, indent=2))
        else:
            show(to_text(written))
        return DONE


def _check_exists(run_folder: str) -> None:
    """Raises UserError, which names the newest run, if there is no such folder."""
    if not os.path.exists(run_folder):
        hint = "train.py prints its name at the end of a run"
        if runs := list(Path("runs").glob("*/config.json")):
            hint = f"the newest is {max(runs, key=os.path.getmtime).parent}"
        raise UserError(f"{run_folder}: expected a run folder, found no config.json; {hint}")


def _holds_run(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "config.json"))
