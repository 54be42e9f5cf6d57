"""Prints the results of the gradient check: a table for people, JSON for programs."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.rules import RULES
from jaxnets.base import display
from jaxnets.base.language import N_, _
from jaxnets.gradcheck.compare import DIFFERENCES, PRECISIONS, CheckResult
from jaxnets.gradcheck.exact import EXACT, WRONG
from jaxnets.gradcheck.forms import check_hessian_vector_product, check_replaced_layers
from jaxnets.gradcheck.layer_check import check_kernel, check_rule, is_refused
from jaxnets.gradcheck.networks import (
    NetworkCase,
    check_network,
    check_network_with_kernels,
    check_own_layers,
    has_kernels,
    networks,
)
from jaxnets.kernels import KERNELS
from jaxnets.machine.platform import set_up_jax

COLUMNS = (*PRECISIONS, DIFFERENCES)
HEADER = [
    N_("relative error"),
    N_("exact"),
    *COLUMNS,
    N_("tried"),
    N_("verdict"),
    N_("nearest to its tolerance"),
]
WIDTHS = (40, 8, *(max(10, len(column)) for column in COLUMNS), 11, 7, 0)
ALIGN = "<<" + ">" * len(COLUMNS) + "><<"
WIDE = 150  # A terminal with this many columns shows all; others show name, errors and verdict.
NARROW_WIDTHS = (23, 5, 7, 7, 8, 11, 6)


def checks_of(
    model: str | NetworkCase | None = None, draws: int | None = None, seed: int = 0
) -> Iterator[CheckResult]:
    """Checks layers and networks, one after the other.

    Args:
      model: The network; "all" is every layer and network, None leaves out the slow networks:
        AlexNet's other forms and sizes, and resnet20. A user's own network comes with its own
        layers.
      draws: How many settings are drawn from the domain of each layer and kernel; None: each
        domain's own number.
      seed: The seed of the draws.
    """
    if model in (None, "all"):
        for name, rule in RULES.items():
            yield check_rule(name, rule, draws, seed)
        for kernel in KERNELS:
            yield check_kernel(kernel, draws, seed)
        yield check_replaced_layers()
        yield check_hessian_vector_product()
    for name, network in _chosen(model).items():
        if network.config.layers is not None:
            yield from check_own_layers(network, draws, seed)
        yield check_network(name, network)
        if has_kernels(network):
            yield check_network_with_kernels(name, network)


def _chosen(model: str | NetworkCase | None) -> dict[str, NetworkCase]:
    """The networks that `checks_of` checks."""
    if isinstance(model, NetworkCase):
        return {model.config.model: model}
    return {
        name: network
        for name, network in networks().items()
        if model in ("all", network.config.model) or (model is None and not network.slow)
    }


def print_checks(
    checks: Iterator[CheckResult],
    *,
    as_json: bool = False,
    hint: bool = False,
    planted: Mapping[str, LayerRule] = MappingProxyType({}),
) -> bool:
    """Prints a table of checks, each row as soon as it is known.

    Args:
      checks: The checks, such as `checks_of` a network.
      as_json: Whether it prints JSON, at the end.
      hint: Whether it says more about a wrong layer than the cause of its first wrong gradient.
      planted: Layers with a mistake, by its name: the exact check must refuse each.

    Returns:
      Whether everything agrees, and each planted mistake is refused.
    """
    set_up_jax(keep_memory=False)  # AlexNets of many sizes would leave a heap of holes.
    rows = []
    if not as_json:
        print(_line([_(text) for text in HEADER]))
    for row in checks:
        rows.append(row)
        if not as_json:
            colour = "green" if row.ok else "red"
            print(_line(_cells(row), colour), flush=True)
    missed = [name for name, rule in planted.items() if not is_refused(rule)]
    all_agree = all(row.ok for row in rows) and not missed
    if as_json:
        found = {"ok": all_agree, "rows": [_values(row) for row in rows]}
        if planted:
            found["planted"] = {"asked": len(planted), "missed": missed}
        print(json.dumps(found, indent=2, allow_nan=False))
        return all_agree
    display.show(_summary(rows, hint))
    if planted:
        refused = len(planted) - len(missed)
        display.show(
            _(
                "{} of {} planted mistakes refused, each by the exact check",
                refused,
                len(planted),
            )
        )
    for name in missed:
        display.show(_("{}: planted, and not refused", name))
    return all_agree


def _line(cells: Sequence[str], colour: str | None = None) -> str:
    """A row of the table for this terminal, its verdict in a colour."""
    if display.columns() >= WIDE:
        line = display.line(cells, WIDTHS, ALIGN)
    else:
        name, exact, *errors = cells[: 2 + len(COLUMNS)]
        row = [display.shortened(name, NARROW_WIDTHS[0]), exact, *errors, cells[-2]]
        line = display.line(row, NARROW_WIDTHS, "<<" + ">" * len(errors) + "<")
    verdict = f" {cells[-2]}"
    return line.replace(verdict, f" {display.paint(cells[-2], colour)}") if colour else line


def _cells(row: CheckResult) -> list[str]:
    errors = [f"{row.errors[key].value:.1e}" if key in row.errors else "" for key in COLUMNS]
    tried = row.tried[0] if len(row.tried) == 1 else _("{} settings", len(row.tried))
    verdict = _("ok") if row.ok else _("FAILED")
    return [row.name, _exact_cell(row), *errors, tried, verdict, row.worst]


def _exact_cell(row: CheckResult) -> str:
    """The exact check's verdict on all settings it was asked, or how many it has shown."""
    if any(verdict.kind == WRONG for verdict in row.verdicts):
        return WRONG
    if row.verdicts:
        return f"{row.shown}/{row.asked}"
    return EXACT if row.asked else ""


def _summary(rows: Sequence[CheckResult], hint: bool) -> str:
    """The verdict under the table, with every error that is too large, and its cause."""
    lines = [
        _(
            "{}: {} {}, expected at most {}, in {} of {}",
            row.name,
            _(column),
            f"{error.value:.1e}",
            f"{row.tolerances[column]:.0e}",
            error.leaf,
            error.problem,
        )
        for row in rows
        for column, error in row.errors.items()
        if not error.value <= row.tolerances[column]
    ]
    lines += [
        _("{}: WRONG at {}", row.name, verdict.why)
        if verdict.kind == WRONG
        else _("{}: not shown exactly: {}", row.name, verdict.why)
        for row in rows
        for verdict in dict.fromkeys(row.verdicts)
    ]
    lines += [
        _("{}: {}", row.name, why) for row in rows for why in row.causes[: None if hint else 2]
    ]
    lines += [
        _("{}: shown exactly with 1/{} of its layers' widths", row.name, row.narrower)
        for row in rows
        if row.narrower > 1 and row.shown
    ]
    agree, seconds = sum(row.ok for row in rows), sum(row.seconds for row in rows)
    shown, asked = sum(row.shown for row in rows), sum(row.asked for row in rows)
    lines.append(
        _(
            "{} of {} agree; exact in {} of {} settings; {} s",
            agree,
            len(rows),
            f"{shown:,}",
            f"{asked:,}",
            f"{seconds:.0f}",
        )
    )
    return "\n".join(lines)


def _values(row: CheckResult) -> dict[str, Any]:
    """Everything that was found; an infinite error is null, and its leaf says why."""
    errors = {
        column: {
            "error": error.value if math.isfinite(error.value) else None,
            "leaf": error.leaf,
            "setting": error.problem,
            "tolerance": row.tolerances[column],
        }
        for column, error in row.errors.items()
    }
    return {
        "name": row.name,
        "ok": row.ok,
        "tried": row.tried,
        "errors": errors,
        "exact": {
            "asked": row.asked,
            "shown": row.shown,
            "narrower": row.narrower,
            "others": [{"verdict": one.kind, "why": str(one.why)} for one in row.verdicts],
        },
        "worst": row.worst,
        "causes": row.causes,
        "differences_taken": row.compared,
        "differences_passed_over": row.passed_over,
        "seconds": round(row.seconds, 3),
    }
