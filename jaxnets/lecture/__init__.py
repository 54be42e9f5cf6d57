"""The slides' own procedure and lines; search over settings and seeds; comparison of models."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxnets.runs.run import Run


def prepare(run: "Run") -> None:
    """Lets an untrained run search and print as the slides do, where its config asks for that."""
    from jaxnets.runs.run_folder import SEARCH

    if run.config.log_format == "lecture":
        from jaxnets.lecture.log import HandwrittenLog, KerasLog

        run.progress = HandwrittenLog if run.config.model == "mlp_handwritten" else KerasLog
    if run.config.latent_dims is not None or run.folder.read(SEARCH):
        from jaxnets.lecture import replay

        run.closing_lines = replay.closing_table
        if run.config.latent_dims is not None:
            replay.search_first(run)
