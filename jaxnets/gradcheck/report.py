"""What the gradient check has found: a table for people, JSON for machines."""

import json
import math
from collections.abc import Sequence
from typing import Any

from jaxnets import table
from jaxnets.gradcheck.compare import DIFFERENCES, PRECISIONS, Row

COLUMNS = (*PRECISIONS, DIFFERENCES)
WIDTHS = (40, *(max(10, len(column)) for column in COLUMNS), 11, 5, 7, 0)
ALIGN = "<" + ">" * len(COLUMNS) + ">><<"
HEADER = table.line(
    ["relative error", *COLUMNS, "tried", "kinks", "verdict", "nearest to its tolerance"],
    WIDTHS,
    ALIGN,
)


def line(row: Row) -> str:
    """One row of the table."""
    errors = [f"{row.errors[column].value:.1e}" for column in COLUMNS]
    tried = row.tried[0] if len(row.tried) == 1 else f"{len(row.tried)} settings"
    verdict = "ok" if row.ok else "FAILED"
    return table.line([row.name, *errors, tried, str(row.kinks), verdict, row.worst], WIDTHS, ALIGN)


def summary(rows: Sequence[Row]) -> str:
    """The verdict under the table, with every error that is too large."""
    wrong = [row for row in rows if not row.ok]
    lines = [
        f"{row.name}: {column} {error.value:.1e}, expected at most "
        f"{row.tolerances[column]:.0e}, in {error.leaf}"
        for row in wrong
        for column, error in row.errors.items()
        if not error.value <= row.tolerances[column]
    ]
    compared, kinks = sum(row.compared for row in rows), sum(row.kinks for row in rows)
    seconds = sum(row.seconds for row in rows)
    lines.append(
        f"{len(rows) - len(wrong)} of {len(rows)} agree; {compared} differences taken, {kinks} "
        f"passed over at a kink; {seconds:.0f} s"
    )
    return "\n".join(lines)


def to_json(rows: Sequence[Row]) -> str:
    """Everything that was found; an infinite error is null, and its leaf says why."""
    found = {"ok": all(row.ok for row in rows), "rows": [_values(row) for row in rows]}
    return json.dumps(found, indent=2, allow_nan=False)


def _values(row: Row) -> dict[str, Any]:
    errors = {
        column: {
            "error": error.value if math.isfinite(error.value) else None,
            "leaf": error.leaf,
            "tolerance": row.tolerances[column],
        }
        for column, error in row.errors.items()
    }
    return {
        "name": row.name,
        "ok": row.ok,
        "tried": row.tried,
        "errors": errors,
        "worst": row.worst,
        "differences_taken": row.compared,
        "kinks_replaced": row.kinks,
        "seconds": round(row.seconds, 3),
    }
