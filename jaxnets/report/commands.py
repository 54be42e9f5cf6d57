"""The commands that show a network or a run: `jaxnets summary`, `report`, `evaluate`, `trace`."""

import dataclasses
import sys
from typing import Annotated, Any, Literal

from jaxnets.base.display import NOT_FINISHED, show
from jaxnets.base.errors import UserError, show_error
from jaxnets.base.language import LANGUAGES, Text, _
from jaxnets.config.command import (
    FIGURE,
    OUTPUT,
    THE_LOCALE,
    CommandResult,
    FigureFile,
    Flag,
    ImageShape,
    checked_shape,
    command,
)
from jaxnets.config.fields import COUNT
from jaxnets.config.resolve import OwnNetwork, preset
from jaxnets.runs.commands import RUN, OwnLayers, RunPath, check_runs


@command
def summary(
    *,
    image_shape: ImageShape = None,
    num_classes: Annotated[int, Flag(COUNT)] = 10,
    output: FigureFile = None,
    **given: Any,
) -> CommandResult:
    """Show a network layer by layer: output shape, parameters, FLOPs.

    Args:
      image_shape: height, width and channels of an image
      num_classes: number of classes, the outputs of the last layer
    """
    from jaxnets.data import published

    shape = checked_shape(image_shape or published.image_shape(preset(**given).dataset))
    if isinstance(own := given.get("model"), OwnNetwork):
        given["model"] = own.for_data(shape, num_classes)
    config = preset(**given)

    from jaxnets.networks.create import create_model
    from jaxnets.report.summary import network_figure, summary

    if output:
        from jaxnets.drawing.svg import figure_path

        figure_path(output)  # What cannot be written is said at once.
    found = summary(create_model(config, num_classes), shape, config.model)
    if output:
        network_figure(found).save(output)
    return found


@command
def report(
    runs: Annotated[
        tuple[str, ...], Flag(help=f"{RUN}; several are set side by side", metavar="RUN...")
    ],
    *,
    output: Annotated[str, Flag(help=OUTPUT, metavar="FILE")] = "report.html",
    figures: Annotated[str | None, Flag(metavar="FOLDER")] = None,
    language: Annotated[str | None, Flag(LANGUAGES, unset=THE_LOCALE)] = None,
    layers: OwnLayers = (),
) -> CommandResult:
    """Show what runs learned, their mistakes and gradients, in one file.

    Args:
      figures: folder for every figure as SVG and PNG (pip install resvg-py)
      language: language of the report
    """
    check_runs(*runs, layers=layers)

    from jaxnets.report.build import write_report

    return write_report(runs, output, figures, language)


@command
def evaluate(
    run_folder: RunPath,
    on: Annotated[str | None, Flag(metavar="FOLDER|NAME")] = None,
    *,
    prepare: Literal["auto", "digit", "picture"] = "auto",
    views: Annotated[tuple[str, ...], Flag(metavar="NAME,...")] = (),
    output: Annotated[str | None, Flag(metavar="FILE")] = None,
    layers: OwnLayers = (),
) -> CommandResult:
    """Measure a trained run on labelled pictures.

    Args:
      on: folder with a folder of pictures for each class, or the name of a data set; without it the
        test images of the run's own data set
      prepare: how a folder's pictures are prepared, as in predict
      views: average the answers over each picture and its mirror, or small shifts, or both: mirror,
        shift
      output: figure of all wrong pictures to write, as .svg or .png; also -o FILE
    """
    check_runs(run_folder, layers=layers)

    from jaxnets.report import evaluate

    if output:
        from jaxnets.drawing.svg import figure_path

        figure_path(output)  # What cannot be written is said at once.
    found = evaluate.evaluate(run_folder, on, prepare_as=prepare, views=views)
    if not found.trained.finished:
        show(_(NOT_FINISHED, found.trained.step), sys.stderr)
    for name, why in found.unreadable:
        show_error(Text("{}: {}", name, why))
    if output and (drawn := evaluate.sheet(found)) is not None:
        drawn.save(output)
        found = dataclasses.replace(found, sheet=output)
    return found


@command
def trace(
    run_folder: Annotated[str | None, Flag(metavar="RUN")] = None,
    *,
    image: Annotated[str | None, Flag(metavar="FILE|N")] = None,
    label: Annotated[
        str | None, Flag(unset="a test image's own, else the network's answer")
    ] = None,
    output: Annotated[str, Flag(help=FIGURE, metavar="FILE")] = "trace.svg",
    layers: OwnLayers = (),
    **given: Any,
) -> CommandResult:
    """Draw one image's numbers through a network, forward and backward.

    Args:
      run_folder: run folder; without it --model=NAME takes a fresh network
      image: picture, or the number of a test image of the data set
      label: class with which the loss compares
    """
    if image is None:
        raise UserError("image: expected --image=FILE, or --image=N for a test image, got none")
    if run_folder and given:
        extra = f"--{next(iter(given))}"
        raise UserError("expected one run, or flags of a fresh network, got {} too", extra)
    check_runs(*filter(None, [run_folder]), layers=layers)

    from jaxnets.report.trace import trace

    return trace(run_folder, given, image, label, output)
