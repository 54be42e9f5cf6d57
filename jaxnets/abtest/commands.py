"""`jaxnets abtest`: two models by a log of users' answers, or by the same pictures."""

from typing import Annotated

from jaxnets.abtest.plan import Plan
from jaxnets.base.errors import UserError
from jaxnets.config.command import FIGURE, CommandResult, Flag, command
from jaxnets.runs.commands import OwnLayers, check_runs, holds_run
from jaxnets.server.settings import HALVES


@command
def abtest(
    given: Annotated[tuple[str, ...], Flag(metavar="LOG|RUN_A RUN_B")],
    *,
    plan: Plan,
    dataset: Annotated[str | None, Flag(metavar="NAME|FOLDER", unset="the runs' own")] = None,
    output: Annotated[str | None, Flag(help=f"for a log: {FIGURE}", metavar="FILE")] = None,
    layers: OwnLayers = (),
) -> CommandResult:
    """Compare two models, by users' answers or on labelled pictures.

    Args:
      given: answers of users, as the server's log (a file, or a URL of PostgreSQL) or as CSV
        (columns arm: A or B, correct: 1 or 0, perhaps user and time); or two run folders, tested on
        the same pictures
      dataset: for two runs: data set, or folder of pictures, to test them on
    """
    if len(given) == 1:
        if dataset:
            raise UserError("dataset: expected two runs with it, got a log")
        return _of_log(given[0], plan, output)
    if output or plan.split != HALVES:
        raise UserError("output and split: expected a log with them, got two runs")
    return _of_runs(given, plan, dataset, layers)


def _of_log(log: str, plan: Plan, output: str | None) -> CommandResult:
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
    runs: tuple[str, ...], plan: Plan, dataset: str | None, layers: tuple[str, ...]
) -> CommandResult:
    if len(runs) != 2:
        raise UserError("expected a log, or two runs, got {} names", len(runs))
    check_runs(*runs, layers=layers)

    from jaxnets.abtest import pairs

    return pairs.PairsResult(pairs.compare_runs(*runs, dataset), plan)
