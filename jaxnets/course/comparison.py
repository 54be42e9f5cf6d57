"""A training by wrong passes next to the right one, as the run folder keeps it for the report."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

from jaxnets.base import files
from jaxnets.base.display import four_digits
from jaxnets.base.errors import UserError
from jaxnets.base.language import N_, Text
from jaxnets.runs.run_folder import COMPARISON, RunFolder
from jaxnets.training.observer import Record

WRONG, WHY = N_("{} ({}): {} is wrong"), N_("{} ({}): {}")
SAME = N_("Both trainings began with the same weights and saw the same images in the same order.")
COMPARED = N_("After epoch {} the accuracy is {} instead of {}, the loss {} instead of {}.")
ENDED = N_("Your training ended: {}")


@dataclasses.dataclass(frozen=True)
class WrongPass:
    """What the judge has found in one of the user's backward passes."""

    function: str
    layer: str
    gradients: list[str]  # The names of those that are wrong, or else
    reason: str  # why there are none.

    @property
    def sentence(self) -> Text:
        """What is wrong, in one sentence."""
        if self.gradients:
            return Text(WRONG, self.function, self.layer, ", ".join(self.gradients))
        return Text(WHY, self.function, self.layer, self.reason)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A training by wrong passes next to one by the right passes, from the same seed and data."""

    wrong: list[WrongPass]
    right: list[Record]  # The epochs of the right training.
    ended: str | None = None  # Why the wrong training ended before its last epoch.

    def write(self, folder: RunFolder) -> None:
        """Writes it into the folder of the training by the wrong passes."""
        folder.write(COMPARISON, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: RunFolder) -> Self | None:
        """Reads it from a run folder, which may be a stranger's; None if it holds none.

        Raises:
          UserError: It is damaged.
        """
        if not (written := folder.read(COMPARISON)):
            return None
        try:
            wrong, right, ended = (written[field.name] for field in dataclasses.fields(cls))
            found = cls([WrongPass(**one) for one in wrong], list(right), ended)
            texts = [ended or ""]
            for one in found.wrong:
                texts += [one.function, one.layer, one.reason, *one.gradients]
            sound = all(isinstance(text, str) for text in texts)
            if not (sound and all(map(files.is_record, found.right))):
                raise ValueError("expected texts and records of epochs")
        except (TypeError, ValueError, KeyError) as error:
            raise UserError("{}: damaged: {}", folder.path / COMPARISON, error) from error
        return found

    def sentences(self, yours: Sequence[Record]) -> list[Text]:
        """What to say of both trainings.

        Args:
          yours: The epochs of the training by the wrong passes.
        """
        said = [*(one.sentence for one in self.wrong), Text(SAME)]
        if 0 < len(yours) <= len(self.right):
            ends: Any = yours[-1], self.right[len(yours) - 1]
            part = "train" if ends[1]["validation_accuracy"] is None else "validation"
            accuracies = [f"{100 * one[f'{part}_accuracy']:.2f} %" for one in ends]
            losses = [four_digits(one[f"{part}_loss"]) for one in ends]
            said.append(Text(COMPARED, len(yours), *accuracies, *losses))
        if self.ended is not None:
            said.append(Text(ENDED, self.ended))
        return said
