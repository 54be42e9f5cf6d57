"""`jaxnets gradcheck`, and `jaxnets exercise` with its parts."""

from typing import Annotated, Any, Literal

from jaxnets.base.errors import DONE, RUN_FAILED, UserError
from jaxnets.base.language import Text, speaking
from jaxnets.config.command import (
    AnswerLanguage,
    CommandResult,
    Flag,
    ImageShape,
    Json,
    checked_shape,
    command,
)
from jaxnets.config.options import is_file_of_python
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset

StudentName = Annotated[str | None, Flag(metavar="NAME", unset="everybody's numbers")]


@command
def gradcheck(
    *,
    model: Annotated[
        str | None,
        Flag(("all", *PRESETS), unset="every layer, and every network that is fast", others=True),
    ] = None,
    image_shape: ImageShape = (28, 28, 1),
    draws: Annotated[
        int | None, Flag((0, 10_000), unset="8 to 64, depending on the number of branches")
    ] = None,
    seed: Annotated[int, Flag((0, 2**31 - 1))] = 0,
    mutant: str | None = None,
    mine: Annotated[str | None, Flag(metavar="FILE")] = None,
    hint: bool = False,
    language: AnswerLanguage = None,
    json: Json = False,
) -> CommandResult | int:
    """Check hand-derived gradients by autodiff and central differences.

    Args:
      model: network to check, or FILE.py with a function model(num_classes); all also checks
        the slow ones, and AlexNet at 224 pixels
      image_shape: for a FILE.py: height, width and channels of an image
      draws: settings to draw for each layer and kernel: shapes, strides, padding, batches
      seed: seed of the draws
      mutant: wrong backward pass to check
      mine: file of your own to check (jaxnets exercise new)
      hint: say more about what is wrong in your file
    """
    given = {"model": model, "mutant": mutant, "mine": mine}
    names = [f"--{name}" for name, value in given.items() if value]
    if len(names) > 1:
        wanted = Text("one of --model, --mutant and --mine")
        raise UserError("expected {}, got {}", wanted, " and ".join(names))
    own = is_file_of_python(model)
    if hint and not (mine or own):
        raise UserError("hint: expected it with --mine=FILE or --model=FILE.py, got neither")
    if language and not mine:
        raise UserError("language: expected it with --mine=FILE, got it alone")
    if mine and (draws is not None or seed):
        raise UserError("draws and seed: expected them without --mine=FILE, got both")
    if mine:
        from jaxnets.course.exercises.printed import check_mine

        with speaking("en" if json else language):
            return check_mine(mine, hint)

    from jaxnets.course.exercises import judge
    from jaxnets.gradcheck.table import print_checks

    checked: Any = model
    if own:
        from jaxnets.gradcheck.networks import NUM_CLASSES, NetworkCase
        from jaxnets.networks.own import from_file

        image = checked_shape(image_shape)
        checked = NetworkCase(preset(from_file(str(model)).for_data(image, NUM_CLASSES)), image)
    wrong = None if mutant is None else (mutant, judge.mutant(mutant))
    with speaking("en" if json else None):
        agrees = print_checks(checked, wrong, json, hint, draws, seed)
    return DONE if agrees else RUN_FAILED


@command
def exercise(
    *,
    week: Annotated[int | None, Flag((1, 9), unset="all weeks")] = None,
    language: AnswerLanguage = None,
) -> CommandResult:
    """List exercises, write one into a file, check it, train with it.

    Args:
      week: week of the course whose exercises to list
    """
    from jaxnets.course.exercises.printed import listing

    with speaking(language):
        return listing(week)


@command
def new(
    name: Annotated[str, Flag(metavar="NAME")],
    *,
    output: Annotated[
        str | None,
        Flag(help="file to write; also -o FILE", unset="my_NAME", metavar="FILE"),
    ] = None,
    student: StudentName = None,
    language: AnswerLanguage = None,
) -> CommandResult:
    """Write an exercise into a file.

    Args:
      name: exercise, as the list of exercises names it
      student: student whose own numbers are put into an exercise to compute
    """
    from jaxnets.course.exercises.printed import write

    with speaking(language):
        return write(name, output, student)


@command
def check(
    file: Annotated[str, Flag(metavar="FILE")],
    *,
    hint: bool = False,
    language: AnswerLanguage = None,
    json: Json = False,
) -> CommandResult:
    """Check your answers.

    Args:
      file: file that exercise new wrote, with your answers
      hint: say more about what is wrong
    """
    from jaxnets.course.exercises import printed

    with speaking("en" if json else language):
        return printed.check(file, hint)


@command
def answers(
    name: Annotated[str | None, Flag(metavar="NAME")] = None,
    *,
    output: Annotated[
        str | None, Flag(help="file to write; also -o FILE", unset="none", metavar="FILE")
    ] = None,
    student: StudentName = None,
    language: AnswerLanguage = None,
) -> CommandResult:
    """Show the answers, for teachers.

    Args:
      name: exercise; all if none is named
      student: student whose own numbers are put into an exercise to compute
    """
    from jaxnets.course.exercises import printed

    with speaking(language):
        return printed.answers(name, student, output)


@command
def grade(
    submissions: Annotated[str, Flag(metavar="SUBMISSIONS")],
    *,
    seconds: Annotated[int, Flag((1, 3600))] = 20,
    memory: Annotated[int, Flag((64, 1 << 20))] = 2048,
    sandbox: Literal["bwrap", "podman", "docker"] = "bwrap",
    image: str = "jaxnets-grade",
    trust: bool = False,
    exercises: Annotated[
        tuple[str, ...], Flag(metavar="NAME,...", unset="all that were handed in")
    ] = (),
    csv: Annotated[str | None, Flag(metavar="FILE")] = None,
    feedback: Annotated[str | None, Flag(metavar="FOLDER")] = None,
    format: Literal["table", "gradescope", "nbgrader"] = "table",
    language: AnswerLanguage = None,
    json: Json = False,
) -> int:
    """Grade a folder of submissions, each in a separate sandbox.

    Args:
      submissions: a file, or a folder with files, for each student: .py and .toml
      seconds: processor seconds that a submission may take
      memory: MiB that a submission may take
      sandbox: where submissions run
      image: image of a container (docs/teachers/grading.md)
      trust: run submissions without a sandbox, because they are your own
      exercises: exercises of the assignment, with their points if these are not a fifth of the
        minutes: dense=3,relu
      csv: table of the points to write, a row for each student
      feedback: folder in which to write a text for each student
      format: what to print: rows, one student's results.json for Gradescope, or the CSV that
        nbgrader exports
    """
    from jaxnets.course.exercises import printed
    from jaxnets.course.exercises.sandbox import TRUST, Limits, Sandbox

    if json and format != "table":
        raise UserError("json and format={} exclude each other, got both", format)
    limits = Limits(seconds, memory, 10.0 * seconds)
    where = Sandbox(TRUST if trust else sandbox, image)
    with speaking("en" if json else language):
        printed.grade(
            submissions,
            limits,
            where,
            json,
            exercises=exercises,
            as_format=format,
            csv=csv,
            feedback=feedback,
        )
    return DONE
