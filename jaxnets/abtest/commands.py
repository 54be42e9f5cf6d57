"""`jaxnets abtest`: two models by a log of users' answers, or by the same pictures."""

from typing import TYPE_CHECKING, Annotated

from jaxnets.base.errors import UserError
from jaxnets.config.command import FIGURE, CommandResult, Flag, command
from jaxnets.runs.commands import OwnLayers, check_runs, holds_run
from jaxnets.server.commands import HALVES, share_of_b

if TYPE_CHECKING:
    from jaxnets.abtest.trial import Plan


@command
def abtest(
    given: Annotated[tuple[str, ...], Flag(metavar="LOG|RUN_A RUN_B")],
    *,
    alpha: Annotated[float, Flag((1e-6, 0.5))] = 0.05,
    effect: Annotated[float, Flag((1e-4, 0.99))] = 0.02,
    power: Annotated[float, Flag((0.5, 0.999))] = 0.8,
    split: Annotated[str, Flag(metavar="A/B")] = HALVES,
    dataset: Annotated[str | None, Flag(metavar="NAME|FOLDER", unset="the runs' own")] = None,
    output: Annotated[str | None, Flag(help=f"for a log: {FIGURE}", metavar="FILE")] = None,
    layers: OwnLayers = (),
) -> CommandResult:
    """Compare two models, by users' answers or on labelled pictures.

    Args:
      given: answers of users, as the server's log (a file, or a URL of PostgreSQL) or as CSV
        (columns arm: A or B, correct: 1 or 0, perhaps user and time); or two run folders, tested on
        the same pictures
      alpha: chance of a false alarm
      effect: smallest difference in accuracy that matters to you
      power: chance of finding that difference
      split: for a log: percentages of users for A and B
      dataset: for two runs: data set, or folder of pictures, to test them on
    """
    from jaxnets.abtest.trial import Plan

    plan = Plan(alpha, effect, power, share_of_b(split))
    if len(given) == 1:
        if dataset:
            raise UserError("dataset: expected two runs with it, got a log")
        return _of_log(given[0], plan, output)
    if output or split != HALVES:
        raise UserError("output and split: expected a log with them, got two runs")
    return _of_runs(given, plan, dataset, layers)


def _of_log(log: str, plan: "Plan", output: str | None) -> CommandResult:
    if holds_run(log):
        raise UserError("expected a log, or two runs: abtest {} RUN_B", log)

    from jaxnets.abtest import presentation, trial
    from jaxnets.abtest.log import log_name, read_users

    if output:
        from jaxnets.drawing.svg import figure_path

        figure_path(output)
    found = trial.compare_arms(read_users(log), plan)
    if output:
        presentation.plot(found).save(output)
    return presentation.TrialResult(found, log_name(log))


def _of_runs(
    runs: tuple[str, ...], plan: "Plan", dataset: str | None, layers: tuple[str, ...]
) -> CommandResult:
    if len(runs) != 2:
        raise UserError("expected a log, or two runs, got {} names", len(runs))
    check_runs(*runs, layers=layers)

    from jaxnets.abtest import pairs

    return pairs.PairsResult(pairs.compare_runs(*runs, dataset), plan)
