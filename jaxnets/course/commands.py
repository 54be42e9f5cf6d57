"""`jaxnets gradcheck`, and `jaxnets exercise` with its parts."""

from typing import Annotated, Any

from jaxnets.base.errors import DONE, RUN_FAILED, UserError
from jaxnets.base.language import speaking
from jaxnets.config.command import (
    AnswerLanguage,
    CommandResult,
    Flag,
    Json,
    checked_shape,
    command,
)
from jaxnets.config.resolve import preset
from jaxnets.course.settings import TABLE, Checking, Grading

StudentName = Annotated[str | None, Flag(metavar="NAME", unset="everybody's numbers")]


@command
def gradcheck(
    *,
    checking: Checking,
    language: AnswerLanguage = None,
    json: Json = False,
) -> CommandResult | int:
    """Show hand-derived gradients right, exactly and by autodiff."""
    if language and not checking.mine:
        raise UserError("language: expected it with --mine=FILE, got it alone")
    if checking.mine:
        from jaxnets.course.exercises.actions import check_mine

        with speaking("en" if json else language):
            return check_mine(checking.mine, checking.hint)

    from jaxnets.gradcheck.layer_check import check_rule
    from jaxnets.gradcheck.table import checks_of, print_checks

    checked: Any = checking.model
    if checking.is_own_network:
        from jaxnets.data import published
        from jaxnets.gradcheck.networks import NUM_CLASSES, NetworkCase
        from jaxnets.networks.own import from_file

        own = from_file(str(checking.model))
        image = checked_shape(checking.image_shape or published.image_shape(preset(own).dataset))
        checked = NetworkCase(preset(own.for_data(image, NUM_CLASSES)), image)
    draws, seed = checking.draws, checking.seed
    rows, planted = checks_of(checked, draws, seed), {}
    if mutant := checking.mutant:
        from jaxnets.course.exercises import judge

        rows = iter([check_rule(mutant, judge.mutant(mutant), draws, seed)])
    elif checked == "all":
        from jaxnets.course.exercises import judge

        planted = judge.mutants()
    with speaking("en" if json else None):
        agrees = print_checks(rows, as_json=json, hint=checking.hint, planted=planted)
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
    from jaxnets.course.exercises.actions import listing

    with speaking(language):
        return listing(week)


@command
def following(*, language: AnswerLanguage = None) -> CommandResult:
    """Show the next required exercise, and how to begin it."""
    from jaxnets.course.exercises import actions

    with speaking(language):
        return actions.following()


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
    from jaxnets.course.exercises.actions import write

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
    from jaxnets.course.exercises import actions

    with speaking("en" if json else language):
        return actions.check(file, hint)


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
    from jaxnets.course.exercises import actions

    with speaking(language):
        return actions.answers(name, student, output)


@command
def grade(
    submissions: Annotated[str, Flag(metavar="SUBMISSIONS")],
    *,
    grading: Grading,
    language: AnswerLanguage = None,
    json: Json = False,
) -> int:
    """Grade a folder of submissions, each in a separate sandbox.

    Args:
      submissions: a file, or a folder with files, for each student: .py and .toml
    """
    from jaxnets.course.exercises import actions
    from jaxnets.course.exercises.sandbox import TRUST, Sandbox

    if json and grading.format != TABLE:
        raise UserError("json and format={} exclude each other, got both", grading.format)
    sandbox = Sandbox(TRUST if grading.trust else grading.sandbox, grading.image)
    with speaking("en" if json else language):
        actions.grade(submissions, grading, sandbox, json)
    return DONE
