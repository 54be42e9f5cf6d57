"""The result of one question of a sheet."""

from typing import NamedTuple

from jaxnets.base.language import N_

RIGHT, WRONG, BLANK = N_("right"), N_("wrong"), N_("blank")
WON, LOST = N_("won"), N_("lost")  # A bet counts once it is made, whatever happened.


class Answered(NamedTuple):
    """The result of one question."""

    name: str
    verdict: str  # RIGHT, WRONG or BLANK; of a bet WON, LOST, WRONG or BLANK.
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether a number or a formula is right, or a bet is made."""
        return self.verdict in (RIGHT, WON, LOST)
