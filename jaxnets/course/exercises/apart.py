"""What a process that runs a submission is given, and the arrays that it answers with.

It gets the submission, the inputs and the functions that its exercise imports: no right answer, and
no package that holds one. The judge compares the arrays in its own process.
"""

import json
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.base.language import _, texts_spoken
from jaxnets.course.exercises.given import sources_of
from jaxnets.course.exercises.passes import ExactCall
from jaxnets.course.exercises.sandbox import MOST_ANSWER, Limits, Outcome, Sandbox

RUNNER = "jaxnets.course.exercises.child.main"
# Beyond those that JAX has at its first program: its compiler starts more, one for each core.
MOST_PROCESSES = 8 + (os.cpu_count() or 1)


def task_of(
    name: str,
    source: str,
    given: frozenset[str],
    cases: Sequence[Any],
    limits: Limits,
    sandbox: Sandbox,
) -> bytes:
    """A submission as `sandbox.BEGIN` and child.py read it.

    Args:
      name: The function to run.
      source: Its file.
      given: The names of jaxnets that the file may import.
      cases: What judge.cases_of gives; only the calls are passed on.
      limits: The time and memory for it.
      sandbox: Where it will run.
    """
    task = {
        "source": source,
        "name": name,
        "texts": texts_spoken(),
        "calls": [case.call for case in cases],
        "seconds": limits.seconds,
        "memory": limits.memory << 20,
        "processes": MOST_PROCESSES if sandbox.limits_processes else None,
        "prints": sandbox.prints,
    }
    return pickle.dumps((sources_of(given | {RUNNER}), pickle.dumps(task)))


def answers_in(
    outcome: Outcome, cases: Sequence[Any], limits: Limits
) -> list[dict[str, np.ndarray]] | str:
    """The arrays of a submission that has run, or why there are none."""
    if outcome.timed_out:
        return _("it was still running when its time was over")
    if len(outcome.said) > MOST_ANSWER:
        return _("its answer is too long")
    if not outcome.said:
        return _(
            "it ended without an answer: its process ended itself, or exceeded {} s or {} MiB",
            limits.seconds,
            limits.memory,
        )
    return arrays_of(outcome.said, cases)


def arrays_of(said: bytes, cases: Sequence[Any]) -> list[dict[str, np.ndarray]] | str:
    """Reads an answer in JSON that may be forged: arrays of any shapes, or a reason."""
    try:
        values: Any = json.loads(said)
        if isinstance(values, dict):
            return str(values["reason"])
        rows = [
            {name: np.asarray(value, _dtype(case)) for name, value in row.items()}
            for row, case in zip(values, cases, strict=True)
        ]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return _("its answer cannot be read")
    if not all(_is_complete(row, case) for row, case in zip(rows, cases, strict=True)):
        return _("its answer does not have the gradients that were asked for")
    return rows


def _dtype(case: Any) -> type:
    return np.int64 if isinstance(case.call, ExactCall) else np.float64


def _is_complete(row: dict[str, np.ndarray], case: Any) -> bool:
    """Whether it has the arrays that were asked for; of residues there may be none."""
    return set(row) == case.call.leaves or (isinstance(case.call, ExactCall) and not row)
