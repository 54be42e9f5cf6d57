"""Compares jaxnets with PyTorch, Keras, Flax, scikit-learn, NumPy and ONNX Runtime.

    python -m benchmarks            all parts, five rounds: takes hours on a quiet machine
    python -m benchmarks --quick    each part once and small: does it run?
    python -m benchmarks --part=rate --network=cnn --rounds=3
    python -m benchmarks --draw     only draws the page again from the numbers

Each measurement runs in a separate process, and the libraries take turns, so a
drift of the machine affects all alike. The numbers go to
benchmarks/peers.json (--output), and from there to docs/results.md (--page)
and, with all tables, to benchmarks/notes/peers.md (--tables), each with its
figures. A part that is measured again replaces its old numbers.
`pip install -e '.[bench]'` installs the libraries; missing ones are left out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import page, run
from benchmarks.peers.ways import NETWORKS
from jaxnets.base.errors import DONE, UserError, run_main, unknown
from jaxnets.base.files import replacing


def main(arguments: list[str]) -> int:
    """Measures, keeps the numbers, draws the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--part", default="all", metavar="NAME,...", help=f"parts: {', '.join(run.PARTS)}")
    add("--network", default="all", metavar="NAME,...", help=f"of rate: {', '.join(NETWORKS)}")
    add("--rounds", type=int, metavar="N", help="how often all is measured (default: 5)")
    add(
        "--quick",
        action="store_true",
        help="one round of few images; the numbers mean nothing, they go to runs/quick",
    )
    add("--limit", type=float, default=3600, metavar="SECONDS", help="longest process")
    add("--draw", action="store_true", help="measure nothing, draw the page from --output")
    add("--output", type=Path, metavar="FILE", help="the numbers (default: benchmarks/peers.json)")
    add("--page", type=Path, metavar="FILE", help="the page (default: docs/results.md)")
    add("--tables", type=Path, metavar="FILE", help="all tables (benchmarks/notes/peers.md)")
    flags = parser.parse_args(arguments)
    parts = _names("part", flags.part, run.PARTS)
    networks = _names("network", flags.network, NETWORKS)
    # Trials do not replace real numbers.
    place = run.ROOT / "runs" / "quick" if flags.quick else run.ROOT
    output = flags.output or place / "benchmarks" / "peers.json"
    to = flags.page or place / "docs" / "results.md"
    tables = flags.tables or place / "benchmarks" / "notes" / "peers.md"
    if flags.draw:
        if not output.exists():
            raise UserError(f"draw: expected numbers in {output}, found none")
        found = _read(output)
    else:
        old = _read(output) if output.exists() else {}
        facts = run.facts()
        if old and any(old[name] != facts[name] for name in ("machine", "versions")):
            hint = "remove it or choose another --output"
            raise UserError(f"{output}: numbers of another machine or other versions; {hint}")
        rounds = (1 if flags.quick else 5) if flags.rounds is None else flags.rounds
        if rounds < 1:
            raise UserError(f"rounds: expected 1 or more, got {rounds}")
        measured: list[run.Measurement] = []
        found = {**facts, "quick": flags.quick, "measurements": measured}
        output.parent.mkdir(parents=True, exist_ok=True)
        for one in run.run(parts, networks, rounds, flags.quick, flags.limit):
            measured.append(one)  # Kept at once: all parts take hours.
            with replacing(output) as stream:
                stream.write(json.dumps(page.merged(old, found), indent=1).encode() + b"\n")
        found = page.merged(old, found)
    page.write(found, to, tables)
    print(to)
    return DONE


def _read(path: Path) -> dict[str, Any]:
    """The numbers of a file that this program has written."""
    try:
        found = json.loads(path.read_text())
        _ = found["measurements"], found["machine"], found["versions"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path}: expected the numbers of a benchmark, found others") from None
    return found


def _names(flag: str, text: str, known: tuple[str, ...]) -> list[str]:
    """The names in a flag; "all" is every one."""
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise unknown(flag, name, known)
    return names


if __name__ == "__main__":
    sys.exit(run_main(main))
