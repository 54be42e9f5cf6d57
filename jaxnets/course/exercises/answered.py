"""The result of one question of a sheet."""

from typing import NamedTuple

from jaxnets.base.language import N_

RIGHT, WRONG, BLANK = N_("right"), N_("wrong"), N_("blank")


class Answered(NamedTuple):
    """The result of one question."""

    name: str
    verdict: str  # RIGHT, WRONG or BLANK.
    note: str = ""
