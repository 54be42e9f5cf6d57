"""`jaxnets predict`."""

from typing import Annotated, Literal

from jaxnets.base.errors import DONE, WRONG_REQUEST, UserError
from jaxnets.config.command import Flag, Json, command
from jaxnets.config.fields import COUNT
from jaxnets.predict import ENGINES
from jaxnets.runs.commands import OwnLayers, RunPath, check_runs, holds_run

Engine = Annotated[
    str,
    Flag(
        ENGINES,
        "what computes the network: onnxruntime answers few pictures sooner on a CPU, always in "
        "float32 (pip install 'jaxnets[export]')",
    ),
]


@command
def predict(
    run_folder: RunPath,
    images: Annotated[tuple[str, ...], Flag(metavar="IMAGE...")],
    *,
    top: Annotated[int, Flag(COUNT)] = 5,
    prepare: Literal["auto", "digit", "digits", "picture"] = "auto",
    engine: Engine = "jax",
    layers: OwnLayers = (),
    json: Json = False,
) -> int:
    """Name what your own pictures show, with a trained run.

    Args:
      images: a picture, a folder (its pictures; if it has none, those of its class folders), or -
        for stdin
      top: number of classes to name, the most probable ones
      prepare: how a picture is prepared: digit treats it as a photo or scan of one character and
        makes it like MNIST's images; digits finds several characters and reads each; picture only
        cuts out the middle square; auto is digit for runs on 28 x 28 grey images whose class names
        have one character, and reports a picture with several
    """
    if not holds_run(run_folder) and (runs := [*filter(holds_run, images)]):
        raise UserError("expected the run before the pictures: predict {} IMAGE...", runs[0])
    check_runs(run_folder, layers=layers)

    from jaxnets.predict.answer import answer

    all_good = answer(run_folder, images, top=top, prepare_as=prepare, engine=engine, as_json=json)
    return DONE if all_good else WRONG_REQUEST
