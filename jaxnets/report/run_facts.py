"""The facts of a run, and what is missing: a folder may be damaged, a data set gone."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from jaxnets.base.errors import message_and_status
from jaxnets.base.files import number_in
from jaxnets.base.language import N_, _, said
from jaxnets.course.comparison import Comparison
from jaxnets.data.datasets import Dataset
from jaxnets.predict.run_data import data_of
from jaxnets.predict.trained import TrainedNetwork, load_network
from jaxnets.report.evaluation import PARTS, Predictions, predictions_of, split_of
from jaxnets.runs.run_folder import CONFIG, RESULT, RunFolder


@dataclasses.dataclass
class RunFacts:
    """The facts of a run for a report. Its texts come from files: escape them."""

    name: str
    folder: RunFolder
    config: dict[str, Any] = dataclasses.field(default_factory=dict)  # As written.
    result: dict[str, Any] = dataclasses.field(default_factory=dict)  # As written.
    records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    comparison: Comparison | None = None  # With the right passes, if it trained by wrong ones.
    trained: TrainedNetwork | None = None
    data: Dataset | None = None
    missing: list[str] = dataclasses.field(default_factory=list)  # Sentences for the reader.

    @functools.cached_property
    def predictions(self) -> Predictions | None:
        """The network's answers on the part `judged_on`; None if they are not available."""
        with self.attempt(_("Mistakes")):
            if self.trained is not None and self.data is not None and self.judged_on is not None:
                return predictions_of(self.trained, self.data, self.judged_on)
        return None

    @property
    def judged_on(self) -> str | None:
        """The part of the data on which the report judges the network.

        It is "test", or "validation" if the data have no test images or the run leaves them
        closed; None if there are no images either way.
        """
        data, parts = self.data, [part for part in PARTS if part != "test" or self.tests]
        return next((p for p in parts if data is not None and len(split_of(data, p))), None)

    @property
    def tests(self) -> bool:
        """Whether the run evaluates its test images."""
        return self.trained is None or self.trained.config.test

    @property
    def validation_count(self) -> int:
        """The number of validation images, as far as it is known."""
        if self.data is not None:
            return len(self.data.validation)
        return int(number_in(self.result, "validation_count") or 0)

    @contextlib.contextmanager
    def attempt(self, part: str = "") -> Iterator[None]:
        """Notes what goes wrong in a block, unless it is a bug, and continues after it."""
        try:
            yield
        except Exception as error:
            if (known := message_and_status(error)) is None:
                raise
            text = said(known[0])
            text = _("{}: {}", part, text) if part else text
            self.missing.append(text)

    def column(self, name: str) -> list[float | None]:
        """A number of each epoch; None where it is missing."""
        return [number_in(record, name) for record in self.records]


def read_run(workdir: str, data: Dataset | None = None) -> RunFacts:
    """Reads a run folder, its network and, unless it is given, its data set, if they are there.

    Raises:
      UserError: There is no run, or its folder contains links.
    """
    folder = RunFolder.open(workdir)
    run = RunFacts(folder.path.name, folder)
    with run.attempt():
        run.config = folder.read(CONFIG)
    with run.attempt():
        run.records = folder.records()
    with run.attempt():
        run.result = folder.read(RESULT)
    with run.attempt():
        run.comparison = Comparison.read(folder)
    if run.config:
        with run.attempt():
            run.trained = load_network(str(folder.path), takes_rows=True)
    if run.trained is not None:
        with run.attempt():
            run.data = data_of(run.trained, data)
            if run.judged_on == "validation":
                why = N_("no test images were given: the report judges by the validation images")
                if not run.tests:
                    why = N_("--no_test: the report judges by the validation images")
                run.missing.append(_(why))
            elif run.judged_on is None:
                run.missing.append(
                    _("no test and no validation images were given: mistakes are not shown")
                )
    if not run.records:
        run.missing.append(_("no epoch has ended yet"))
    return run
