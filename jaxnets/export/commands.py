"""`jaxnets export`."""

from typing import Annotated, Literal

from jaxnets.config.command import OUTPUT, CommandResult, Flag, command
from jaxnets.runs.commands import OwnLayers, RunPath, check_runs


@command
def export(
    run_folder: RunPath,
    *,
    format: Annotated[
        Literal["safetensors", "stablehlo", "onnx"] | None,
        Flag(unset="the output's ending, else safetensors"),
    ] = None,
    output: Annotated[
        str | None,
        Flag(
            help=OUTPUT,
            metavar="FILE",
            unset="the run folder's name with the format as its ending",
        ),
    ] = None,
    layers: OwnLayers = (),
) -> CommandResult:
    """Write a trained run's network for other programs.

    Args:
      format: safetensors is the archive: arrays, layers, config and class names; onnx and stablehlo
        are for serving
    """
    check_runs(run_folder, layers=layers)

    from jaxnets.export import export

    return export.export(run_folder, format, output)
