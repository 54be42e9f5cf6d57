"""The gradient check as a command: which layers and networks, and what is printed."""

from collections.abc import Iterator

from jaxnets.backprop.rule import all_rules
from jaxnets.errors import unknown
from jaxnets.gradcheck import report
from jaxnets.gradcheck.compare import Row
from jaxnets.gradcheck.layers import check_layer
from jaxnets.gradcheck.mutants import MUTANTS, mutated
from jaxnets.gradcheck.networks import check_network, networks
from jaxnets.machine.platform import prepare


def run(model: str | None = None, mutant: str | None = None, as_json: bool = False) -> bool:
    """Checks the gradients by hand, printing a row of the table as soon as it is known.

    Args:
      model: Which network; "all" is every layer and network, None leaves out the slow networks:
        AlexNet's other forms and sizes.
      mutant: A wrong backward pass, to be checked instead.
      as_json: Prints JSON, at the end.

    Returns:
      Whether everything agrees.

    Raises:
      UserError: There is no such mutant.
    """
    if mutant is not None and mutant not in MUTANTS:
        raise unknown("mutant", mutant, MUTANTS)
    prepare()
    rows = []
    if not as_json:
        print(report.HEADER)
    for row in _rows(model, mutant):
        rows.append(row)
        if not as_json:
            print(report.line(row), flush=True)
    print(report.to_json(rows) if as_json else report.summary(rows))
    return all(row.ok for row in rows)


def _rows(model: str | None, mutant: str | None) -> Iterator[Row]:
    if mutant is not None:
        yield check_layer(mutant, mutated(mutant))
        return
    if model in (None, "all"):
        for name, rule in all_rules().items():
            yield check_layer(name, rule)
    for name, network in networks().items():
        chosen = network.config.model == model or model == "all"
        if chosen or (model is None and not network.slow):
            yield check_network(name, network)
