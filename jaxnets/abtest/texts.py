"""The texts of a result, from templates/: its layout, conclusions and limits in sentences."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jinja2 import Environment

from jaxnets.abtest.plan import Plan
from jaxnets.abtest.sequential import EXPECTED, MIN_USERS
from jaxnets.base.display import table
from jaxnets.base.language import _
from jaxnets.base.proportions import Interval
from jaxnets.drawing.templates import environment


class Sentence(NamedTuple):
    """A sentence about a result."""

    name: str  # The name of its macro in a template,
    values: Mapping[str, object] = {}  # and what that takes besides the result.


def sentences(template: str, found: Iterable[Sentence], *result: object) -> list[str]:
    """The sentences about a result, as a template says them."""
    macros = _templates().get_template(template).module
    return [getattr(macros, one.name)(*result, **one.values) for one in found]


def layout(template: str, **values: object) -> str:
    """The lines of a result, as a template orders them."""
    return _templates().get_template(template).render(values).rstrip("\n")


@functools.cache
def _templates() -> Environment:
    made = environment("jaxnets.abtest")
    made.globals |= {"least_users": MIN_USERS, "least_expected": EXPECTED}
    filters: dict[str, Any] = {
        "grouped": "{:,}".format,
        "percentage": percentage,
        "percentage_points": percentage_points,
        "points": points,
        "level": level_text,
        "interval": interval_text,
        "p": p_text,
        "table": table,
    }
    made.filters |= filters
    return made


def percentage(share: float) -> str:
    """A share in percent.

    >>> percentage(0.8)
    '80'
    """
    return f"{100 * share:g}"


def percentage_points(difference: float) -> str:
    """A difference in accuracy, in percentage points, without the unit.

    >>> percentage_points(0.0123)
    '1.23'
    """
    return f"{round(100 * difference, 2):g}"


def points(difference: float) -> str:
    """A difference in accuracy, in percentage points.

    >>> points(0.0123), points(0.02)
    ('1.23 percentage points', '2 percentage points')
    """
    return _("{} percentage points", percentage_points(difference))


def level_text(plan: Plan) -> str:
    """The level of a plan's intervals.

    >>> level_text(Plan(alpha=0.05))
    '95 %'
    """
    return f"{percentage(1 - plan.alpha)} %"


def interval_text(interval: Interval | None) -> str:
    """An interval of differences.

    >>> interval_text((-0.01, 0.02))
    '-0.0100 to +0.0200'
    """
    if interval is None:
        return _("not yet")
    return _("{} to {}", f"{interval[0]:+.4f}", f"{interval[1]:+.4f}")


def p_text(p: float) -> str:
    """A p value in two digits.

    >>> p_text(0.0321), p_text(0.0)
    ('0.032', '< 1e-300')
    """
    return f"{p:.2g}" if p >= 1e-300 else "< 1e-300"
