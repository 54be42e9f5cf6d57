"""Which of gradcheck's checks refuses which subtle mistake; each is written into a copy.

`pytest -m stress tests/stress/test_subtle_mutants.py` takes a quarter of an hour.
"""

import csv
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = tomllib.loads((HERE / "subtle_mutants.toml").read_text())["mutants"]


@pytest.mark.stress
@pytest.mark.parametrize("judge", ["exact", "tolerances"])
def test_each_subtle_mutant_is_refused_or_its_row_says_why_not(judge, tmp_path):
    pytest.importorskip("mutmut")
    results = tmp_path / "mutants.tsv"
    command = [sys.executable, HERE / "mutate.py", "--subtle", f"--judge={judge}"]
    done = subprocess.run([*command, f"--results={results}"], capture_output=True, text=True)
    assert results.exists(), done.stderr
    with results.open(newline="") as file:
        outcomes = [row["outcome"] for row in csv.DictReader(file, delimiter="\t")]
    missed = [row["is"] for row, one in zip(ROWS, outcomes, strict=True) if one == "survived"]
    assert missed == [row["is"] for row in ROWS if judge in row.get("misses", {})]
