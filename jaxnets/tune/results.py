"""Writes the results of a search: JSON for programs, CSV for tables."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxnets.base.files import write_text


def write(
    path: Path, values: dict[str, Any], columns: Sequence[str], rows: Iterable[dict[str, Any]]
) -> None:
    """Writes path.csv with the rows, then path.json with the values; a missing cell stays empty.

    The JSON comes last, because a search resumes from it: a kill in between loses no row.
    """
    stream = io.StringIO()
    table = csv.DictWriter(stream, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path.with_suffix(".csv"), stream.getvalue())
    write_text(path.with_suffix(".json"), to_json(values))


def to_json(values: Any) -> str:
    """The values as JSON; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(finite(values), indent=2, allow_nan=False) + "\n"


def finite(values: Any) -> Any:
    """The same values, with None for every number that is not finite.

    >>> finite({"losses": (0.5, math.nan)})
    {'losses': [0.5, None]}
    """
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
