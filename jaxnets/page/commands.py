"""`jaxnets page`."""

from typing import Annotated

from jaxnets.base.display import print_answer
from jaxnets.base.errors import DONE
from jaxnets.base.language import LANGUAGES
from jaxnets.config.command import OUTPUT, Flag, Json, command
from jaxnets.runs.commands import OwnLayers, RunFolder, check_runs


@command
def page(
    run_folder: RunFolder,
    *,
    output: Annotated[str, Flag(help=OUTPUT, metavar="FILE")] = "page.html",
    language: Annotated[str | None, Flag(LANGUAGES, unset="the browser's")] = None,
    layers: OwnLayers = (),
    json: Json = False,
) -> int:
    """Write a web page that shows a trained run at work, in one file.

    Args:
      language: language in which the page begins
    """
    check_runs(run_folder, layers=layers)

    from jaxnets.page.build import to_text, write_page

    written = write_page(run_folder, output, language)
    print_answer(written, to_text(written), json)
    return DONE
