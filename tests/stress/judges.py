"""Judges a module's passes by gradcheck's rows alone: exactly, by tolerances, or as the table does.

python tests/stress/judges.py          the planted mistakes of the course, and who refuses them
"""

import contextlib
import inspect
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

JUDGES = "exact", "tolerances", "both"
# A right gradient at a tie may lie beyond the slopes on both sides, if windows overlap; and beside
# an offset of 1e-12 every step is too long.
NOT_BY_DIFFERENCES = "max_pool", "cross_entropy"


class Row(NamedTuple):
    """One of gradcheck's rows, and the modules whose passes it tries."""

    name: str
    modules: set[str]
    check: Callable  # () -> CheckResult


def rows() -> list[Row]:
    """All rows but those of whole networks."""
    from jaxnets.backprop.rules import RULES
    from jaxnets.gradcheck import forms, layer_check
    from jaxnets.kernels import KERNELS

    def modules(rule):
        found = {inspect.unwrap(one).__module__ for one in (rule.forward, rule.backward)}
        return found | {"jaxnets.backprop.network"} if "keys" in rule.inputs else found

    found = [
        Row(name, modules(rule), partial(layer_check.check_rule, name, rule))
        for name, rule in RULES.items()
    ]
    found += [
        Row(one.name, modules(one.rule), partial(layer_check.check_kernel, one)) for one in KERNELS
    ]
    replaced = {"jaxnets.kernels", "jaxnets.kernels.by_rule", "jaxnets.backprop.function"}
    second = {"jaxnets.backprop.second_order"}
    return [
        *found,
        Row("replaced layers", replaced, forms.check_replaced_layers),
        Row("hessian_vector_product", second, forms.check_hessian_vector_product),
    ]


def rows_about(module: str) -> list[Row]:
    """The rows of the passes in a module; if it has none, those of the modules that import it.

    Args:
      module: A path in jaxnets/, or one like "../examples/own_attention.py".
    """
    if module.startswith("../"):
        return list(rows_of_file(module.removeprefix("../")))
    name = "jaxnets." + module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imports(importer: str) -> bool:
        values = vars(sys.modules[importer]).values()
        return any(
            name in (getattr(v, "__module__", ""), getattr(v, "__name__", "")) for v in values
        )

    known = rows()
    return (
        [row for row in known if name in row.modules]
        or [row for row in known if any(map(imports, row.modules))]
        or known
    )


def rows_of_file(path: str) -> Iterator[Row]:
    """The rows of the layers in a file with a network for images of 28 x 28."""
    from jaxnets.gradcheck.layer_check import check_layer, own_layers

    network = runpy.run_path(path)["model"](3)
    layers = {type(layer): (layer, shape) for layer, shape in own_layers(network, (2, 28, 28, 1))}
    for kind, (layer, shape) in layers.items():
        yield Row(kind.__name__, {path}, partial(check_layer, layer, [shape]))


class RefusedError(BaseException):
    """A gradient that the exact check has found to be wrong; no error of a user's own rule."""


@contextlib.contextmanager
def alone(judge: str) -> Iterator[list[str]]:
    """Leaves the others out of gradcheck's rows, and the causes, which are for people.

    Yields what the exact check has left open; the first wrong gradient is a RefusedError.
    """
    from jaxnets.gradcheck import compare, exact, layer_check

    def check_exactly(*question):
        verdict = exact.check_exactly(*question)
        if verdict.kind == exact.WRONG:
            raise RefusedError(str(verdict.why))
        if verdict.kind == exact.OPEN:
            left_open.append(str(verdict.why))
        return verdict

    left_open: list[str] = []
    with contextlib.ExitStack() as stack:

        def replace(module, name, value):
            stack.enter_context(mock.patch.object(module, name, value))

        replace(layer_check, "_with_causes", lambda row, *_: row)
        replace(compare, "check_exactly", check_exactly if judge != "tolerances" else _not_asked)
        if judge == "exact":
            replace(compare, "compiled", lambda wanted: iter(()))
            replace(layer_check, "compiled", lambda wanted: iter(()))
        yield left_open


def _not_asked(*question):
    return None


def why_not(check: Callable) -> str:
    """Why a row says FAILED, or ""."""
    from jaxnets.gradcheck.compare import DIFFERENCES

    try:
        result = check()
    except RefusedError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    told = result.name not in NOT_BY_DIFFERENCES
    errors = {key: one for key, one in result.errors.items() if told or key != DIFFERENCES}
    if result._replace(errors=errors).ok:
        return ""
    found = ((key, one) for key, one in errors.items() if not one.value <= result.tolerances[key])
    return "; ".join(f"{key} {one.value:.1e} at {one.leaf}" for key, one in found)


def refusal(judge: str, module: str) -> tuple[str, str]:
    """The first row that refuses a module's passes, or ""; and what is left open."""
    with alone(judge) as left_open:
        for row in rows_about(module):
            if why := why_not(row.check):
                return f"{row.name}: {why}", ""
    return "", "; ".join(dict.fromkeys(left_open))


def planted() -> Iterator[tuple[str, dict[str, str]]]:
    """The planted mistakes of the course, and why each judge refuses them."""
    from jaxnets.course.exercises.judge import mutants
    from jaxnets.gradcheck.layer_check import check_rule

    for name, rule in mutants().items():
        found = {}
        for judge in JUDGES:
            with alone(judge):
                found[judge] = why_not(partial(check_rule, rule.name, rule))
        yield name, found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    every = []
    for name, found in planted():
        every.append((name, found))
        print(f"{name:40}", *(judge if found[judge] else "-" for judge in JUDGES), flush=True)
    for judge in JUDGES:
        print(f"{judge}: {sum(bool(found[judge]) for _, found in every)} of {len(every)}")
