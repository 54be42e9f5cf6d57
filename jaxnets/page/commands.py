"""`jaxnets page`."""

from typing import Annotated

from jaxnets.base.language import LANGUAGES
from jaxnets.config.command import OUTPUT, CommandResult, Flag, command
from jaxnets.runs.commands import OwnLayers, RunPath, check_runs


@command
def page(
    run_folder: RunPath,
    *,
    output: Annotated[str, Flag(help=OUTPUT, metavar="FILE")] = "page.html",
    language: Annotated[str | None, Flag(LANGUAGES, unset="the browser's")] = None,
    layers: OwnLayers = (),
) -> CommandResult:
    """Write a web page that shows a trained run at work, in one file.

    Args:
      language: first language of the page
    """
    check_runs(run_folder, layers=layers)

    from jaxnets.page.build import write_page

    return write_page(run_folder, output, language)
